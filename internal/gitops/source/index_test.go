package source

import (
	"context"
	"crypto/sha1"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestIndexAgainstScan compares with asking every reader's inputs.
func TestIndexAgainstScan(t *testing.T) {
	paths := rapid.SampledFrom([]string{"", "a", "a/b", "a/b/c", "d", "d/e", "f.yaml"})
	ids := rapid.SampledFrom([]string{absentID, "list:00ff", strings.Repeat("ab", 20), strings.Repeat("cd", 32), "ABCD", "list:xyz", "odd"})
	rapid.Check(t, func(rt *rapid.T) {
		x, want := NewIndex(), map[string]Inputs{}
		for i := range rapid.IntRange(1, 12).Draw(rt, "steps") {
			reader := rapid.SampledFrom([]string{"one", "two", "three"}).Draw(rt, fmt.Sprint("reader", i))
			var in Inputs
			if rapid.IntRange(0, 3).Draw(rt, fmt.Sprint("remove", i)) > 0 {
				in = rapid.MapOfN(paths, ids, 0, 5).Draw(rt, fmt.Sprint("inputs", i))
			}
			x.Set(reader, in)
			if delete(want, reader); in != nil {
				want[reader] = in
			}
		}
		for reader, in := range want {
			if got := x.Inputs(reader); !maps.Equal(got, in) {
				rt.Fatalf("inputs of %s: %v, want %v", reader, got, in)
			}
		}
		changed := rapid.SliceOfN(paths.Filter(func(p string) bool { return p != "" }), 0, 3).Draw(rt, "changed")
		got := x.Readers(changed)
		for reader, in := range want {
			_, affected := in.Affected(changed)
			because, is := got[reader]
			if is != affected || is && !slices.Contains(changed, because) {
				rt.Fatalf("%s: affected %v, because %q; want %v", reader, is, because, affected)
			}
		}
		if len(got) > len(want) {
			rt.Fatalf("readers that are not there: %v", got)
		}
		for reader := range want {
			x.Set(reader, nil)
		}
		if len(x.byPath)+len(x.byName) != 0 || len(x.free) != len(x.paths) {
			rt.Fatalf("the empty index keeps %d paths", len(x.byPath))
		}
	})
}

// fleet is what application i reads, as a kustomize application does.
func fleet(i int) Inputs {
	id := func(s string) string { return fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "%s%d", s, i))) }
	dir := fmt.Sprintf("clusters/production/apps/application-%05d", i)
	return Inputs{
		dir: "list:" + id("dir")[:32], dir + "/kustomization.yaml": id("kust"), dir + "/deployment.yaml": id("depl"),
		dir + "/service.yaml": id("serv"), dir + "/ingress.yaml": id("ingr"), dir + "/config.yaml": id("conf"),
		dir + "/.argocd-source.yaml": absentID, dir + "/Chart.yaml": absentID,
		"bases/web/kustomization.yaml": strings.Repeat("12", 20), "bases/web/web.yaml": strings.Repeat("34", 20),
	}
}

// TestIndexMemory measures what one reader takes among 10,000.
func TestIndexMemory(t *testing.T) {
	const n = 10000
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	x := NewIndex()
	for i := range n {
		x.Set(fmt.Sprintf("argocd/application-%05d", i), fleet(i))
	}
	each := (heap() - before) / n
	t.Logf("%d bytes for each reader of %d with %d inputs", each, n, len(fleet(0)))
	if each > 2500 {
		t.Errorf("a reader takes %d bytes", each)
	}
	if got := x.Readers([]string{"bases/web/web.yaml"}); len(got) != n {
		t.Errorf("%d readers of the base", len(got))
	}
	maps := make([]Inputs, n)
	before = heap()
	for i := range n {
		maps[i] = fleet(i)
	}
	t.Logf("%d bytes for each set of inputs as a map", (heap()-before)/n)
	runtime.KeepAlive(maps)
	runtime.KeepAlive(x)
}

func BenchmarkIndexReaders(b *testing.B) {
	x := NewIndex()
	for i := range 10000 {
		x.Set(fmt.Sprintf("argocd/application-%05d", i), fleet(i))
	}
	changed := []string{"clusters/production/apps/application-00042/service.yaml"}
	for b.Loop() {
		if len(x.Readers(changed)) != 1 {
			b.Fatal("not found")
		}
	}
}

func TestSubmoduleIsNotShown(t *testing.T) {
	repo, work := open(t)
	commitAll(t, work, map[string]string{"a": "1"})
	gitRun(t, work, "update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",sub")
	gitRun(t, work, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "c")
	tree := NewTree(repo, gitRun(t, work, "rev-parse", "HEAD"))
	if _, err := tree.ReadDir(context.Background(), "sub"); err == nil || !strings.Contains(err.Error(), "submodule") {
		t.Errorf("listing a submodule: %v", err)
	}
	if _, kind, err := tree.Stat(context.Background(), "sub"); kind != Absent || err != nil {
		t.Errorf("Stat: %v, %v", kind, err)
	}
}
