package builtin

import (
	"cmp"
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func metadata() Action {
	return Action{
		Name: "docker/metadata-action",
		Inputs: map[string]string{"images": "", "tags": "", "flavor": "", "labels": "", "annotations": "", "sep-tags": "\n", "sep-labels": "\n",
			"sep-annotations": "\n", "bake-target": "docker-metadata-action", "context": "workflow"},
		NoEffect: map[string]string{"github-token": "what is known of the repository is in the event"},
		Run:      runMetadata,
	}
}

// imageMeta is what metadata-action makes of a run.
type imageMeta struct {
	c    *Call
	now  time.Time
	repo struct {
		Description   string `json:"description"`
		DefaultBranch string `json:"default_branch"`
		License       struct {
			SPDX string `json:"spdx_id"`
		} `json:"license"`
	}
	event      string
	commit     string
	commitDate time.Time
	baseRef    string

	flavor flavor
	tags   []string // in order, without latest
	latest *bool    // nil: no tag has decided
}

// flavor is the input of that name.
type flavor struct {
	latest, prefix, suffix         string
	prefixOnLatest, suffixOnLatest bool
}

// priorities of the types of tags: the highest is the version.
var priorities = map[string]int{"schedule": 1000, "semver": 900, "pep440": 900, "match": 800, "edge": 700, "ref": 600, "raw": 200, "sha": 100}

func runMetadata(ctx context.Context, c *Call) error {
	m := &imageMeta{c: c, now: time.Now().UTC(), event: c.env("GITHUB_EVENT_NAME"), commit: c.Job.Commit}
	if err := m.readRun(ctx); err != nil {
		return err
	}
	if err := m.readFlavor(); err != nil {
		return err
	}
	rules := c.list("tags", false)
	if len(rules) == 0 {
		rules = []string{"type=schedule", "type=ref,event=branch", "type=ref,event=tag", "type=ref,event=pr"}
	}
	var parsed []map[string]string
	for _, rule := range rules {
		f := fields(rule)
		if _, ok := priorities[f["type"]]; !ok {
			return c.errorf("use schedule, semver, pep440, match, edge, ref, raw or sha", "input tags: %q has the unknown type %q", rule, f["type"])
		}
		if p := f["priority"]; p != "" {
			if _, err := strconv.Atoi(p); err != nil {
				return c.errorf("", "input tags: priority %q in %q is no number", p, rule)
			}
		}
		parsed = append(parsed, f)
	}
	slices.SortStableFunc(parsed, func(a, b map[string]string) int { return cmp.Compare(priority(b), priority(a)) })
	for _, f := range parsed {
		enabled, err := m.expand(cmp.Or(f["enable"], "true"), nil)
		if err != nil {
			return err
		}
		if enabled != "true" {
			if enabled != "false" {
				return c.errorf("write enable=true or enable=false", "input tags: enable=%s", enabled)
			}
			continue
		}
		if err := m.apply(f); err != nil {
			return err
		}
	}
	return m.write()
}

func priority(f map[string]string) int {
	if n, err := strconv.Atoi(f["priority"]); err == nil {
		return n
	}
	return priorities[f["type"]]
}

// readRun collects what tags and labels are made of.
func (m *imageMeta) readRun(ctx context.Context) error {
	var payload struct {
		Repository  json.RawMessage `json:"repository"`
		PullRequest struct {
			Base, Head struct {
				Ref string `json:"ref"`
				SHA string `json:"sha"`
			}
		} `json:"pull_request"`
		BaseRef    string `json:"base_ref"`
		HeadCommit struct {
			Timestamp time.Time `json:"timestamp"`
		} `json:"head_commit"`
	}
	if err := m.c.event(&payload); err != nil {
		return err
	}
	if len(payload.Repository) > 0 {
		_ = json.Unmarshal(payload.Repository, &m.repo) // what is not there stays empty
	}
	m.baseRef = strings.TrimPrefix(cmp.Or(payload.PullRequest.Base.Ref, payload.BaseRef, m.c.env("GITHUB_BASE_REF")), "refs/heads/")
	if m.c.env("DOCKER_METADATA_PR_HEAD_SHA") == "true" && payload.PullRequest.Head.SHA != "" {
		m.commit = payload.PullRequest.Head.SHA
	}
	m.commitDate = payload.HeadCommit.Timestamp
	switch m.c.With["context"] {
	case "", "workflow":
	case "git":
		sha, err := m.c.capture(ctx, m.c.Job.Workspace, "git", "rev-parse", "HEAD")
		if err != nil {
			return m.c.errorf("check the repository out before", "input context is git: %w", err)
		}
		m.commit = strings.TrimSpace(sha)
	default:
		return m.c.errorf("write workflow or git", "input context: %q", m.c.With["context"])
	}
	if m.commitDate.IsZero() && m.c.Job.Exec != nil {
		if out, err := m.c.capture(ctx, m.c.Job.Workspace, "git", "show", "-s", "--format=%ct", m.commit); err == nil {
			if sec, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64); err == nil {
				m.commitDate = time.Unix(sec, 0).UTC()
			}
		}
	}
	return nil
}

// readFlavor reads latest, prefix and suffix; onlatest belongs to the one
// before it on its line.
func (m *imageMeta) readFlavor() error {
	m.flavor.latest = "auto"
	for _, line := range m.c.list("flavor", false) {
		last := ""
		for part := range strings.SplitSeq(line, ",") {
			k, v, ok := strings.Cut(strings.TrimSpace(part), "=")
			if !ok {
				return m.c.errorf("", "input flavor: %q is not name=value", part)
			}
			var err error
			switch k {
			case "latest":
				m.flavor.latest = v
				if v != "auto" && v != "true" && v != "false" {
					return m.c.errorf("write auto, true or false", "input flavor: latest=%s", v)
				}
			case "prefix":
				m.flavor.prefix, err = m.expand(v, nil)
			case "suffix":
				m.flavor.suffix, err = m.expand(v, nil)
			case "onlatest":
				switch last {
				case "prefix":
					m.flavor.prefixOnLatest = v == "true"
				case "suffix":
					m.flavor.suffixOnLatest = v == "true"
				}
			default:
				return m.c.errorf("use latest, prefix, suffix and onlatest", "input flavor: unknown name %q", k)
			}
			if err != nil {
				return err
			}
			last = k
		}
	}
	return nil
}

// add takes one tag. latest is what flavor latest=auto makes of it.
func (m *imageMeta) add(f map[string]string, value string, latest bool) error {
	prefix, suffix := m.flavor.prefix, m.flavor.suffix
	var err error
	if v, ok := f["prefix"]; ok {
		if prefix, err = m.expand(v, nil); err != nil {
			return err
		}
	}
	if v, ok := f["suffix"]; ok {
		if suffix, err = m.expand(v, nil); err != nil {
			return err
		}
	}
	if value == "" {
		return nil
	}
	if tag := clean(prefix + value + suffix); tag != "" && !slices.Contains(m.tags, tag) {
		m.tags = append(m.tags, tag)
	}
	if m.flavor.latest != "auto" {
		latest = m.flavor.latest == "true"
	}
	if m.latest == nil {
		m.latest = &latest
	}
	return nil
}

// fields reads type=sha,prefix=x; a bare word is type=raw. A field may stand in
// double quotes, to hold commas.
func fields(rule string) map[string]string {
	out := map[string]string{}
	for _, f := range splitFields(rule) {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			out["type"], out["value"] = "raw", strings.TrimSpace(k)
			continue
		}
		out[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
	}
	if out["type"] == "" {
		out["type"] = "raw"
	}
	switch {
	case out["type"] == "ref" && out["event"] == "pr":
		setDefault(out, "prefix", "pr-")
	case out["type"] == "sha":
		setDefault(out, "prefix", "sha-")
	}
	return out
}

func setDefault(m map[string]string, k, v string) {
	if _, ok := m[k]; !ok {
		m[k] = v
	}
}

// splitFields cuts at commas outside of double quotes.
func splitFields(s string) []string {
	var out []string
	var field strings.Builder
	quoted := false
	for _, r := range s {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			out = append(out, strings.TrimSpace(field.String()))
			field.Reset()
		default:
			field.WriteRune(r)
		}
	}
	return append(out, strings.TrimSpace(field.String()))
}

var notInTag = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// clean makes a valid tag.
func clean(s string) string {
	s = strings.TrimLeft(notInTag.ReplaceAllString(s, "-"), ".-")
	return s[:min(len(s), 128)]
}
