package sandbox

import (
	"regexp"

	lua "github.com/yuin/gopher-lua"
)

// missing functions of the base library reach files, other code, or around
// the environment of a run.
var missing = []string{"collectgarbage", "dofile", "getfenv", "load", "loadfile", "loadstring", "module", "newproxy", "setfenv", "_printregs"}

func newState(open bool) *state {
	l := lua.NewState(lua.Options{SkipOpenLibs: true, RegistrySize: 1024, RegistryMaxSize: maxRegistry})
	s := &state{l: l, open: open, budget: budget{ended: make(chan struct{})}, base: l.G.Global}
	close(s.budget.ended)
	libraries := map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable}
	if open {
		libraries[lua.StringLibName], libraries[lua.MathLibName] = lua.OpenString, lua.OpenMath
	}
	for name, f := range libraries {
		l.Push(l.NewFunction(f))
		l.Push(lua.LString(name))
		l.Call(1, 0)
	}
	for _, name := range missing {
		s.base.RawSetString(name, l.NewFunction(func(l *lua.LState) int {
			l.RaiseError("%s is not available to scripts", name)
			return 0
		}))
	}
	s.base.RawSetString("print", l.NewFunction(func(*lua.LState) int { return 0 }))
	s.base.RawSetString("require", l.NewFunction(s.require))
	s.base.RawSetString(concat, l.NewFunction(s.concat))
	s.guards()
	s.libraries = map[string]*lua.LTable{
		"os":   l.SetFuncs(l.NewTable(), map[string]lua.LGFunction{"date": osDate, "time": osTime}),
		"json": l.SetFuncs(l.NewTable(), map[string]lua.LGFunction{"decode": jsonDecode, "encode": s.jsonEncode}),
	}
	for _, name := range []string{"table", "string", "math"} {
		if t, ok := s.base.RawGetString(name).(*lua.LTable); ok {
			s.libraries[name] = t
			s.base.RawSetString(name, lua.LNil)
		}
	}
	return s
}

// environment makes the globals of one run. The libraries are copies, so that
// a script may change them for itself.
func (s *state) environment() *lua.LTable {
	s.env = s.l.CreateTable(0, 16)
	meta := s.l.CreateTable(0, 2)
	meta.RawSetString("__index", s.base)
	meta.RawSetString("__metatable", lua.LFalse)
	s.env.Metatable = meta
	s.env.RawSetString("_G", s.env)
	for name, library := range s.libraries {
		if name == "json" {
			continue // Only require gives it.
		}
		own := s.copy(library)
		s.env.RawSetString(name, own)
		if name == "string" {
			// ("x"):f() finds what the script puts into string.
			mt := s.l.CreateTable(0, 2)
			mt.RawSetString("__index", own)
			mt.RawSetString("__metatable", lua.LFalse)
			s.l.SetMetatable(lua.LString(""), mt)
		}
	}
	return s.env
}

func (s *state) copy(library *lua.LTable) *lua.LTable {
	own := s.l.CreateTable(0, 16)
	library.ForEach(func(k, v lua.LValue) { own.RawSetString(lua.LVAsString(k), v) })
	return own
}

// require gives the libraries that are there already.
func (s *state) require(l *lua.LState) int {
	name := l.CheckString(1)
	library, ok := s.libraries[name]
	if !ok {
		l.RaiseError("the module %q is not available to scripts; there are table, os and json, and string and math with useOpenLibs", name)
	}
	if own, ok := s.env.RawGetString(name).(*lua.LTable); ok {
		l.Push(own)
	} else {
		l.Push(s.copy(library))
	}
	return 1
}

// concat is the operator "..".
func (s *state) concat(l *lua.LState) int {
	a, b := l.Get(1), l.Get(2)
	if lua.LVCanConvToString(a) && lua.LVCanConvToString(b) {
		x, y := lua.LVAsString(a), lua.LVAsString(b)
		s.charge(len(x) + len(y))
		l.Push(lua.LString(x + y))
		return 1
	}
	for _, v := range []lua.LValue{a, b} {
		if f, ok := l.GetMetaField(v, "__concat").(*lua.LFunction); ok {
			l.Push(f)
			l.Push(a)
			l.Push(b)
			l.Call(2, 1)
			return 1
		}
	}
	l.RaiseError("cannot perform concat operation between %v and %v", a.Type().String(), b.Type().String())
	return 0
}

// guard puts a check before a function of a library.
func (s *state) guard(library, name string, check func(l *lua.LState)) {
	t, ok := s.base.RawGetString(library).(*lua.LTable)
	if !ok {
		return
	}
	f, ok := t.RawGetString(name).(*lua.LFunction)
	if !ok || f.GFunction == nil {
		return
	}
	t.RawSetString(name, s.l.NewFunction(func(l *lua.LState) int {
		check(l)
		return f.GFunction(l)
	}))
}

var wide = regexp.MustCompile(`%[^a-zA-Z%]*([0-9]{3,}|\*)`)

func (s *state) guards() {
	s.guard("table", "concat", func(l *lua.LState) {
		t, n := l.CheckTable(1), 0
		separator := len(l.OptString(2, ""))
		for i := range t.Len() {
			n += separator + 8
			if text, ok := t.RawGetInt(i + 1).(lua.LString); ok {
				n += len(text)
			}
		}
		s.charge(n)
	})
	s.guard("string", "rep", func(l *lua.LState) {
		n := l.CheckInt(2)
		if n > maxString {
			s.charge(maxString + 1)
		}
		s.charge(len(l.CheckString(1)) * max(n, 0))
	})
	s.guard("string", "format", func(l *lua.LState) {
		if wide.MatchString(l.CheckString(1)) {
			l.RaiseError("string.format: a width of more than 99 is not available to scripts")
		}
		n := 0
		for i := range l.GetTop() {
			n += len(lua.LVAsString(l.Get(i+1))) + 128
		}
		s.charge(2 * n)
	})
	s.guard("string", "gsub", func(l *lua.LState) {
		// Time grows with the square of the text.
		if len(l.CheckString(1)) > 64<<10 {
			l.RaiseError("string.gsub: a text of more than 64 KiB is not available to scripts")
		}
		s.charge((len(l.CheckString(1)) + 1) * (len(lua.LVAsString(l.Get(3))) + 1))
	})
	for _, name := range []string{"upper", "lower", "reverse", "sub"} {
		s.guard("string", name, func(l *lua.LState) { s.charge(len(l.CheckString(1))) })
	}
	s.guard("string", "dump", func(l *lua.LState) { l.RaiseError("string.dump is not available to scripts") })
}
