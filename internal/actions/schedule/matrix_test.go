package schedule

import (
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"pgregory.net/rapid"
)

func strategy(t *testing.T, text string) *syntax.Strategy {
	t.Helper()
	w, d := syntax.Load("m.yml", []byte("on: push\njobs:\n  a:\n    runs-on: x\n    strategy: "+text+"\n    steps:\n      - run: echo\n"))
	if w == nil {
		t.Fatalf("%s: %v", text, d)
	}
	return w.Jobs[0].Strategy
}

func env() expr.Env {
	return expr.Env{Contexts: map[string]any{"vars": expr.FromAny(map[string]any{
		"empty": []any{}, "list": []any{1, "b"}, "n": 3, "one": map[string]any{"v": []any{5}, "include": []any{map[string]any{"w": 6}}},
		"all":      map[string]any{"fail-fast": false, "max-parallel": 2, "matrix": map[string]any{"v": []any{1, 2}}},
		"settings": map[string]any{"fail-fast": true}, "bomb": strings.Split(strings.Repeat("x,", 99)+"x", ","),
	})}}
}

// The rows are what GitHub's own builder gives, each with its label.
func TestCombine(t *testing.T) {
	for _, c := range []struct{ strategy, want string }{
		{"{fail-fast: false}", "null"},
		{"{matrix: {b: [1, 2], a: [x]}}", `{"b":1,"a":"x"} (1, x); {"b":2,"a":"x"} (2, x)`},
		// Exclude compares as expressions do, and looks only at what it names.
		{"{matrix: {os: [Linux, mac], v: [1, '2'], exclude: [{os: LINUX, v: 2}, {os: mac, v: '1'}]}}", `{"os":"Linux","v":1} (Linux, 1); {"os":"mac","v":"2"} (mac, 2)`},
		{"{matrix: {v: [{a: 1, b: 2}, {a: 2, b: 2}], exclude: [{v: {a: 1}}]}}", `{"v":{"a":2,"b":2}} (2, 2)`},
		{"{matrix: {v: [[1, 2], [1, 3]], exclude: [{v: [1, 3]}]}}", `{"v":[1,2]} (1, 2)`},
		{"{matrix: {v: [null, a], exclude: [{v: null}]}}", `{"v":"a"} (a)`},
		{"{matrix: {v: [1], exclude: [{v: 1}]}}", "null"}, // nothing is left: the job runs once, without a matrix
		{"{matrix: {v: [1], exclude: [{v: 1}], include: [{v: 1, w: 2}]}}", `{"v":1,"w":2} (1, 2)`},
		// Include adds keys, keeps the values of the matrix, and does not change labels.
		{"{matrix: {v: ['1', 2], include: [{v: 1, w: x}]}}", `{"v":"1","w":"x"} (1); {"v":2} (2)`},
		{"{matrix: {v: [1, 2], include: [{w: x}, {v: 2, w: y}, {v: 3, u: z, w: q}]}}", `{"v":1,"w":"x"} (1); {"v":2,"w":"y"} (2); {"v":3,"u":"z","w":"q"} (3, z, q)`},
		{"{matrix: {v: [1], include: [{w: x, v: 9}]}}", `{"v":1} (1); {"v":9,"w":"x"} (9, x)`},
		{"{matrix: {include: [{a: 1}, {a: 1}]}}", `{"a":1} (1); {"a":1} (1)`},
		{"{matrix: {include: [{a: {b: [c, '', null, true]}}]}}", `{"a":{"b":["c","",null,true]}} (c, true)`},
		{"{matrix: {v: ['', null]}}", `{"v":""} ; {"v":null} `},
		{"{matrix: {V: [1], include: [{v: 1, w: 2}]}}", `{"V":1,"w":2} (1)`},
		// Expressions.
		{"{matrix: {v: '${{ vars.list }}', w: ['${{ vars.n }}', 'x${{ vars.n }}']}}", `{"v":1,"w":3} (1, 3); {"v":1,"w":"x3"} (1, x3); {"v":"b","w":3} (b, 3); {"v":"b","w":"x3"} (b, x3)`},
		{"{matrix: '${{ vars.one }}'}", `{"v":5,"w":6} (5)`},
		{"${{ vars.all }}", `{"v":1} (1); {"v":2} (2)`},
		{"${{ vars.settings }}", "null"},
		{"{matrix: {v: [1], exclude: '${{ vars.empty }}', include: '${{ vars.empty }}'}}", `{"v":1} (1)`},
	} {
		list, err := Combine(strategy(t, c.strategy), env())
		if err != nil {
			t.Errorf("%s: %v", c.strategy, err)
			continue
		}
		var got []string
		for _, one := range list {
			if one.Values == nil {
				got = append(got, "null")
				continue
			}
			got = append(got, strings.Join(strings.Fields(expr.ToJSON(one.Values)), "")+" "+one.Label)
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.strategy, strings.Join(got, "; "), c.want)
		}
	}
	for _, c := range []struct{ strategy, want string }{
		{"{matrix: {v: '${{ vars.empty }}'}}", "matrix vector 'v' does not contain any values"},
		{"{matrix: {v: []}}", "matrix vector 'v' does not contain any values"},
		{"{matrix: {include: '${{ vars.empty }}'}}", "matrix must define at least one vector"},
		{"{matrix: {v: '${{ vars.n }}'}}", `"v" of the matrix is not a list`},
		{"{matrix: '${{ vars.list }}'}", "the matrix expression does not give an object"},
		{"{matrix: {v: [1], exclude: [{w: 1}]}}", "matrix exclude key 'w' does not match any key within the matrix"},
		{"{matrix: {v: [1], exclude: [{}]}}", "matrix exclude filter must not be empty"},
		{"{matrix: {v: [1], include: [{}]}}", "matrix include mapping does not contain any values"},
		{"{matrix: {v: [1], include: '${{ vars.list }}'}}", "an entry of include of the matrix is not an object"},
		{"{matrix: {a: '${{ vars.bomb }}', b: '${{ vars.bomb }}', c: '${{ vars.bomb }}'}}", "the matrix has more than 2560 combinations"},
		{"{matrix: {a: '${{ vars.bomb }}', b: [1, 2, 3]}}", "the matrix has 300 combinations; at most 256 are allowed"},
		{"{matrix: {v: ['${{ fromJSON('''') }}']}}", "Error parsing fromJson"},
	} {
		if _, err := Combine(strategy(t, c.strategy), env()); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s\n got %v\nwant %s", c.strategy, err, c.want)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		strategy string
		want     Settings
		err      string
	}{
		{"{matrix: {v: [1]}}", Settings{FailFast: true}, ""},
		{"{fail-fast: false, max-parallel: 3}", Settings{MaxParallel: 3}, ""},
		{"{fail-fast: '${{ vars.n == 4 }}', max-parallel: '${{ vars.n }}'}", Settings{MaxParallel: 3}, ""},
		{"${{ vars.all }}", Settings{MaxParallel: 2}, ""},
		{"${{ vars.settings }}", Settings{FailFast: true}, ""},
		{"{fail-fast: '${{ vars.n }}'}", Settings{FailFast: true}, `fail-fast is "3", not true or false`},
		{"{max-parallel: 0}", Settings{FailFast: true}, `max-parallel is "0", not a whole number above 0`},
		{"{max-parallel: 1.5}", Settings{FailFast: true}, `max-parallel is "1.5", not a whole number above 0`},
		{"${{ vars.list }}", Settings{FailFast: true}, "the strategy expression does not give an object"},
	} {
		got, err := ReadSettings(strategy(t, c.strategy), env())
		if c.err != "" && (err == nil || err.Error() != c.err) || c.err == "" && err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", c.strategy, got, err)
		}
	}
	if got, err := ReadSettings(nil, env()); err != nil || !got.FailFast {
		t.Errorf("no strategy: %+v, %v", got, err)
	}
}

func TestName(t *testing.T) {
	c := Combination{Label: "(1, linux)"}
	if got := c.Name("test"); got != "test (1, linux)" {
		t.Error(got)
	}
	if got := (Combination{}).Name("test"); got != "test" {
		t.Error(got)
	}
	if got := c.Name(strings.Repeat("ä", 99)); got != strings.Repeat("ä", 97)+"..." {
		t.Error(got)
	}
}

// Without filters a matrix has the product of its rows, all different; each
// exclude only takes away, each include only adds.
func TestMatrixProperties(t *testing.T) {
	values := rapid.SliceOfNDistinct(rapid.IntRange(0, 9), 1, 4, rapid.ID[int])
	filter := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), rapid.IntRange(0, 9), 1, 2)
	rapid.Check(t, func(rt *rapid.T) {
		matrix := expr.NewObject()
		product := 1
		for _, name := range []string{"a", "b"} {
			row := expr.Array{}
			for _, n := range values.Draw(rt, name) {
				row = append(row, float64(n))
			}
			product *= len(row)
			matrix.Set(name, row)
		}
		count := func() int {
			e := expr.Env{Contexts: map[string]any{"vars": matrix}}
			list, err := Combine(&syntax.Strategy{Matrix: syntax.Text{Value: "${{ vars }}", Line: 1}}, e)
			if err != nil {
				rt.Fatal(err)
			}
			if list[0].Values == nil {
				return 0
			}
			seen := map[string]bool{}
			for _, c := range list {
				seen[expr.ToJSON(c.Values)] = true
			}
			if len(seen) != len(list) {
				rt.Fatalf("some are the same: %v", seen)
			}
			return len(list)
		}
		if n := count(); n != product {
			rt.Fatalf("%d combinations, not %d", n, product)
		}
		objects := func(m map[string]int) *expr.Object {
			o := expr.NewObject()
			for k, v := range m {
				o.Set(k, float64(v))
			}
			return o
		}
		matrix.Set("exclude", expr.Array{objects(filter.Draw(rt, "exclude"))})
		excluded := count()
		if excluded > product {
			rt.Fatalf("exclude added: %d, %d", excluded, product)
		}
		matrix.Set("include", expr.Array{objects(filter.Draw(rt, "include")).Set("more", "x")})
		if n := count(); n != excluded && n != excluded+1 {
			rt.Fatalf("include made %d of %d", n, excluded)
		}
	})
}

// Jobs of any graph are given once each, after their needs, and all get their
// turn.
func TestGraphProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(rt, "jobs")
		var list []*syntax.Job
		for i := range n {
			j := &syntax.Job{ID: string(rune('a' + i))}
			for k := range i {
				if rapid.Bool().Draw(rt, "needs") {
					j.Needs = append(j.Needs, strings.ToUpper(string(rune('a'+k))))
				}
			}
			list = append(list, j)
		}
		g := NewGraph(list)
		var running []*syntax.Job
		given := map[string]bool{}
		for !g.Finished() {
			for _, j := range g.Next() {
				if given[j.ID] {
					rt.Fatalf("%s is given twice", j.ID)
				}
				given[j.ID] = true
				failed := false
				for _, need := range j.Needs {
					if g.Result(need) == "" {
						rt.Fatalf("%s comes before %s", j.ID, need)
					}
					failed = failed || g.Result(need) != Success
				}
				status := g.Status(j, false)
				if status("success") && failed || status("success") && status("failure") || !status("always") {
					rt.Fatalf("status of %s", j.ID)
				}
				running = append(running, j)
			}
			if len(running) == 0 {
				rt.Fatal("nothing runs, and not all are done")
			}
			i := rapid.IntRange(0, len(running)-1).Draw(rt, "ends")
			g.Done(running[i].ID, rapid.SampledFrom([]Result{Success, Failure, Skipped, Cancelled}).Draw(rt, "result"))
			running = append(running[:i], running[i+1:]...)
		}
	})
}
