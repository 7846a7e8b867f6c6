package helm

import (
	"bytes"
	"cmp"
	"errors"
	"path"
	"slices"
	"strings"
	"unicode"

	chart "helm.sh/helm/v4/pkg/chart/v2"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

const hookAnnotation = "helm.sh/hook"

// hookEvents are the hooks that Helm knows.
var hookEvents = map[string]bool{
	"pre-install": true, "post-install": true, "pre-delete": true, "post-delete": true, "pre-upgrade": true,
	"post-upgrade": true, "pre-rollback": true, "post-rollback": true, "test": true, "test-success": true,
}

// objects parses what the templates gave: the definitions of crds/, then
// objects in Helm's install order, then hooks in that order.
func (l *chartLoader) objects(c *chart.Chart, out output, req Request) ([]manifest.Object, []manifest.Warning, error) {
	var crds, plain, hooks []manifest.Object
	var warnings []manifest.Warning
	if !req.Helm.SkipCrds {
		for _, crd := range c.CRDObjects() {
			file := l.place(crd.File.Data, path.Join(req.Dir, crd.Name))
			objects, warns, err := manifest.Parse(file, crd.File.Data)
			if err != nil {
				return nil, nil, err
			}
			crds, warnings = append(crds, objects...), append(warnings, warns...)
		}
	}
	for _, r := range out.rendered {
		objects, warns, err := l.parse(r)
		if err != nil {
			return nil, nil, err
		}
		warnings = append(warnings, warns...)
		for _, o := range objects {
			events, isHook := o.GetAnnotations()[hookAnnotation]
			known, test := hook(events)
			switch {
			case !isHook:
				plain = append(plain, o)
			case !known:
				warnings = append(warnings, manifest.Warning{File: o.File, Line: o.Line, Message: o.GetKind() + " " + o.GetName() + ": Helm does not know the hook " + strings.TrimSpace(events) + " and leaves the object out"})
			case !test || !req.Helm.SkipTests:
				hooks = append(hooks, o)
			}
		}
	}
	byKind := installOrder()
	slices.SortStableFunc(plain, byKind)
	slices.SortStableFunc(hooks, byKind)
	return slices.Concat(crds, plain, hooks), warnings, nil
}

// hook reports whether all events of a hook annotation are known, and whether
// one of them is a test.
func hook(events string) (known, test bool) {
	for e := range strings.SplitSeq(events, ",") {
		e = strings.ToLower(strings.TrimSpace(e))
		if !hookEvents[e] {
			return false, false
		}
		test = test || e == "test" || e == "test-success"
	}
	return true, test
}

// installOrder compares by Helm's order of kinds; kinds that it does not know
// are last, by name.
func installOrder() func(a, b manifest.Object) int {
	rank := map[string]int{}
	for i, kind := range releaseutil.InstallOrder {
		rank[kind] = i
	}
	of := func(kind string) int {
		if n, ok := rank[kind]; ok {
			return n
		}
		return len(rank)
	}
	return func(a, b manifest.Object) int {
		ka, kb := a.GetKind(), b.GetKind()
		if d := cmp.Compare(of(ka), of(kb)); d != 0 || of(ka) < len(rank) {
			return d
		}
		return strings.Compare(ka, kb)
	}
}

// parse reads the documents of one template and finds the lines of the
// template that they come from.
func (l *chartLoader) parse(r rendered) ([]manifest.Object, []manifest.Warning, error) {
	file := l.place(r.unit.data, r.unit.name)
	var objects []manifest.Object
	var warnings []manifest.Warning
	for _, d := range documents(r.text) {
		text := r.text[d.start:d.end]
		line := func(n int) int { return r.lineAt(d.start + offsetOf(text, n)) }
		objs, warns, err := manifest.Parse(file+".yaml", text)
		if err != nil {
			var bad *manifest.Error
			if errors.As(err, &bad) {
				place := *bad
				place.File, place.Message = file, "what this template gives is not a manifest: "+bad.Message
				if bad.Line > 0 {
					place.Line = line(bad.Line)
				}
				if bad.Err != nil {
					place.Hint = "Look at the indentation of what the template inserts here; `nindent` sets it."
				}
				return nil, nil, &place
			}
			return nil, nil, err
		}
		for _, o := range objs {
			o.File, o.Line = file, line(o.Line)
			objects = append(objects, o)
		}
		for _, w := range warns {
			w.File, w.Line = file, line(w.Line)
			warnings = append(warnings, w)
		}
	}
	return objects, warnings, nil
}

type document struct{ start, end int }

// documents cuts a text at lines that begin with "---", as Helm does: what
// follows on the line belongs to the next document.
func documents(text []byte) []document {
	var out []document
	start := 0
	flush := func(end int) {
		for start < end && unicode.IsSpace(rune(text[start])) {
			start++
		}
		if start < end {
			out = append(out, document{start, end})
		}
	}
	offset := 0
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte("---")) {
			flush(offset)
			start = offset + 3
		}
		offset += len(line)
	}
	flush(len(text))
	return out
}

// offsetOf is where line n of a text starts.
func offsetOf(text []byte, n int) int {
	offset := 0
	for ; n > 1; n-- {
		i := bytes.IndexByte(text[offset:], '\n')
		if i < 0 {
			break
		}
		offset += i + 1
	}
	return offset
}
