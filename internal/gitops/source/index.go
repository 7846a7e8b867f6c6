package source

import (
	"encoding/binary"
	"encoding/hex"
	"iter"
	"path"
	"slices"
	"strings"
	"sync"
)

// Index finds the readers of a path, and keeps what each of them read in a
// compact form: every path is stored once for all readers, identities as
// bytes. It is safe for concurrent use. The zero value is not usable; see
// [NewIndex].
type Index struct {
	mu      sync.Mutex
	paths   []indexedPath
	byPath  map[string]uint32 // path → place in paths
	free    []uint32          // unused places of paths
	readers []indexedReader
	byName  map[string]uint32 // reader → place in readers
	gone    []uint32          // unused places of readers
}

// indexedPath is a path and who reads it. Most paths have one reader.
type indexedPath struct {
	path string
	one  uint32    // the reader when more is nil
	more *[]uint32 // all readers, sorted
}

// indexedReader is a reader and what it read: for every input the place of the
// path (uvarint) and the identity; see appendIdentity.
type indexedReader struct {
	name   string
	inputs string
}

// NewIndex returns an empty index. One index covers one repository.
func NewIndex() *Index {
	return &Index{byPath: map[string]uint32{}, byName: map[string]uint32{}}
}

// Set replaces the inputs of reader; nil removes it. It keeps nothing of in.
func (x *Index) Set(reader string, in Inputs) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r, known := x.byName[reader]
	if known {
		for p := range decode(x.readers[r].inputs) {
			x.leave(p, r)
		}
		x.readers[r].inputs = ""
	}
	switch {
	case in == nil && known:
		delete(x.byName, reader)
		x.readers[r] = indexedReader{}
		x.gone = append(x.gone, r)
		return
	case in == nil:
		return
	case !known:
		r = x.newReader(reader)
	}
	packed := make([]byte, 0, 24*len(in))
	for p, id := range in {
		packed = binary.AppendUvarint(packed, uint64(x.join(p, r)))
		packed = appendIdentity(packed, id)
	}
	x.readers[r].inputs = string(packed)
}

func (x *Index) newReader(name string) uint32 {
	name = strings.Clone(name)
	var r uint32
	if n := len(x.gone); n > 0 {
		r, x.gone = x.gone[n-1], x.gone[:n-1]
		x.readers[r].name = name
	} else {
		r = uint32(len(x.readers))
		x.readers = append(x.readers, indexedReader{name: name})
	}
	x.byName[name] = r
	return r
}

// join adds the reader to a path and returns the place of the path.
func (x *Index) join(p string, r uint32) uint32 {
	at, ok := x.byPath[p]
	if !ok {
		p = strings.Clone(p)
		if n := len(x.free); n > 0 {
			at, x.free = x.free[n-1], x.free[:n-1]
			x.paths[at] = indexedPath{path: p, one: r}
		} else {
			at = uint32(len(x.paths))
			x.paths = append(x.paths, indexedPath{path: p, one: r})
		}
		x.byPath[p] = at
		return at
	}
	e := &x.paths[at]
	if e.more == nil {
		e.more = &[]uint32{e.one}
	}
	if i, found := slices.BinarySearch(*e.more, r); !found {
		*e.more = slices.Insert(*e.more, i, r)
	}
	return at
}

// leave takes the reader off a path, and the path away when it was the last.
func (x *Index) leave(at, r uint32) {
	e := &x.paths[at]
	if e.more != nil {
		if i, found := slices.BinarySearch(*e.more, r); found {
			*e.more = slices.Delete(*e.more, i, i+1)
		}
		if len(*e.more) > 1 {
			return
		}
		if len(*e.more) == 1 {
			e.one, e.more = (*e.more)[0], nil
			return
		}
	}
	delete(x.byPath, e.path)
	*e = indexedPath{}
	x.free = append(x.free, at)
}

// Inputs returns what reader read, nil when it is not in the index.
func (x *Index) Inputs(reader string) Inputs {
	x.mu.Lock()
	defer x.mu.Unlock()
	r, ok := x.byName[reader]
	if !ok {
		return nil
	}
	in := Inputs{}
	for p, id := range decode(x.readers[r].inputs) {
		in[x.paths[p].path] = id.String()
	}
	return in
}

// Names yields all readers, in any order. The index must not be used by yield.
func (x *Index) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		x.mu.Lock()
		defer x.mu.Unlock()
		for name := range x.byName {
			if !yield(name) {
				return
			}
		}
	}
}

// Readers returns who may be affected by the changed paths, each with one of
// the paths that affect it. The cost follows the change, not the readers.
func (x *Index) Readers(changed []string) map[string]string {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := map[string]string{}
	seen := map[string]bool{}
	for _, p := range changed {
		for at := p; ; {
			if seen[at] {
				break // and so were all directories above
			}
			seen[at] = true
			x.collect(out, at, p)
			if at == "" {
				break
			}
			if at = path.Dir(at); at == "." {
				at = ""
			}
		}
	}
	return out
}

func (x *Index) collect(out map[string]string, at, because string) {
	place, ok := x.byPath[at]
	if !ok {
		return
	}
	add := func(r uint32) {
		name := x.readers[r].name
		if _, ok := out[name]; !ok {
			out[name] = because
		}
	}
	e := x.paths[place]
	if e.more == nil {
		add(e.one)
		return
	}
	for _, r := range *e.more {
		add(r)
	}
}

// The forms of an identity in an indexedReader, one byte before its content.
const (
	idAbsent = iota
	idHex    // length in bytes, bytes: object ids
	idList   // length in bytes, bytes: listings
	idText   // length, text: anything else
)

func appendIdentity(to []byte, id string) []byte {
	if id == absentID {
		return append(to, idAbsent)
	}
	form, digits := byte(idHex), id
	if rest, ok := strings.CutPrefix(id, listPrefix); ok {
		form, digits = idList, rest
	}
	if raw, err := hex.DecodeString(digits); err == nil && digits == strings.ToLower(digits) {
		to = binary.AppendUvarint(append(to, form), uint64(len(raw)))
		return append(to, raw...)
	}
	to = binary.AppendUvarint(append(to, idText), uint64(len(id)))
	return append(to, id...)
}

type packedIdentity struct {
	form  byte
	bytes string
}

// String is the identity as Inputs has it.
func (id packedIdentity) String() string {
	switch id.form {
	case idAbsent:
		return absentID
	case idHex:
		return hex.EncodeToString([]byte(id.bytes))
	case idList:
		return listPrefix + hex.EncodeToString([]byte(id.bytes))
	}
	return id.bytes
}

// decode yields the inputs of a reader.
func decode(packed string) func(yield func(uint32, packedIdentity) bool) {
	return func(yield func(uint32, packedIdentity) bool) {
		for len(packed) > 0 {
			place, n := uvarint(packed)
			packed = packed[n:]
			id := packedIdentity{form: packed[0]}
			packed = packed[1:]
			if id.form != idAbsent {
				size, n := uvarint(packed)
				id.bytes, packed = packed[n:n+int(size)], packed[n+int(size):]
			}
			if !yield(uint32(place), id) {
				return
			}
		}
	}
}

// uvarint is binary.Uvarint of a string that appendIdentity or Set made.
func uvarint(s string) (value uint64, n int) {
	for shift := 0; ; shift += 7 {
		b := s[n]
		n++
		value |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return value, n
		}
	}
}
