// Package sandbox runs the small Lua scripts that people put into argocd-cm.
//
// Input: a script and an object, which the script finds in the global obj.
// Output: what the script returns, as maps, slices, strings, booleans, int64
// and float64. A script can reach neither files nor the network nor the
// process; it sees the libraries that Argo CD gives it: base, table, and os
// with date and time only; string and math where the settings say
// useOpenLibs. It is stopped after a second, after two million instructions,
// or when it has made 16 MiB of text. What one run changes, the next does not
// see.
//
// Start reading at [Program.Run].
package sandbox

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

const (
	maxTime         = time.Second
	maxInstructions = 2_000_000
	maxText         = 16 << 20 // bytes of text made in one run
	maxString       = 1 << 20  // bytes of one text
	maxScript       = 256 << 10
	maxRegistry     = 64 << 10 // values on Lua's stack
)

// Pool keeps Lua states for use again, some with the open libraries and some
// without. The zero value is ready, and safe for use by several goroutines.
type Pool struct {
	closed, open sync.Pool
}

// Program is a compiled script. It is safe for use by several goroutines.
type Program struct {
	pool  *Pool
	proto *lua.FunctionProto
	open  bool
}

// Compile reads a script. name is for messages.
func (p *Pool) Compile(name, script string, openLibs bool) (program *Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			program, err = nil, fmt.Errorf("compile %s: %v", name, r)
		}
	}()
	if len(script) > maxScript {
		return nil, fmt.Errorf("compile %s: the script has %d bytes; at most %d are read", name, len(script), maxScript)
	}
	chunk, err := parse.Parse(strings.NewReader(script), name)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %s", name, strings.TrimSpace(err.Error()))
	}
	rewriteBlock(chunk)
	proto, err := lua.Compile(chunk, name)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", name, err)
	}
	return &Program{pool: p, proto: proto, open: openLibs}, nil
}

// Run runs the script with the global obj, and actionParams where params is
// not nil. obj is not changed.
func (p *Program) Run(obj map[string]any, params map[string]string) (result any, err error) {
	states := &p.pool.closed
	if p.open {
		states = &p.pool.open
	}
	s, _ := states.Get().(*state)
	if s == nil {
		s = newState(p.open)
	}
	healthy := false
	defer func() {
		if r := recover(); r != nil {
			result, err = nil, fmt.Errorf("the script broke Lua: %v", r)
		}
		if healthy {
			states.Put(s)
			return
		}
		// A state that was stopped midway is not used again.
		func() {
			defer func() { _ = recover() }()
			s.l.Close()
		}()
	}()
	result, err = s.run(p.proto, obj, params)
	healthy = err == nil
	return result, err
}

// state is one Lua machine.
type state struct {
	l         *lua.LState
	open      bool
	budget    budget
	base      *lua.LTable // what scripts see, behind an environment of their own
	libraries map[string]*lua.LTable
	env       *lua.LTable // of the present run
}

func (s *state) run(proto *lua.FunctionProto, obj map[string]any, params map[string]string) (any, error) {
	s.budget.start()
	s.l.SetContext(&s.budget)
	defer s.l.RemoveContext()
	env := s.environment()
	env.RawSetString("obj", toLua(s.l, obj))
	if params != nil {
		t := s.l.CreateTable(0, len(params))
		for k, v := range params {
			t.RawSetString(k, lua.LString(v))
		}
		env.RawSetString("actionParams", t)
	}
	fn := s.l.NewFunctionFromProto(proto)
	fn.Env = env
	if err := s.l.CallByParam(lua.P{Fn: fn, NRet: lua.MultRet, Protect: true}); err != nil {
		return nil, s.explain(err)
	}
	defer s.l.SetTop(0)
	if s.l.GetTop() == 0 {
		return nil, errors.New("the script returns nothing; it must return a table")
	}
	nodes := 0
	return fromLua(s.l.Get(-1), 0, &nodes)
}

// explain leaves the stack trace out, and says how to get what is missing.
func (s *state) explain(err error) error {
	if s.budget.why != nil {
		return s.budget.why
	}
	text := err.Error()
	var api *lua.ApiError
	if errors.As(err, &api) && api.Object != lua.LNil {
		text = api.Object.String()
	}
	text = strings.TrimSpace(text)
	if !s.open && (strings.Contains(text, "attempt to index a non-table object(nil) with key") ||
		strings.Contains(text, "attempt to index a non-table object(string)")) {
		text += " (string and math need resource.customizations.useOpenLibs.<group_Kind>: \"true\")"
	}
	return errors.New(text[:min(len(text), 1000)])
}

// budget is the context of a run. Lua asks it before every instruction whether
// it is done, so it counts them.
type budget struct {
	deadline     time.Time
	instructions int
	text         int
	why          error
	ended        chan struct{} // always closed
}

func (b *budget) start() {
	b.deadline, b.instructions, b.text, b.why = time.Now().Add(maxTime), 0, 0, nil
}

func (b *budget) Deadline() (time.Time, bool) { return b.deadline, true }
func (b *budget) Value(any) any               { return nil }
func (b *budget) Err() error                  { return b.why }

// Done is nil, which never ends, while there is budget left.
func (b *budget) Done() <-chan struct{} {
	b.instructions++
	if b.why == nil {
		if b.instructions > maxInstructions {
			b.why = fmt.Errorf("the script ran more than %d instructions", maxInstructions)
		} else if b.instructions&63 == 0 && time.Now().After(b.deadline) {
			b.why = fmt.Errorf("the script ran longer than %v", maxTime)
		}
	}
	if b.why != nil {
		return b.ended
	}
	return nil
}

// charge counts text that a script makes, and stops it when that is too much.
func (s *state) charge(n int) {
	if s.budget.text += n; n > maxString || s.budget.text > maxText {
		s.budget.why = fmt.Errorf("the script made more than %d bytes of text", min(maxText, max(n, maxString)))
		s.l.RaiseError("%s", s.budget.why.Error())
	}
}
