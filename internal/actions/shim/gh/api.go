package gh

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

func otherCommands() map[string]command {
	scope := shim.Flags{shim.F("--env", "-e"), shim.F("--body", "-b"), shim.F("--org", "-o"), shim.F("--app", "-a")}
	return map[string]command{
		"api": {shim.Flags{shim.F("--method", "-X"), shim.F("--raw-field", "-f"), shim.F("--field", "-F"), shim.F("--header", "-H"), shim.B("--paginate"), shim.B("--slurp"), shim.F("--input"),
			shim.B("--include", "-i"), shim.B("--silent"), shim.F("--preview", "-p"), shim.F("--hostname"), shim.F("--cache")}, api},
		"repo view":     {shim.Flags{shim.F("--branch", "-b")}, repoView},
		"repo clone":    {nil, repoClone},
		"secret list":   {scope, func(ctx context.Context, c *call) error { return c.settings(ctx, "secrets") }},
		"variable list": {scope, func(ctx context.Context, c *call) error { return c.settings(ctx, "variables") }},
		"secret set":    {scope, secretSet},
		"variable set":  {scope, variableSet},
		"auth status": {shim.Flags{shim.F("--hostname", "-h"), shim.B("--show-token", "-t")}, func(ctx context.Context, c *call) error {
			if _, err := c.rest(ctx, http.MethodGet, "/rate_limit", nil, nil); err != nil {
				var status *shim.StatusError
				if !errors.As(err, &status) || status.Status == http.StatusUnauthorized {
					return err
				}
			}
			return c.printf("%s\n  ✓ Logged in (GH_TOKEN)", c.base())
		}},
		"auth setup-git": {shim.Flags{shim.F("--hostname", "-h"), shim.B("--force", "-f")}, func(context.Context, *call) error { return nil }},
		"version":        {nil, func(_ context.Context, c *call) error { return c.printf("gh version 2.80.0 (emulated by lockstep)") }},
	}
}

var nextLink = regexp.MustCompile(`<([^>]+)>;\s*rel="next"`)

// maxPages bounds --paginate.
const maxPages = 1000

func api(ctx context.Context, c *call) error {
	if len(c.Rest) != 1 {
		return shim.Usagef("gh api needs one endpoint")
	}
	route, err := c.expand(ctx, c.Rest[0])
	if err != nil {
		return err
	}
	in, err := c.fields()
	if err != nil {
		return err
	}
	method := c.Get("method")
	if method == "" {
		method = http.MethodGet
		if in != nil || c.Has("input") {
			method = http.MethodPost
		}
	}
	var body any
	switch {
	case c.Has("input"):
		data, err := c.text("", "input")
		if err != nil {
			return err
		}
		body = []byte(data)
	case in != nil && strings.EqualFold(method, http.MethodGet):
		q := url.Values{}
		for k, v := range in {
			q.Set(k, fmt.Sprint(v))
		}
		route += map[bool]string{true: "&", false: "?"}[strings.Contains(route, "?")] + q.Encode()
	case in != nil:
		if route == "graphql" {
			in = graphql(in)
		}
		body = in
	}
	header := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	for _, h := range c.All("header") {
		k, v, ok := strings.Cut(h, ":")
		if !ok {
			return shim.Usagef("header %q requires a value separated by ':'", h)
		}
		header.Set(strings.TrimSpace(k), strings.TrimSpace(v))
	}
	return c.pages(ctx, strings.ToUpper(method), route, header, body)
}

// pages prints one answer, or all of a list.
func (c *call) pages(ctx context.Context, method, route string, header http.Header, body any) error {
	var all []any
	for range maxPages {
		var answer []byte
		got, err := c.restWith(ctx, method, route, header, body, &answer)
		var status *shim.StatusError
		if errors.As(err, &status) { // as gh: the answer is printed, too
			_, _ = c.Stdout.Write(append(bytes.TrimRight(status.Body, "\n"), '\n'))
		}
		if err != nil {
			return err
		}
		next := nextLink.FindStringSubmatch(got.Get("Link"))
		if err := c.page(answer, &all); err != nil {
			return err
		}
		if !c.On("paginate") || next == nil {
			break
		}
		route = next[1]
	}
	if c.On("slurp") {
		return c.printJSON(all, c.Get("jq"))
	}
	return nil
}

func (c *call) page(answer []byte, all *[]any) error {
	if c.On("silent") || len(bytes.TrimSpace(answer)) == 0 {
		return nil
	}
	if !c.On("slurp") && c.Get("jq") == "" {
		_, err := c.Stdout.Write(answer)
		return err
	}
	var v any
	if err := json.Unmarshal(answer, &v); err != nil {
		return fmt.Errorf("the answer is not JSON: %w", err)
	}
	if c.On("slurp") {
		*all = append(*all, v)
		return nil
	}
	return c.printJSON(v, c.Get("jq"))
}

// graphql puts what is not the query below variables.
func graphql(in object) object {
	out, variables := object{}, object{}
	for k, v := range in {
		if k == "query" || k == "operationName" {
			out[k] = v
		} else {
			variables[k] = v
		}
	}
	out["variables"] = variables
	return out
}

// expand replaces {owner}, {repo} and {branch}.
func (c *call) expand(ctx context.Context, route string) (string, error) {
	if !strings.Contains(route, "{") {
		return route, nil
	}
	repo, err := c.repo(ctx)
	if err != nil {
		return "", err
	}
	owner, name, _ := strings.Cut(repo, "/")
	branch := ""
	if strings.Contains(route, "{branch}") {
		if branch, err = c.git(ctx, "rev-parse", "--abbrev-ref", "HEAD"); err != nil {
			return "", err
		}
	}
	return strings.NewReplacer("{owner}", owner, "{repo}", name, "{branch}", branch).Replace(route), nil
}

// fields are -f and -F: a[b]=c nests, a[]=c lists; -F knows numbers, booleans,
// null and @file.
func (c *call) fields() (object, error) {
	if !c.Has("raw-field") && !c.Has("field") {
		return nil, nil
	}
	out := object{}
	for _, raw := range []bool{true, false} {
		for _, f := range c.All(map[bool]string{true: "raw-field", false: "field"}[raw]) {
			key, text, ok := strings.Cut(f, "=")
			var value any = text
			switch {
			case !ok && strings.HasSuffix(key, "[]"): // an empty list
				value = nil
			case !ok:
				return nil, shim.Usagef("field %q requires a value separated by an '=' sign", f)
			case !raw:
				var err error
				if value, err = c.typed(text); err != nil {
					return nil, err
				}
			}
			if err := put(out, key, value, ok); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (c *call) typed(s string) (any, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return nil, nil
	}
	if n, err := strconv.Atoi(s); err == nil {
		return n, nil
	}
	if name, ok := strings.CutPrefix(s, "@"); ok {
		if name == "-" {
			data, err := io.ReadAll(io.LimitReader(c.Stdin, 16<<20))
			return string(data), err
		}
		data, err := os.ReadFile(c.Path(name))
		return string(data), err
	}
	return s, nil
}

// put sets a nested field.
func put(into object, key string, value any, given bool) error {
	name, rest, nested := strings.Cut(key, "[")
	if !nested {
		into[name] = value
		return nil
	}
	inner, rest, ok := strings.Cut(rest, "]")
	if !ok {
		return shim.Usagef("invalid key: %q", key)
	}
	if inner == "" {
		list, _ := into[name].([]any)
		if list == nil {
			list = []any{}
		}
		if given {
			if rest != "" {
				return shim.Usagef("key %q: lists of objects are not emulated: use --input", key)
			}
			list = append(list, value)
		}
		into[name] = list
		return nil
	}
	child, isObject := into[name].(object)
	if !isObject {
		child = object{}
		into[name] = child
	}
	return put(child, inner+rest, value, given)
}

func repoView(ctx context.Context, c *call) error {
	if len(c.Rest) == 1 {
		c.Env = append(c.Env, "GH_REPO="+c.Rest[0])
	}
	route, err := c.route(ctx, "")
	if err != nil {
		return err
	}
	var r object
	if _, err := c.rest(ctx, http.MethodGet, route, nil, &r); err != nil {
		return err
	}
	return c.show(r, func() error { return c.printf("name:\t%v\ndescription:\t%v", r["full_name"], text(r["description"])) })
}

func repoClone(ctx context.Context, c *call) error {
	if len(c.Rest) == 0 {
		return shim.Usagef("cannot clone: repository argument required")
	}
	server := orElse(c.Getenv("GITHUB_SERVER_URL"), "https://github.com")
	address := c.Rest[0]
	if !strings.Contains(address, "://") {
		address = server + "/" + address + ".git"
	}
	args := []string{"clone"}
	if strings.HasPrefix(address, server+"/") && c.token() != "" {
		// By the environment, so that no process list shows the token.
		basic := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + c.token()))
		c.Env = append(c.Env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http."+server+"/.extraheader", "GIT_CONFIG_VALUE_0=AUTHORIZATION: basic "+basic)
	}
	_, err := c.git(ctx, append(append(args, address), c.Rest[1:]...)...)
	return err
}
