package helm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

var (
	executing = regexp.MustCompile(`(?s)^template: (.+?):(\d+):\d+: executing ".*?" at (<.*?>): (.*)$`)
	parsing   = regexp.MustCompile(`(?s)^template: ([^:]+):(\d+)(?::\d+)?: (.*)$`)
	calling   = regexp.MustCompile(`^error calling \w+: `)
)

const maxMessage = 4096 // bytes

// explain turns an error of text/template into one with a place and without
// the stack of calls.
func (l *chartLoader) explain(all []unit, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("render the chart: %w", err)
	}
	out := &manifest.Error{Message: err.Error(), Err: err}
	var top, at, context string
	for e := err; e != nil; e = errors.Unwrap(e) {
		if _, ok := e.(template.ExecError); !ok {
			continue
		}
		text := e.Error() // it repeats all errors below it
		m := executing.FindStringSubmatch(text[:min(len(text), maxMessage)])
		if m == nil {
			continue
		}
		out.Message, context = m[4], m[3]
		if l.isUnit(all, m[1]) { // not a text given to tpl
			at = m[1]
			out.Line, _ = strconv.Atoi(m[2])
			if top == "" {
				top = l.placeOf(all, at) + ":" + m[2]
			}
		}
	}
	if at != "" {
		out.File = l.placeOf(all, at)
	}
	out.Message = calling.ReplaceAllString(out.Message, "")
	if m := parsing.FindStringSubmatch(out.Message); m != nil {
		out.Message = m[3]
		if at == "" && l.isUnit(all, m[1]) {
			out.File = l.placeOf(all, m[1])
			out.Line, _ = strconv.Atoi(m[2])
		}
	}
	var said *stop
	var limit *limitError
	switch {
	case errors.As(err, &said):
		out.Message, out.Hint = said.message, "The chart asks for this: see its values."
	case errors.As(err, &limit):
		out.Message, out.Hint = limit.message, "Look for a loop that does not end."
	case strings.Contains(out.Message, "nil pointer evaluating"):
		out.Message, out.Hint = context+": "+out.Message, "A value on the way to it is not set."
	case strings.Contains(out.Message, "not defined"):
		out.Hint = "Charts may call the functions of Helm and sprig."
	}
	if len(out.Message) > maxMessage {
		out.Message = out.Message[:maxMessage] + "…"
	}
	if here := fmt.Sprintf("%s:%d", out.File, out.Line); top != "" && top != here {
		out.Message += " (included at " + top + ")"
	}
	return out
}

func (l *chartLoader) isUnit(all []unit, name string) bool {
	for _, u := range all {
		if u.name == name {
			return true
		}
	}
	return false
}

// explainLoad finds the file behind an error of loading a chart.
func (l *chartLoader) explainLoad(dir string, files []*archive.BufferedFile, err error) error {
	for _, f := range files {
		switch path.Base(f.Name) {
		case chartFile, "Chart.lock", "requirements.yaml", "requirements.lock":
		case "values.yaml":
			if bad := valuesError(l.place(f.Data, path.Join(dir, f.Name)), f.Data, nil); bad != nil {
				return bad
			}
			continue
		default:
			continue
		}
		var v map[string]any
		if bad := yaml.Unmarshal(f.Data, &v); bad != nil {
			return yamlError(l.place(f.Data, path.Join(dir, f.Name)), 1, bad)
		}
	}
	msg := err.Error()
	for _, noise := range []string{"validation: ", "chart.metadata."} {
		msg = strings.ReplaceAll(msg, noise, "")
	}
	e := &manifest.Error{File: path.Join(dir, chartFile), Message: msg, Err: err}
	if strings.Contains(msg, "missing") {
		e.Hint = "Each folder in charts/ must be a chart; others belong elsewhere or in .helmignore."
	}
	return e
}
