package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"go.yaml.in/yaml/v3"
)

func pathsFilter() Action {
	return Action{
		Name: "dorny/paths-filter",
		Inputs: map[string]string{"token": "", "working-directory": "", "ref": "", "base": "", "filters": "", "list-files": "none",
			"initial-fetch-depth": "100", "predicate-quantifier": "some"},
		Run: runPathsFilter,
	}
}

// changed is one file of a change.
type changed struct{ name, status string } // added, modified, deleted

// pathRule is one pattern of a filter.
type pathRule struct {
	statuses []string // empty: any
	pattern  string
}

func runPathsFilter(ctx context.Context, c *Call) error {
	filters, names, err := pathRules(c)
	if err != nil {
		return err
	}
	files, err := c.changedFiles(ctx)
	if err != nil {
		return err
	}
	c.Logf("Detected %d changed files", len(files))
	every := c.With["predicate-quantifier"] == "every"
	changes := []string{}
	for _, name := range names {
		var hits []string
		for _, f := range files {
			n := 0
			for _, r := range filters[name] {
				if r.holds(f) {
					n++
				}
			}
			if !every && n > 0 || every && n == len(filters[name]) {
				hits = append(hits, f.name)
			}
		}
		if len(hits) > 0 {
			changes = append(changes, name)
		}
		c.SetOutput(name, fmt.Sprint(len(hits) > 0))
		c.SetOutput(name+"_count", fmt.Sprint(len(hits)))
		listed, err := listFiles(c, hits)
		if err != nil {
			return err
		}
		if c.With["list-files"] != "none" {
			c.SetOutput(name+"_files", listed)
		}
		c.Logf("Filter %s = %t (%d files)", name, len(hits) > 0, len(hits))
	}
	data, err := json.Marshal(changes)
	c.SetOutput("changes", string(data))
	return err
}

func (r pathRule) holds(f changed) bool {
	if len(r.statuses) > 0 && !slices.Contains(r.statuses, f.status) {
		return false
	}
	pattern, negated := strings.CutPrefix(r.pattern, "!")
	return doublestar.MatchUnvalidated(pattern, f.name) != negated
}

func listFiles(c *Call, files []string) (string, error) {
	switch c.With["list-files"] {
	case "none":
		return "", nil
	case "json":
		data, err := json.Marshal(nonNil(files))
		return string(data), err
	case "csv":
		return strings.Join(files, ","), nil
	case "shell", "escape":
		quoted := make([]string, len(files))
		for i, f := range files {
			quoted[i] = f
			if strings.ContainsAny(f, " \t'\"\\$`&|;<>()*?[]#~!{}") {
				quoted[i] = quote(f)
			}
		}
		return strings.Join(quoted, " "), nil
	}
	return "", c.errorf("write none, csv, json, shell or escape", "input list-files: %q", c.With["list-files"])
}

// pathRules reads the filters: YAML, or the name of a file with YAML.
func pathRules(c *Call) (map[string][]pathRule, []string, error) {
	text := c.With["filters"]
	if !strings.Contains(text, ":") && strings.TrimSpace(text) != "" {
		inside, err := within(c, strings.TrimSpace(text))
		if err != nil {
			return nil, nil, err
		}
		data, err := readFile(c.Job.Files, inside, 1<<20)
		if err != nil {
			return nil, nil, c.errorf("", "input filters: %w", err)
		}
		text = string(data)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, nil, c.errorf("write lines of name: [patterns]", "input filters is no YAML map")
	}
	filters, names := map[string][]pathRule{}, []string{}
	for i := 0; i+1 < len(doc.Content[0].Content); i += 2 {
		name := doc.Content[0].Content[i].Value
		rules, err := rulesOf(doc.Content[0].Content[i+1], nil, 0)
		if err != nil {
			return nil, nil, c.errorf("", "input filters: %s: %w", name, err)
		}
		filters[name], names = rules, append(names, name)
	}
	return filters, names, nil
}

func rulesOf(n *yaml.Node, statuses []string, depth int) ([]pathRule, error) {
	if depth > 10 {
		return nil, fmt.Errorf("lists are nested too deep")
	}
	var out []pathRule
	switch n.Kind {
	case yaml.AliasNode:
		return rulesOf(n.Alias, statuses, depth+1)
	case yaml.ScalarNode:
		if !doublestar.ValidatePattern(strings.TrimPrefix(n.Value, "!")) {
			return nil, fmt.Errorf("%q is no pattern", n.Value)
		}
		return []pathRule{{statuses, n.Value}}, nil
	case yaml.SequenceNode:
		for _, item := range n.Content {
			rules, err := rulesOf(item, statuses, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, rules...)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			var kinds []string
			for kind := range strings.SplitSeq(n.Content[i].Value, "|") {
				kinds = append(kinds, strings.ToLower(strings.TrimSpace(kind)))
			}
			rules, err := rulesOf(n.Content[i+1], kinds, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, rules...)
		}
	}
	return out, nil
}

// changedFiles asks the forge for those of a pull request, and Git for others.
func (c *Call) changedFiles(ctx context.Context) ([]changed, error) {
	var payload struct {
		PullRequest struct {
			Number int `json:"number"`
		} `json:"pull_request"`
		Before     string `json:"before"`
		Repository struct {
			DefaultBranch string `json:"default_branch"`
		} `json:"repository"`
	}
	if err := c.event(&payload); err != nil {
		return nil, err
	}
	if n := payload.PullRequest.Number; n > 0 {
		return c.pullFiles(ctx, n)
	}
	dir := c.Job.Workspace
	if w := c.With["working-directory"]; w != "" {
		inside, err := within(c, w)
		if err != nil {
			return nil, err
		}
		dir = path.Join(dir, inside)
	}
	base := strings.TrimPrefix(c.With["base"], "refs/heads/")
	if base == "" {
		base = payload.Repository.DefaultBranch
	}
	head := c.With["ref"]
	if head == "" || head == c.Job.Ref {
		head = "HEAD"
	}
	if strings.HasPrefix(base, "-") || strings.HasPrefix(head, "-") {
		return nil, c.errorf("", "inputs base and ref must be branches or commits")
	}
	const none = "0000000000000000000000000000000000000000"
	if base == "" || "refs/heads/"+base == c.Job.Ref {
		base = payload.Before
		if base == "" {
			base = none
		}
	}
	return c.gitChanges(ctx, dir, base, head)
}

// gitChanges compares head with a commit, or with where it left a branch. A
// base of zeros lists all files.
func (c *Call) gitChanges(ctx context.Context, dir, base, head string) ([]changed, error) {
	const compare = `base=$1 head=$2
case $base in 0000*) git ls-files -z | while IFS= read -r -d '' f; do printf 'A\0%s\0' "$f"; done; exit;; esac
if [ ${#base} = 40 ] || [ ${#base} = 64 ]; then
	git cat-file -e "$base^{commit}" 2>/dev/null || git fetch --quiet --no-tags --depth=1 origin "$base" || exit 40
	exec git diff --no-renames --name-status -z "$base" "$head"
fi
deep=; [ "$(git rev-parse --is-shallow-repository)" = true ] && deep=--unshallow
git fetch --quiet --no-tags $deep origin "+refs/heads/$base:refs/remotes/origin/$base" || exit 40
exec git diff --no-renames --name-status -z "origin/$base...$head"`
	out, err := c.capture(ctx, dir, "bash", "-c", compare, "bash", base, head)
	if err != nil {
		return nil, c.errorf("check the repository out before", "find the changed files since %s: %w", base, err)
	}
	fields := strings.Split(strings.TrimRight(out, "\x00"), "\x00")
	var files []changed
	for i := 0; i+1 < len(fields); i += 2 {
		status := map[string]string{"A": "added", "D": "deleted"}[fields[i]]
		if status == "" {
			status = "modified"
		}
		files = append(files, changed{fields[i+1], status})
	}
	return files, nil
}

func (c *Call) pullFiles(ctx context.Context, number int) ([]changed, error) {
	var files []changed
	for page := 1; page <= 30; page++ { // GitHub lists at most 3000
		var answer []struct {
			Filename string `json:"filename"`
			Status   string `json:"status"`
			Previous string `json:"previous_filename"`
		}
		route := fmt.Sprintf("/repos/%s/pulls/%d/files?per_page=100&page=%d", c.Job.Repo, number, page)
		if err := c.api(ctx, http.MethodGet, c.With["token"], route, nil, &answer); err != nil {
			return nil, c.errorf("give the job `pull-requests: read`", "list the files of pull request %d: %w", number, err)
		}
		for _, f := range answer {
			switch f.Status {
			case "removed":
				f.Status = "deleted"
			case "renamed": // as the real action: gone here, new there
				files = append(files, changed{f.Previous, "deleted"})
				f.Status = "added"
			case "added", "copied":
				f.Status = "added"
			default:
				f.Status = "modified"
			}
			files = append(files, changed{f.Filename, f.Status})
		}
		if len(answer) < 100 {
			break
		}
	}
	return files, nil
}
