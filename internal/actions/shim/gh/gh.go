// Package gh is the `gh` program that jobs find on their PATH when the machine
// has none: what workflows do with pull requests, runs, releases and the API.
//
// Input: the arguments, GH_TOKEN or GITHUB_TOKEN, and GITHUB_API_URL. Output:
// text, or JSON by --json and --jq, as gh prints it. It speaks GitHub's REST.
//
// Invariants: an unknown verb or option fails with exit code 2 and says so; a
// missing token fails with exit code 4; a token is never printed.
//
// Start reading at [Main] and commands.
package gh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/itchyny/gojq"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// Exit codes of gh.
const (
	exitAuth    = 4
	exitPending = 8
)

// errAuth says that there is no token.
var errAuth = errors.New("to use gh in a GitHub Actions workflow, set the GH_TOKEN environment variable")

// errPending ends `pr checks` while checks are under way.
var errPending = errors.New("some checks are still pending")

type command struct {
	flags shim.Flags
	run   func(ctx context.Context, c *call) error
}

// call is one run of a command.
type call struct {
	*shim.Process
	shim.Parsed
}

var shared = shim.Flags{shim.F("--repo", "-R"), shim.F("--json"), shim.F("--jq", "-q"), shim.B("--help")}

// Main runs gh and returns its exit code.
func Main(ctx context.Context, p *shim.Process) int {
	p.Announce("gh")
	err := run(ctx, p)
	switch {
	case err == nil:
		return shim.ExitOK
	case errors.Is(err, errAuth):
		_, _ = fmt.Fprintln(p.Stderr, err)
		return exitAuth
	case errors.Is(err, errPending):
		return exitPending
	}
	var status *shim.StatusError
	if errors.As(err, &status) {
		var said struct{ Message string }
		_ = json.Unmarshal(status.Body, &said) // an answer that is no JSON has no message
		_, _ = fmt.Fprintf(p.Stderr, "gh: %s (HTTP %d)\n", orElse(said.Message, http.StatusText(status.Status)), status.Status)
		if status.Status == http.StatusUnauthorized {
			return exitAuth
		}
		return shim.ExitFailed
	}
	_, _ = fmt.Fprintf(p.Stderr, "gh: %v\n", err)
	return shim.Code(err)
}

func run(ctx context.Context, p *shim.Process) error {
	args, all := p.Args, commands()
	if len(args) == 1 && args[0] == "--version" {
		args = []string{"version"}
	}
	for n := min(2, len(args)); n > 0; n-- {
		verb := strings.Join(args[:n], " ")
		cmd, ok := all[verb]
		if !ok {
			continue
		}
		flags := slices.Clone(cmd.flags)
		for _, f := range shared { // a command's own meaning of a letter wins
			f.Names = slices.DeleteFunc(slices.Clone(f.Names), func(n string) bool { _, taken := find(cmd.flags, n); return taken })
			if len(f.Names) > 0 {
				flags = append(flags, f)
			}
		}
		parsed, err := flags.Parse(args[n:], false)
		if err != nil {
			return shim.Usagef("gh %s (emulated by lockstep): %v", verb, err)
		}
		return cmd.run(ctx, &call{p, parsed})
	}
	return shim.Usagef("gh %s: the emulated gh does not know this command; it knows: %s", strings.Join(args[:min(2, len(args))], " "), strings.Join(slices.Sorted(maps.Keys(all)), ", "))
}

func find(flags shim.Flags, name string) (shim.Flag, bool) {
	for _, f := range flags {
		if slices.Contains(f.Names, name) {
			return f, true
		}
	}
	return shim.Flag{}, false
}

func commands() map[string]command {
	all := map[string]command{}
	for _, part := range []map[string]command{pullCommands(), runCommands(), releaseCommands(), otherCommands()} {
		maps.Copy(all, part)
	}
	return all
}

func (c *call) token() string { return orElse(c.Getenv("GH_TOKEN"), c.Getenv("GITHUB_TOKEN")) }

func (c *call) base() string {
	if u := c.Getenv("GITHUB_API_URL"); u != "" {
		return strings.TrimSuffix(u, "/")
	}
	return "https://api.github.com"
}

// rest calls the API. route is below the API's address, or absolute. in may be
// nil, []byte, or anything for JSON; out may be nil.
func (c *call) rest(ctx context.Context, method, route string, in, out any) (http.Header, error) {
	return c.restWith(ctx, method, route, nil, in, out)
}

func (c *call) restWith(ctx context.Context, method, route string, header http.Header, in, out any) (http.Header, error) {
	if c.token() == "" {
		return nil, errAuth
	}
	address := c.base() + "/" + strings.TrimPrefix(route, "/")
	if strings.Contains(route, "://") {
		address = route
		// The token is for the API and its uploads, nobody else.
		if u, err := url.Parse(route); err != nil || !c.ours(u.Hostname()) {
			return nil, fmt.Errorf("%s is not the host of this GitHub", route)
		}
	}
	h := http.Header{"Authorization": {"token " + c.token()}, "Accept": {"application/vnd.github+json"}, "X-Github-Api-Version": {"2022-11-28"}}
	for k, v := range header {
		h[http.CanonicalHeaderKey(k)] = v
	}
	return c.Do(ctx, method, address, h, in, out)
}

// ours reports whether a host belongs to the API that the token is for.
func (c *call) ours(host string) bool {
	u, err := url.Parse(c.base())
	if err != nil {
		return false
	}
	own := strings.TrimPrefix(u.Hostname(), "api.")
	return host == own || strings.HasSuffix(host, "."+own)
}

var remoteRepo = regexp.MustCompile(`[:/]([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+?)(?:\.git)?$`)

// repo is owner/name.
func (c *call) repo(ctx context.Context) (string, error) {
	text := orElse(c.Get("repo"), orElse(c.Getenv("GH_REPO"), c.Getenv("GITHUB_REPOSITORY")))
	if text == "" {
		out, err := c.git(ctx, "remote", "get-url", "origin")
		if err != nil {
			return "", errors.New("no git remotes found: use --repo")
		}
		text = out
	}
	if m := remoteRepo.FindStringSubmatch("/" + strings.TrimSpace(text)); m != nil {
		return m[1], nil
	}
	return "", shim.Usagef(`expected the "[HOST/]OWNER/REPO" format, got %q`, text)
}

// route is a path below the repository.
func (c *call) route(ctx context.Context, format string, args ...any) (string, error) {
	repo, err := c.repo(ctx)
	return "/repos/" + repo + fmt.Sprintf(format, args...), err
}

func (c *call) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env, cmd.Stderr = c.Dir, c.Env, c.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// text is an option, or the file that another option names; "-" is standard input.
func (c *call) text(option, file string) (string, error) {
	name := c.Get(file)
	if name == "" {
		return c.Get(option), nil
	}
	if name == "-" {
		data, err := io.ReadAll(io.LimitReader(c.Stdin, 1<<20))
		return string(data), err
	}
	data, err := os.ReadFile(c.Path(name))
	return string(data), err
}

// show prints a value by --json and --jq, or calls plain. Fields of --json are
// those of gh; what GitHub calls otherwise is translated by named.
func (c *call) show(value any, plain func() error) error {
	if !c.Has("json") {
		if c.Has("jq") {
			return shim.Usagef("cannot use --jq without specifying --json")
		}
		return plain()
	}
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	var all any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	fields := strings.Split(c.Get("json"), ",")
	var pick func(v any) (any, error)
	pick = func(v any) (any, error) {
		switch x := v.(type) {
		case []any:
			for i := range x {
				if x[i], err = pick(x[i]); err != nil {
					return nil, err
				}
			}
			return x, nil
		case map[string]any:
			out := map[string]any{}
			for _, f := range fields {
				v, err := named(x, strings.TrimSpace(f))
				if err != nil {
					return nil, err
				}
				out[f] = v
			}
			return out, nil
		}
		return v, nil
	}
	picked, err := pick(all)
	if err != nil {
		return err
	}
	return c.printJSON(picked, c.Get("jq"))
}

var upper = regexp.MustCompile(`[A-Z]`)

// aliases are fields that have other names in the REST API.
var aliases = map[string][]string{
	"url": {"html_url"}, "headRefName": {"head", "ref"}, "headRefOid": {"head", "sha"}, "baseRefName": {"base", "ref"}, "baseRefOid": {"base", "sha"}, "author": {"user"},
	"isDraft": {"draft"}, "databaseId": {"id"}, "workflowName": {"name"}, "number": {"number"}, "mergeCommit": {"merge_commit_sha"}, "tagName": {"tag_name"},
	"isPrerelease": {"prerelease"}, "nameWithOwner": {"full_name"}, "attempt": {"run_attempt"}, "displayTitle": {"display_title"}, "defaultBranchRef": {"default_branch"}, "sshUrl": {"ssh_url"},
}

func named(m map[string]any, field string) (any, error) {
	path, ok := aliases[field]
	if _, direct := m[field]; direct && field != "url" {
		path, ok = []string{field}, true
	}
	if !ok {
		path = []string{upper.ReplaceAllStringFunc(field, func(s string) string { return "_" + strings.ToLower(s) })}
	}
	if field == "number" && m["number"] == nil {
		path = []string{"run_number"}
	}
	var value any = m
	for _, key := range path {
		next, ok := value.(map[string]any)
		if !ok {
			return nil, shim.Usagef("unknown JSON field: %q", field)
		}
		v, found := next[key]
		if !found {
			return nil, shim.Usagef("unknown JSON field: %q", field)
		}
		value = v
	}
	switch field {
	case "state", "status", "conclusion":
		if s, ok := value.(string); ok && m["head"] != nil { // pull requests: OPEN, CLOSED, MERGED
			if merged := m["merged_at"]; merged != nil {
				s = "merged"
			}
			return strings.ToUpper(s), nil
		}
	case "mergeCommit":
		return map[string]any{"oid": value}, nil
	case "defaultBranchRef":
		return map[string]any{"name": value}, nil
	}
	return value, nil
}

// printJSON writes a value, by a filter when one is given.
func (c *call) printJSON(v any, filter string) error {
	if filter == "" {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.Stdout, string(data))
		return err
	}
	query, err := gojq.Parse(filter)
	if err != nil {
		return fmt.Errorf("failed to parse jq expression: %w", err)
	}
	environ := gojq.WithEnvironLoader(func() []string { return c.Env })
	code, err := gojq.Compile(query, environ)
	if err != nil {
		return fmt.Errorf("failed to compile jq expression: %w", err)
	}
	for iter := code.Run(v); ; {
		out, ok := iter.Next()
		if !ok {
			return nil
		}
		switch x := out.(type) {
		case error:
			return x
		case string:
			_, err = fmt.Fprintln(c.Stdout, x)
		case nil:
			_, err = fmt.Fprintln(c.Stdout)
		default:
			var data []byte
			if data, err = gojq.Marshal(x); err == nil {
				_, err = fmt.Fprintln(c.Stdout, string(data))
			}
		}
		if err != nil {
			return err
		}
	}
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (c *call) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(c.Stdout, format+"\n", args...)
	return err
}
