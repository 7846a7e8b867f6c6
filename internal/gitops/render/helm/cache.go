package helm

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"text/template"
)

// programCache keeps the programs used last. Charts that differ in values only
// share one.
type programCache struct {
	once  sync.Once
	funcs template.FuncMap

	mu    sync.Mutex
	byKey map[[32]byte]*list.Element
	order list.List // of *cached, the last used in front
	size  int
}

type cached struct {
	key     [32]byte
	program *program
}

// What is kept, and what a program takes: measured, its table of functions and
// so many bytes for each byte of text.
const (
	maxPrograms     = 64
	maxProgramBytes = 16 << 20
	emptyProgram    = 40 << 10
	parsedFactor    = 14
)

// get returns the program of templates, parsed now or before.
func (c *programCache) get(all []unit) (*program, error) {
	key := keyOf(all)
	c.mu.Lock()
	if e, ok := c.byKey[key]; ok {
		c.order.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(*cached).program, nil
	}
	c.mu.Unlock()
	c.once.Do(func() { c.funcs = functions() })
	p, err := compile(all, c.funcs)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey == nil {
		c.byKey = map[[32]byte]*list.Element{}
	}
	if e, ok := c.byKey[key]; ok {
		return e.Value.(*cached).program, nil
	}
	c.byKey[key] = c.order.PushFront(&cached{key, p})
	c.size += p.size
	for c.order.Len() > 1 && (c.order.Len() > maxPrograms || c.size > maxProgramBytes) {
		last := c.order.Remove(c.order.Back()).(*cached)
		delete(c.byKey, last.key)
		c.size -= last.program.size
	}
	return p, nil
}

func keyOf(all []unit) (key [32]byte) {
	h := sha256.New()
	var n [8]byte
	for _, u := range all {
		for _, part := range [][]byte{[]byte(u.name), u.data} {
			binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
			h.Write(n[:])
			h.Write(part)
		}
	}
	h.Sum(key[:0])
	return key
}
