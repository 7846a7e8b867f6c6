package helm

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"helm.sh/helm/v4/pkg/chart/common"
	valuesutil "helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/util"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

const maxComplaints = 10 // of one schema that are shown

// scope applies conditions, tags, aliases and imports to the chart, and
// returns what templates see as ".".
func (l *chartLoader) scope(c *chart.Chart, values map[string]any, req Request) (common.Values, error) {
	file := path.Join(req.Dir, chartFile)
	if err := util.ProcessDependencies(c, values); err != nil {
		return nil, &manifest.Error{File: file, Message: "dependencies: " + err.Error(), Err: err}
	}
	caps, err := capabilities(req)
	if err != nil {
		return nil, err
	}
	release := common.ReleaseOptions{Name: req.Helm.ReleaseName, Namespace: req.Helm.Namespace, Revision: 1, IsInstall: true}
	scope, err := valuesutil.ToRenderValuesWithSchemaValidation(c, values, release, caps, true)
	if err != nil {
		return nil, &manifest.Error{File: path.Join(req.Dir, "values.yaml"), Message: err.Error(), Err: err}
	}
	if req.Helm.SkipSchemaValidation {
		return scope, nil
	}
	merged, err := scope.Table("Values")
	if err != nil {
		return nil, &manifest.Error{File: file, Message: err.Error(), Err: err}
	}
	return scope, l.validate(c, merged, req)
}

// validate checks the values of a chart and its subcharts against their
// values.schema.json.
func (l *chartLoader) validate(c *chart.Chart, values map[string]any, req Request) error {
	if c.Schema != nil {
		at := l.place(c.Schema, path.Join(req.Dir, "values.schema.json"))
		if err := l.validateOne(c.Schema, values, req.Remote); err != nil {
			var invalid *jsonschema.ValidationError
			if !errors.As(err, &invalid) {
				return &manifest.Error{File: at, Message: "not a JSON schema that can be used: " + err.Error(), Err: err}
			}
			leaves := complaints(invalid, nil)
			slices.Sort(leaves)
			if more := len(leaves) - maxComplaints; more > 0 {
				leaves = append(leaves[:maxComplaints], fmt.Sprintf("and %d more", more))
			}
			return &manifest.Error{
				File: at, Message: fmt.Sprintf("the values of chart %s do not fit its schema: %s", c.Name(), strings.Join(leaves, "; ")),
				Hint: "Correct the values, or set spec.source.helm.skipSchemaValidation.", Err: err,
			}
		}
	}
	for _, sub := range c.Dependencies() {
		raw, ok := values[sub.Name()]
		if !ok || raw == nil {
			continue
		}
		below, ok := raw.(map[string]any)
		if !ok {
			return &manifest.Error{File: path.Join(req.Dir, "values.yaml"), Message: fmt.Sprintf("%s is the name of a subchart and must be a mapping", sub.Name())}
		}
		if err := l.validate(sub, below, req); err != nil {
			return err
		}
	}
	return nil
}

func (l *chartLoader) validateOne(schema []byte, values map[string]any, remote Remote) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return err
	}
	const self = "file:///values.schema.json"
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(schemaLoader{l, remote})
	if err := compiler.AddResource(self, doc); err != nil {
		return err
	}
	compiled, err := compiler.Compile(self)
	if err != nil {
		return err
	}
	return compiled.Validate(values)
}

// complaints are the leaves of a validation error.
func complaints(e *jsonschema.ValidationError, out []string) []string {
	if len(e.Causes) == 0 {
		at := "/" + strings.Join(e.InstanceLocation, "/")
		switch k := e.ErrorKind.(type) { // these repeat the value, which may be a secret
		case *kind.Pattern:
			return append(out, fmt.Sprintf("at %s: does not match the pattern %q", at, k.Want))
		case *kind.Format:
			return append(out, fmt.Sprintf("at %s: is not a valid %s", at, k.Want))
		}
		return append(out, fmt.Sprintf("at %s: %s", at, e.ErrorKind.LocalizedString(message.NewPrinter(language.English))))
	}
	for _, cause := range e.Causes {
		out = complaints(cause, out)
	}
	return out
}

// schemaLoader follows $ref out of a schema: to the web through the Remote,
// never to a file.
type schemaLoader struct {
	l      *chartLoader
	remote Remote
}

func (s schemaLoader) Load(url string) (any, error) {
	switch {
	case strings.HasPrefix(url, "urn:"): // Helm accepts everything here
		return true, nil
	case !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://"):
		return nil, fmt.Errorf("$ref to %s leads out of the chart", url)
	case s.remote == nil:
		return nil, fmt.Errorf("$ref to %s cannot be followed from here", url)
	}
	data, err := s.remote.File(s.l.ctx, url)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(data))
}
