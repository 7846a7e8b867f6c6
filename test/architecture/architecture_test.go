// Package architecture tests the shape of the house: who may import whom, who
// may import the heavy libraries, and the habits that keep rooms small. The
// rules and their reasons are in ARCHITECTURE.md.
package architecture

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lockstep-gitops/lockstep"

// tiers, lowest first. A package may import its own tier's entries only where
// the tier says so, and everything below.
var tiers = []struct {
	name     string
	entries  []string
	siblings bool   // may the entries of this tier import each other?
	reason   string // printed when an import points the wrong way
}{
	{"foundation", []string{"api", "internal/journal", "internal/git", "internal/durable", "internal/process", "internal/bundle", "internal/gateway", "web"}, true,
		"the small one-noun packages know nothing of the boxes that use them"},
	{"box", []string{"internal/gitops", "internal/forge", "internal/actions", "internal/image", "internal/registry",
		"internal/azure", "internal/stack", "internal/cluster", "internal/csi"}, false,
		"boxes meet over their public wire or an interface that the consumer owns, so that each can be swapped for the real service"},
	{"surface", []string{"internal/server", "internal/cli"}, true, "people look at boxes through the surface, never the other way round"},
	{"platform", []string{"internal/platform"}, true, "only the composition root knows everybody"},
	{"program", []string{"cmd", "test"}, true, "nothing imports a program or a test"},
}

// heavy libraries stay behind one package, so that they can be replaced there
// and cost nobody else build time.
var heavy = map[string][]string{
	"k8s.io/kubernetes/":          {"internal/cluster"},
	"go.etcd.io/etcd/server/":     {"internal/cluster"},
	"github.com/coredns/coredns/": {"internal/cluster"},
	"github.com/moby/buildkit/":   {"internal/image"},
	"github.com/distribution/":    {"internal/registry"},
	"helm.sh/helm/":               {"internal/gitops/render/helm"},
	"sigs.k8s.io/kustomize/api/":  {"internal/gitops/render/kustomize"},
	"github.com/rhysd/actionlint": {"internal/actions"},
	// The containers of a workflow job have a bridge of their own.
	"github.com/vishvananda/netlink": {"internal/cluster", "internal/actions/container"},
	"github.com/opencontainers/runc": {"none: it is a program that is carried, not a library"},
	// Layers are unpacked by the code that unpacks the node's: whiteouts, links
	// that lead outside and attributes are hard to get right.
	"github.com/containerd/containerd/v2": {"internal/cluster", "internal/actions/container"},
}

type pkg struct {
	ImportPath, Dir, Name, Doc string
	Imports, GoFiles           []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Dir,Name,Doc,Imports,GoFiles", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

// place finds the tier and the entry that a package belongs to.
func place(path string) (tier int, entry string, ok bool) {
	rel := strings.TrimPrefix(path, module+"/")
	for i, t := range tiers {
		for _, e := range t.entries {
			if rel == e || strings.HasPrefix(rel, e+"/") {
				return i, e, true
			}
		}
	}
	return 0, "", false
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		from, entry, ok := place(p.ImportPath)
		if !ok {
			t.Errorf("%s has no place in the house: add its folder to a tier here and to ARCHITECTURE.md", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module+"/") {
				continue
			}
			to, target, _ := place(imported)
			wrong := to > from || (to == from && target != entry && !tiers[from].siblings)
			if wrong {
				t.Errorf("%s imports %s: %s", p.ImportPath, imported, tiers[min(from, to)].reason)
			}
		}
	}
}

func TestHeavyLibrariesStayBehindOnePackage(t *testing.T) {
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		if strings.HasPrefix(rel, "test/") {
			continue
		}
		for _, imported := range p.Imports {
			for prefix, homes := range heavy {
				athome := slices.ContainsFunc(homes, func(home string) bool { return strings.HasPrefix(rel+"/", home+"/") })
				if strings.HasPrefix(imported+"/", prefix) && !athome {
					t.Errorf("%s imports %s, which belongs behind %s", p.ImportPath, imported, strings.Join(homes, " or "))
				}
			}
		}
	}
}

func TestHabits(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base"}
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		if p.Name != "" && p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment: say input → output, invariants, where to start reading", rel)
		}
		if slices.Contains(vague, filepath.Base(rel)) {
			t.Errorf("%s: name the package after the noun it is about", rel)
		}
		mayReadEnv := p.Name == "main" || strings.HasSuffix(p.Name, "test") || strings.HasPrefix(rel, "internal/platform") ||
			strings.HasPrefix(rel, "internal/cli") || strings.HasPrefix(rel, "test/") || strings.HasPrefix(rel, "internal/gitops/gitopstest")
		for _, file := range p.GoFiles {
			checkFile(t, filepath.Join(p.Dir, file), rel+"/"+file, mayReadEnv)
		}
	}
}

// checkFile looks for init functions, reads of the environment and exits
// outside of programs.
func checkFile(t *testing.T, path, name string, mayReadEnv bool) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if ok && fn.Recv == nil && fn.Name.Name == "init" {
			t.Errorf("%s has an init function: wire it where it is used", name)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok || x.Name != "os" {
			return true
		}
		switch sel.Sel.Name {
		case "Getenv", "LookupEnv", "Environ":
			if !mayReadEnv {
				t.Errorf("%s reads the environment with os.%s: take it through Config", name, sel.Sel.Name)
			}
		case "Exit":
			if file.Name.Name != "main" {
				t.Errorf("%s calls os.Exit: return an error", name)
			}
		}
		return true
	})
}
