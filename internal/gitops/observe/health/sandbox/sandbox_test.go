package sandbox

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func run(t *testing.T, script string, open bool, obj map[string]any) (any, error) {
	t.Helper()
	p, err := new(Pool).Compile("test", script, open)
	if err != nil {
		return nil, err
	}
	return p.Run(obj, map[string]string{"n": "3"})
}

func TestRun(t *testing.T) {
	obj := map[string]any{"metadata": map[string]any{"name": "a"}, "spec": map[string]any{"n": int64(3), "list": []any{"x", "y"}, "f": 1.5, "b": true}}
	for _, c := range []struct {
		script string
		open   bool
		want   any
	}{
		{"return {status = 'Healthy', message = obj.metadata.name .. '-' .. obj.spec.n}", false, map[string]any{"status": "Healthy", "message": "a-3"}},
		{"return obj", false, obj},
		{"local function f() return 'b', 'c' end return {'a' .. f(), 'a' .. (f())}", false, []any{"ab", "ab"}},
		{"local function f(...) return ... .. 'z' end return f('a', 'b')", false, "az"},
		{"local x = {} for i, v in ipairs(obj.spec.list) do x[i] = v .. i .. 'q' end return table.concat(x, ',')", false, "x1q,y2q"},
		{"return {}", false, []any{}},
		{"return 'x', {a = 1}", false, map[string]any{"a": int64(1)}},
		{"return actionParams.n", false, "3"},
		{"local os = require('os') return os.date('!%Y-%m-%dT%XZ', 86400)", false, "1970-01-02T00:00:00Z"},
		{"return require('json').decode('{\"a\": [1]}')", false, map[string]any{"a": []any{int64(1)}}},
		{"return require('json').encode({1, 2})", false, "[1,2]"},
		{"return ('x'):upper() .. string.format('%d', 3)", true, "X3"},
		{"function string.twice(s) return s .. s end return ('x'):twice()", true, "xx"},
		{"return math.floor(1.5)", true, int64(1)},
		{"local t = setmetatable({}, {__concat = function(a, b) return 'm' end}) return t .. 'x'", false, "m"},
	} {
		got, err := run(t, c.script, c.open, obj)
		if err != nil {
			t.Errorf("%s: %v", c.script, err)
		} else if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.script, diff)
		}
	}
}

func TestStopped(t *testing.T) {
	for _, c := range []struct {
		script, want string
		open         bool
	}{
		{"while true do end", "instructions", false},
		{"while true do pcall(function() while true do end end) end", "instructions", false},
		{"local s = 'xxxxxxxx' while true do s = s .. s end", "bytes of text", false},
		{"return string.rep('x', 1e9)", "bytes of text", true},
		{"return string.format('%999999999d', 1)", "width", true},
		{"local function f() return f() + 1 end return f()", "overflow", false},
		{"return io.open('/etc/passwd')", "nil", true},
		{"return os.execute('ls')", "", true},
		{"return os.getenv('HOME')", "", true},
		{"dofile('/etc/passwd')", "not available", false},
		{"return loadstring('return 1')()", "not available", false},
		{"return require('io')", "not available", true},
		{"return string.upper('x')", "useOpenLibs", false},
		{"return function() end", "no data", false},
		{"local t = {} t.t = t return t", "holds itself", false},
		{"return {1, a = 2}", "neither a list nor a map", false},
		{"return 0/0", "not finite", false},
		{"error('so')", "so", false},
		{"error({})", "", false},
		{"", "returns nothing", false},
		{"return (", "compile test", false},
		{"coroutine.wrap(function() while true do end end)()", "nil", true},
	} {
		start := time.Now()
		got, err := run(t, c.script, c.open, map[string]any{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v; want %q", c.script, got, err, c.want)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s took %v", c.script, d)
		}
	}
}

func TestRunsAreSeparate(t *testing.T) {
	pool := new(Pool)
	p, err := pool.Compile("test", "n = (n or 0) + 1; string.n = (string.n or 0) + 1; obj.x = 1; return {n, string.n}", true)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := pool.Compile("bad", "error(obj.i)", true)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for range 50 {
				obj := map[string]any{"i": int64(i)}
				got, err := p.Run(obj, nil)
				if err != nil || cmp.Diff([]any{int64(1), int64(1)}, got) != "" || len(obj) != 1 {
					t.Errorf("%v %v %v", got, err, obj)
				}
				if _, err := bad.Run(obj, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprint(i)) {
					t.Errorf("the error of another run: %v", err)
				}
			}
		})
	}
	wait.Wait()
}

func FuzzCompile(f *testing.F) {
	f.Add("return {status = 'Healthy' .. obj.a}")
	f.Add("for i = 1, 3 do local t = {[i] = i} end return #obj.l")
	f.Add("goto a ::a:: repeat until not false and -1 < 2")
	f.Fuzz(func(t *testing.T, script string) {
		p, err := new(Pool).Compile("fuzz", script, true)
		if err != nil {
			return
		}
		_, _ = p.Run(map[string]any{"a": "b", "l": []any{int64(1)}}, nil)
	})
}
