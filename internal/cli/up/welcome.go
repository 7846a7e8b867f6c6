package up

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
)

// welcome prints what to open and what to do next.
func (o *options) welcome(w io.Writer, r Result) error {
	p := o.Color()
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	line("")
	for _, kind := range []struct{ key, label string }{
		{"page", "Status page"}, {"forge", "Git host"}, {"app", "Application"}, {"registry", "Registry"},
	} {
		if url := r.URLs[kind.key]; url != "" {
			line("%-14s %s", kind.label, p.Bold(url))
		}
	}
	if r.KubeContext != "" {
		line("%-14s kubectl --context %s get pods -A", "Kubernetes", r.KubeContext)
	}
	line("%-14s %s", "Log", r.LogFile)
	if r.Example == nil {
		line("\nNext: `lockstep up --example storefront`, or `eval \"$(lockstep env)\"` and push a repository of your own.")
		return nil
	}
	line("\nThe way of the commit:\n")
	if err := trace.Render(w, r.Example.Trace, trace.Style{Color: bool(p), Width: o.Streams.Width}); err != nil {
		return err
	}
	line("\nPush a change:")
	line("  cd %s", relative(r.Example.Dir))
	line("  sed -i 's/Welcome to/Good to see you at/' main.go")
	line("  git commit -am 'Greet differently' && git push      (git pull before the next one)")
	line("and watch it with `lockstep trace $(git rev-parse HEAD) --follow`, or on the status page.")
	return nil
}

// relative shortens a path for people who stand near it.
func relative(path string) string {
	cwd, err := filepath.Abs(".")
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(cwd, path)
	if err != nil || len(rel) > len(path) {
		return path
	}
	return rel
}
