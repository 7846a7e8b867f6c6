package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"
)

const (
	maxDepth = 64
	maxNodes = 200_000 // values in a result
)

func toLua(l *lua.LState, v any) lua.LValue {
	switch x := v.(type) {
	case string:
		return lua.LString(x)
	case bool:
		return lua.LBool(x)
	case int64:
		return lua.LNumber(x)
	case float64:
		return lua.LNumber(x)
	case int:
		return lua.LNumber(x)
	case int32:
		return lua.LNumber(x)
	case json.Number:
		return lua.LString(x)
	case []any:
		t := l.CreateTable(len(x), 0)
		for _, item := range x {
			t.Append(toLua(l, item))
		}
		return t
	case map[string]any:
		t := l.CreateTable(0, len(x))
		for k, item := range x {
			t.RawSetString(k, toLua(l, item))
		}
		return t
	}
	return lua.LNil
}

// fromLua turns what a script returns into JSON's types. A table with the keys
// 1, 2, 3 … is a list, and so is an empty one: Lua does not tell them apart.
func fromLua(v lua.LValue, depth int, nodes *int) (any, error) {
	if *nodes++; depth > maxDepth || *nodes > maxNodes {
		return nil, errors.New("the script returns too large a value, or one that holds itself")
	}
	switch x := v.(type) {
	case *lua.LNilType:
		return nil, nil
	case lua.LBool:
		return bool(x), nil
	case lua.LString:
		return string(x), nil
	case lua.LNumber:
		return number(float64(x))
	case *lua.LTable:
		return tableFromLua(x, depth, nodes)
	}
	return nil, fmt.Errorf("the script returns a %s, which is no data", v.Type())
}

func number(f float64) (any, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, errors.New("the script returns a number that is not finite")
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f), nil
	}
	return f, nil
}

func tableFromLua(t *lua.LTable, depth int, nodes *int) (any, error) {
	first, _ := t.Next(lua.LNil)
	if first == lua.LNil {
		return []any{}, nil
	}
	if _, list := first.(lua.LNumber); list {
		out := []any{}
		for i, key := 1, first; key != lua.LNil; i++ {
			if n, ok := key.(lua.LNumber); !ok || int(n) != i {
				return nil, errors.New("the script returns a table that is neither a list nor a map")
			}
			item, err := fromLua(t.RawGetInt(i), depth+1, nodes)
			if err != nil {
				return nil, err
			}
			out = append(out, item)
			key, _ = t.Next(key)
		}
		return out, nil
	}
	out := map[string]any{}
	for key, v := t.Next(lua.LNil); key != lua.LNil; key, v = t.Next(key) {
		name, ok := key.(lua.LString)
		if !ok {
			return nil, errors.New("the script returns a table that is neither a list nor a map")
		}
		item, err := fromLua(v, depth+1, nodes)
		if err != nil {
			return nil, err
		}
		out[string(name)] = item
	}
	return out, nil
}

func jsonDecode(l *lua.LState) int {
	var v any
	if err := json.Unmarshal([]byte(l.CheckString(1)), &v); err != nil {
		l.Push(lua.LNil)
		l.Push(lua.LString(err.Error()))
		return 2
	}
	l.Push(toLua(l, v))
	return 1
}

func (s *state) jsonEncode(l *lua.LState) int {
	nodes := 0
	v, err := fromLua(l.CheckAny(1), 0, &nodes)
	if err != nil {
		l.RaiseError("%s", err.Error())
	}
	data, err := json.Marshal(v)
	if err != nil {
		l.RaiseError("%s", err.Error())
	}
	s.charge(len(data))
	l.Push(lua.LString(data))
	return 1
}

func osTime(l *lua.LState) int {
	if l.GetTop() == 0 {
		l.Push(lua.LNumber(time.Now().Unix()))
		return 1
	}
	t := l.CheckTable(1)
	field := func(name string, missing int) int {
		if n, ok := t.RawGetString(name).(lua.LNumber); ok {
			return int(n)
		}
		return missing
	}
	at := time.Date(field("year", 1970), time.Month(field("month", 1)), field("day", 1),
		field("hour", 12), field("min", 0), field("sec", 0), 0, time.UTC)
	l.Push(lua.LNumber(at.Unix()))
	return 1
}

// layouts of os.date, by the letter after %.
var layouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'c': "Mon Jan _2 15:04:05 2006", 'd': "02", 'D': "01/02/06",
	'F': "2006-01-02", 'H': "15", 'I': "03", 'j': "002", 'm': "01", 'M': "04", 'p': "PM", 'S': "05", 'T': "15:04:05",
	'x': "01/02/06", 'X': "15:04:05", 'y': "06", 'Y': "2006", 'z': "-0700", 'Z': "MST",
}

// osDate gives UTC always: a script must not depend on the machine it runs on.
func osDate(l *lua.LState) int {
	format := strings.TrimPrefix(l.OptString(1, "%c"), "!")
	t := time.Now().UTC()
	if l.GetTop() >= 2 {
		t = time.Unix(l.CheckInt64(2), 0).UTC()
	}
	if strings.HasPrefix(format, "*t") {
		out := l.NewTable()
		for name, n := range map[string]int{
			"year": t.Year(), "month": int(t.Month()), "day": t.Day(), "hour": t.Hour(), "min": t.Minute(), "sec": t.Second(),
			"wday": int(t.Weekday()) + 1, "yday": t.YearDay(),
		} {
			out.RawSetString(name, lua.LNumber(n))
		}
		out.RawSetString("isdst", lua.LFalse)
		l.Push(out)
		return 1
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		layout, known := "", false
		if format[i] == '%' && i+1 < len(format) {
			i++
			if layout, known = layouts[format[i]]; known {
				b.WriteString(t.Format(layout))
				continue
			}
			if format[i] != '%' {
				b.WriteByte('%')
			}
		}
		b.WriteByte(format[i])
	}
	l.Push(lua.LString(b.String()))
	return 1
}
