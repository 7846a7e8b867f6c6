package saved

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/klauspost/compress/s2"

	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// A row is a sequence of values without names or types: lengths and numbers as
// varints, object ids as their bytes, paths without what they share with the
// one before. Objects come compressed; the rest is compressed here.

// rowFormat is the first byte of a row; another one is not read.
const rowFormat = 1

// maxRow bounds what a row may unpack to, in bytes.
const maxRow = 256 << 20

var errDamaged = errors.New("the row is damaged")

// encode turns a render into the row of an application.
func encode(key string, r application.SavedRender, seal *sealer) ([]byte, error) {
	w := &writer{}
	w.number(r.Format)
	w.text(r.Params)
	w.texts(r.Revisions)
	w.number(len(r.Inputs))
	for _, in := range r.Inputs {
		w.inputs(in)
	}
	w.number(len(r.Tools))
	for _, t := range r.Tools {
		w.text(string(t))
	}
	w.warnings(r.Warnings)
	w.warnings(r.Repeated)
	w.flag(r.Unsure)
	w.flag(r.Volatile)
	w.text(r.Announced)
	w.number(len(r.Objects))
	var bodies []byte
	for _, o := range r.Objects {
		w.object(o)
		bodies = append(bodies, o.Raw...)
	}
	head := s2.EncodeBetter(nil, w.data)
	plain := make([]byte, 0, len(head)+len(bodies)+10)
	plain = append(plain, rowFormat)
	plain = binary.AppendUvarint(plain, uint64(len(head)))
	plain = append(plain, head...)
	plain = append(plain, bodies...)
	return seal.seal(key, plain)
}

// decode reads a row. The objects share its memory.
func decode(key string, row []byte, seal *sealer) (r application.SavedRender, err error) {
	plain, err := seal.open(key, row)
	if err != nil {
		return r, err
	}
	if len(plain) == 0 || plain[0] != rowFormat {
		return r, fmt.Errorf("%w: it has another format", errDamaged)
	}
	size, n := binary.Uvarint(plain[1:])
	if n <= 0 || size > uint64(len(plain)-1-n) {
		return r, errDamaged
	}
	head, bodies := plain[1+n:1+n+int(size)], plain[1+n+int(size):]
	if length, err := s2.DecodedLen(head); err != nil || length > maxRow {
		return r, errDamaged
	}
	if head, err = s2.Decode(nil, head); err != nil {
		return r, errors.Join(errDamaged, err)
	}
	d := &reader{data: head}
	r.Format, r.Params, r.Revisions = d.number(), d.text(), d.texts()
	for range d.count() {
		r.Inputs = append(r.Inputs, d.inputs())
	}
	for range d.count() {
		r.Tools = append(r.Tools, render.Tool(d.text()))
	}
	r.Warnings, r.Repeated = d.warnings(), d.warnings()
	r.Unsure, r.Volatile, r.Announced = d.flag(), d.flag(), d.text()
	objects := d.count()
	r.Objects = make([]application.SavedObject, 0, objects)
	for range objects {
		o, size := d.object()
		if size > len(bodies) {
			return r, errDamaged
		}
		o.Raw = slices.Clip(bodies[:size])
		bodies = bodies[size:]
		r.Objects = append(r.Objects, o)
	}
	if d.bad || len(d.data) > 0 || len(bodies) > 0 {
		return r, errDamaged
	}
	return r, nil
}

type writer struct {
	data []byte
	last string // path
}

func (w *writer) number(n int) { w.data = binary.AppendVarint(w.data, int64(n)) }

func (w *writer) flag(on bool) {
	b := byte(0)
	if on {
		b = 1
	}
	w.data = append(w.data, b)
}

func (w *writer) text(s string) {
	w.data = binary.AppendUvarint(w.data, uint64(len(s)))
	w.data = append(w.data, s...)
}

func (w *writer) texts(list []string) {
	w.number(len(list))
	for _, s := range list {
		w.identity(s)
	}
}

// path writes a text that often begins like the one before.
func (w *writer) path(p string) {
	shared := 0
	for shared < min(len(p), len(w.last)) && p[shared] == w.last[shared] {
		shared++
	}
	w.number(shared)
	w.text(p[shared:])
	w.last = p
}

// The kinds of identities.
const (
	asText = iota
	asHex
	asList
)

const listPrefix = "list:"

// identity writes the identity of an input: mostly digits of a hash.
func (w *writer) identity(id string) {
	kind, digits := byte(asHex), id
	if rest, ok := strings.CutPrefix(id, listPrefix); ok {
		kind, digits = asList, rest
	}
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) == 0 || hex.EncodeToString(raw) != digits {
		w.data = append(w.data, asText)
		w.text(id)
		return
	}
	w.data = append(w.data, kind)
	w.text(string(raw))
}

func (w *writer) inputs(in source.Inputs) {
	w.number(len(in))
	for _, p := range slices.Sorted(maps.Keys(in)) {
		w.path(p)
		w.identity(in[p])
	}
}

func (w *writer) warnings(list []manifest.Warning) {
	w.number(len(list))
	for _, x := range list {
		w.path(x.File)
		w.number(x.Line)
		w.text(x.Message)
		w.flag(x.LeftOut)
	}
}

func (w *writer) object(o application.SavedObject) {
	for _, s := range []string{o.Group, o.Version, o.Kind, o.Namespace, o.Name} {
		w.text(s)
	}
	w.flag(o.Hook)
	w.path(o.File)
	w.number(o.Line)
	w.data = append(w.data, o.Digest[:]...)
	w.number(len(o.Raw))
}

// reader reads what writer wrote. After a fault all it reads is empty.
type reader struct {
	data []byte
	last string
	bad  bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.data) {
		r.bad, r.data = true, nil
		return nil
	}
	out := r.data[:n]
	r.data = r.data[n:]
	return out
}

func (r *reader) number() int {
	n, size := binary.Varint(r.data)
	if size <= 0 {
		r.take(-1)
		return 0
	}
	r.take(size)
	return int(n)
}

// count is a number of things of which each takes a byte at least.
func (r *reader) count() int {
	n := r.number()
	if n < 0 || n > len(r.data) {
		r.take(-1)
		return 0
	}
	return n
}

func (r *reader) flag() bool {
	b := r.take(1)
	return len(b) == 1 && b[0] == 1
}

func (r *reader) text() string {
	n, size := binary.Uvarint(r.data)
	if size <= 0 || n > uint64(len(r.data)) {
		r.take(-1)
		return ""
	}
	r.take(size)
	return string(r.take(int(n)))
}

func (r *reader) texts() (out []string) {
	for range r.count() {
		out = append(out, r.identity())
	}
	return out
}

func (r *reader) path() string {
	shared := r.number()
	if shared < 0 || shared > len(r.last) {
		r.take(-1)
		return ""
	}
	r.last = r.last[:shared] + r.text()
	return r.last
}

func (r *reader) identity() string {
	kind := r.take(1)
	s := r.text()
	switch {
	case len(kind) == 0 || kind[0] > asList:
		r.take(-1)
		return ""
	case kind[0] == asHex:
		return hex.EncodeToString([]byte(s))
	case kind[0] == asList:
		return listPrefix + hex.EncodeToString([]byte(s))
	}
	return s
}

func (r *reader) inputs() source.Inputs {
	n := r.count()
	in := make(source.Inputs, n)
	for range n {
		p := r.path()
		in[p] = r.identity()
	}
	return in
}

func (r *reader) warnings() (out []manifest.Warning) {
	for range r.count() {
		out = append(out, manifest.Warning{File: r.path(), Line: r.number(), Message: r.text(), LeftOut: r.flag()})
	}
	return out
}

func (r *reader) object() (o application.SavedObject, size int) {
	o.Group, o.Version, o.Kind, o.Namespace, o.Name = r.text(), r.text(), r.text(), r.text(), r.text()
	o.Hook, o.File, o.Line = r.flag(), r.path(), r.number()
	copy(o.Digest[:], r.take(len(o.Digest)))
	size = r.number()
	if size < 0 {
		r.take(-1)
		return o, 0
	}
	return o, size
}
