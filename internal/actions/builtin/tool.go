package builtin

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// tool is a program that a setup action looks for.
type tool struct {
	name    string   // as people call it, "Node.js"
	find    []string // programs and shell patterns of absolute paths
	version []string // arguments that print the version
	pattern *regexp.Regexp
	install string // what to do when it is missing
}

// installed is a program of the machine or of the tool cache.
type installed struct {
	path    string
	text    string // version as the program says it
	version *semver.Version
}

// candidates lists the versions of a tool in the sandbox: the one on the PATH
// first, each program once.
func (t tool) candidates(ctx context.Context, c *Call) ([]installed, error) {
	const list = `ask() { n=$1 p=$2; shift 2; while [ "$n" -gt 0 ]; do shift; n=$((n-1)); done; "$p" "$@" 2>&1 </dev/null | head -c 4096; }
k=0
for word in "$@"; do
	k=$((k+1)); [ "$k" = 1 ] && continue; [ "$k" -gt "$(($1+1))" ] && break
	for p in $word; do
		case $p in /*) [ -x "$p" ] || continue;; *) p=$(command -v "$p") || continue;; esac
		printf '\036%s\n' "$p"; ask "$(($1+1))" "$p" "$@"
	done
done
:`
	args := append(append([]string{"sh", "-c", list, "sh", fmt.Sprint(len(t.find))}, t.find...), t.version...)
	out, err := c.capture(ctx, c.Job.Workspace, args...)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil && out == "" {
		return nil, nil
	}
	var found []installed
	for part := range strings.SplitSeq(out, "\x1e") {
		program, said, _ := strings.Cut(part, "\n")
		m := t.pattern.FindStringSubmatch(said)
		if m == nil || slices.ContainsFunc(found, func(f installed) bool { return f.path == program }) {
			continue
		}
		if v, err := semver.NewVersion(m[1]); err == nil {
			found = append(found, installed{program, m[1], v})
		}
	}
	return found, nil
}

// pick finds a version that satisfies wanted: "" and "latest" take the first,
// anything else is a range as npm writes it.
func (t tool) pick(ctx context.Context, c *Call, input, wanted string) (installed, error) {
	found, err := t.candidates(ctx, c)
	if err != nil {
		return installed{}, err
	}
	if len(found) == 0 {
		return installed{}, c.errorf(t.install, "this machine has no %s, and nothing is downloaded", t.name)
	}
	fits, err := versionRange(wanted)
	if err != nil {
		return installed{}, c.errorf("write a version such as 20, 20.x, 1.5.7 or >=1.2", "input %s: %w", input, err)
	}
	best := -1
	for i, f := range found {
		if fits(f.version) && (best < 0 || wanted != "" && f.version.GreaterThan(found[best].version)) {
			best = i
		}
	}
	if best < 0 {
		var have []string
		for _, f := range found {
			have = append(have, f.text+" ("+f.path+")")
		}
		return installed{}, c.errorf(fmt.Sprintf("ask for a version that is there, or put one into the tool cache; %s", t.install),
			"%s %s is asked for, but this machine has %s, and nothing is downloaded", t.name, wanted, strings.Join(have, ", "))
	}
	return found[best], nil
}

// versionRange understands npm's ranges, and names for "whatever is newest".
func versionRange(wanted string) (func(*semver.Version) bool, error) {
	wanted = strings.TrimSpace(wanted)
	switch strings.ToLower(wanted) {
	case "", "*", "x", "latest", "stable", "current", "node", "default":
		return func(*semver.Version) bool { return true }, nil
	}
	text := strings.TrimPrefix(wanted, "v")
	pre := strings.Contains(text, "-")
	if v, err := semver.StrictNewVersion(text); err == nil {
		return v.Equal, nil
	}
	r, err := semver.NewConstraint(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no version and no range", wanted)
	}
	r.IncludePrerelease = pre
	return r.Check, nil
}

// onPath puts the folder of a program before the others, unless the program is
// found without that.
func (c *Call) onPath(ctx context.Context, program string) {
	out, err := c.capture(ctx, c.Job.Workspace, "sh", "-c", `command -v "$1"`, "sh", path.Base(program))
	if err != nil || strings.TrimSpace(out) != program {
		c.AddPath(path.Dir(program))
	}
}

// shimFolder makes a folder of small programs that comes first in the PATH.
// scripts are their texts by name.
func (c *Call) shimFolder(name string, scripts map[string]string) (string, error) {
	dir := path.Join("_lockstep", name)
	if err := c.Job.Temp.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, err)
	}
	for program, text := range scripts {
		if err := c.Job.Temp.WriteFile(path.Join(dir, program), []byte(text), 0o755); err != nil {
			return "", fmt.Errorf("write %s: %w", program, err)
		}
		if err := c.Job.Temp.Chmod(path.Join(dir, program), 0o755); err != nil {
			return "", fmt.Errorf("write %s: %w", program, err)
		}
	}
	return path.Join(c.Job.TempPath, dir), nil
}

// quote makes one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
