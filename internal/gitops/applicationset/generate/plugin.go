package generate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

const (
	pluginTimeout = 30 * time.Second
	maxPluginBody = 16 << 20 // bytes
)

// plugin asks the service that a ConfigMap of the engine's namespace names.
func (r *run) plugin(ctx context.Context, g *v1alpha1.PluginGenerator, parent map[string]any) ([]map[string]any, error) {
	r.result.Remote = true
	config, err := r.Objects.ConfigMap(ctx, r.Namespace, g.ConfigMapRef.Name)
	if err != nil {
		return nil, fmt.Errorf("configMapRef: %w", err)
	}
	if config["baseUrl"] == "" {
		return nil, fmt.Errorf("the ConfigMap %s/%s has no baseUrl", r.Namespace, g.ConfigMapRef.Name)
	}
	token, err := r.pluginToken(ctx, config["token"])
	if err != nil {
		return nil, err
	}
	timeout := pluginTimeout
	if s := config["requestTimeout"]; s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("requestTimeout %q is no number of seconds", s)
		}
		timeout = time.Duration(min(n, 3600)) * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	found, err := r.askPlugin(ctx, config["baseUrl"], token, g.Input.Parameters)
	if err != nil {
		return nil, err
	}
	sets := make([]map[string]any, 0, len(found))
	for i, p := range found {
		set := map[string]any{}
		if r.engine.Go() {
			set = orEmpty(p)
		} else {
			flatten("", orEmpty(p), set)
		}
		input := map[string]any{}
		for name, raw := range g.Input.Parameters {
			var v any
			if err := json.Unmarshal(raw, &v); err != nil {
				return nil, fmt.Errorf("input.parameters.%s: %w", name, err)
			}
			input[name] = v
		}
		set["generator"] = map[string]any{"input": map[string]any{"parameters": input}}
		if err := r.addValues(g.Values, set, parent); err != nil {
			return nil, fmt.Errorf("set %d of the plugin: %w", i+1, err)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

func (r *run) askPlugin(ctx context.Context, base, token string, parameters map[string]json.RawMessage) ([]map[string]any, error) {
	body, err := json.Marshal(map[string]any{"applicationSetName": r.set.Name, "input": v1alpha1.PluginInput{Parameters: parameters}})
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(base, "/")+"/api/v1/getparams.execute", bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("baseUrl is no address")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := r.HTTP.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("ask the plugin at %s: %w", req.URL.Host, err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxPluginBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer of the plugin at %s: %w", req.URL.Host, err)
	case len(data) > maxPluginBody:
		return nil, fmt.Errorf("the answer of the plugin at %s is longer than %d MiB", req.URL.Host, maxPluginBody>>20)
	case res.StatusCode/100 != 2:
		return nil, fmt.Errorf("the plugin at %s answered with status %d: %.200s", req.URL.Host, res.StatusCode, strings.ToValidUTF8(string(data), "?"))
	}
	var answer struct {
		Output *struct {
			Parameters []map[string]any `json:"parameters"`
		} `json:"output"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("the answer of the plugin at %s is not as expected: %w", req.URL.Host, err)
	}
	if answer.Output == nil {
		return nil, fmt.Errorf("the answer of the plugin at %s has no output.parameters", req.URL.Host)
	}
	return answer.Output.Parameters, nil
}

// pluginToken resolves "$secret:key", or "$key" of the Secret argocd-secret.
func (r *run) pluginToken(ctx context.Context, ref string) (string, error) {
	rest, ok := strings.CutPrefix(ref, "$")
	if !ok || rest == "" {
		return "", errors.New(`the token in the plugin's ConfigMap must name a key of a Secret, "$secret:key"`)
	}
	name, key, ok := strings.Cut(rest, ":")
	if !ok {
		name, key = "argocd-secret", rest
	}
	data, err := r.Objects.Secret(ctx, r.Namespace, name)
	if err != nil {
		return "", fmt.Errorf("the token of the plugin: %w", err)
	}
	v, ok := data[key]
	if !ok {
		return "", fmt.Errorf("the token of the plugin: the Secret %s/%s has no key %q", r.Namespace, name, key)
	}
	return strings.TrimSpace(v), nil
}
