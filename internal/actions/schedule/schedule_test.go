package schedule

import (
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

func jobs(spec string) []*syntax.Job {
	var out []*syntax.Job
	for f := range strings.FieldsSeq(spec) {
		id, needs, _ := strings.Cut(f, ":")
		j := &syntax.Job{ID: id}
		if needs != "" {
			j.Needs = strings.Split(needs, ",")
		}
		out = append(out, j)
	}
	return out
}

func ids(list []*syntax.Job) string {
	var out []string
	for _, j := range list {
		out = append(out, j.ID)
	}
	return strings.Join(out, " ")
}

func TestAJobWaitsOnlyForItsOwnNeeds(t *testing.T) {
	g := NewGraph(jobs("slow fast after:fast last:slow,after"))
	if got := ids(g.Next()); got != "slow fast" {
		t.Fatalf("first %q", got)
	}
	g.Done("fast", Success)
	if got := ids(g.Next()); got != "after" {
		t.Errorf("after fast: %q", got)
	}
	if got := ids(g.Next()); got != "" {
		t.Errorf("given twice: %q", got)
	}
	g.Done("after", Success)
	g.Done("slow", Failure)
	if got := ids(g.Next()); got != "last" || g.Finished() {
		t.Errorf("last: %q", got)
	}
	g.Done("last", Skipped)
	if !g.Finished() || g.Conclusion(false) != Failure {
		t.Errorf("conclusion %s", g.Conclusion(false))
	}
}

func TestStatusLooksAtAllAncestors(t *testing.T) {
	g := NewGraph(jobs("a b:a c:b"))
	g.Next()
	g.Done("a", Failure)
	g.Done("b", Success) // ran with always()
	c := g.jobs[2]
	for name, want := range map[string]bool{"success": false, "failure": true, "always": true, "cancelled": false} {
		if got := g.Status(c, false)(name); got != want {
			t.Errorf("%s() = %v", name, got)
		}
	}
	for name, want := range map[string]bool{"success": false, "failure": false, "always": true, "cancelled": true} {
		if got := g.Status(c, true)(name); got != want {
			t.Errorf("cancelled run: %s() = %v", name, got)
		}
	}
}

func TestExpand(t *testing.T) {
	for _, c := range []struct{ matrix, want string }{
		{"{os: [a, b], v: [1, 2]}", `{"os":"a","v":1} {"os":"a","v":2} {"os":"b","v":1} {"os":"b","v":2}`},
		{"{os: [a, b], v: [1, 2], exclude: [{os: a, v: 2}]}", `{"os":"a","v":1} {"os":"b","v":1} {"os":"b","v":2}`},
		{"{os: [a, b], exclude: [{os: a}]}", `{"os":"b"}`},
		// GitHub's documented example of include.
		{"{fruit: [apple, pear], animal: [cat, dog], include: [{color: green}, {color: pink, animal: cat}, {fruit: apple, shape: circle}, {fruit: banana}, {fruit: banana, animal: cat}]}",
			`{"fruit":"apple","animal":"cat","color":"pink","shape":"circle"} {"fruit":"apple","animal":"dog","color":"green","shape":"circle"} {"fruit":"pear","animal":"cat","color":"pink"} {"fruit":"pear","animal":"dog","color":"green"} {"fruit":"banana"} {"fruit":"banana","animal":"cat"}`},
		{"{include: [{a: 1}, {a: 2}]}", `{"a":1} {"a":2}`},
		{"{v: [1.10, '1.10', true]}", `{"v":1.1} {"v":"1.10"} {"v":true}`},
		{"{v: \"${{ fromJSON('[3,4]') }}\"}", `{"v":3} {"v":4}`},
		{"\"${{ fromJSON('{\\\"v\\\":[5],\\\"include\\\":[{\\\"w\\\":6}]}') }}\"", `{"v":5,"w":6}`},
		{"{v: [{a: 1}]}", `{"v":{"a":1}}`},
	} {
		w, d := syntax.Load("m.yml", []byte("on: push\njobs:\n  a:\n    runs-on: x\n    strategy:\n      matrix: "+c.matrix+"\n    steps:\n      - run: echo\n"))
		if w == nil {
			t.Errorf("%s: %v", c.matrix, d)
			continue
		}
		list, err := Combine(w.Jobs[0].Strategy, expr.Env{})
		if err != nil {
			t.Errorf("%s: %v", c.matrix, err)
			continue
		}
		var got []string
		for _, o := range list {
			got = append(got, strings.Join(strings.Fields(expr.ToJSON(o.Values)), ""))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.matrix, strings.Join(got, " "), c.want)
		}
	}
}
