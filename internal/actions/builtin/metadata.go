package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

func metadata() Action {
	return Action{
		Name: "docker/metadata-action",
		Inputs: map[string]string{"images": "", "tags": "", "flavor": "", "labels": "", "sep-tags": "\n", "sep-labels": "\n",
			"context": "workflow"},
		NoEffect: map[string]string{"annotations": "annotations are not written yet", "sep-annotations": "annotations are not written yet",
			"bake-target": "bake files are not written yet", "github-token": "the repository is local"},
		Run: runMetadata,
	}
}

var semver = regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// imageTag is one tag with whether it may be "latest" besides.
type imageTag struct {
	value  string
	latest bool
}

func runMetadata(_ context.Context, c *Call) error {
	rules := c.list("tags", false)
	if len(rules) == 0 {
		rules = []string{"type=schedule", "type=ref,event=branch", "type=ref,event=tag", "type=ref,event=pr"}
	}
	flavor := map[string]string{}
	for _, line := range c.list("flavor", true) {
		k, v, _ := strings.Cut(line, "=")
		flavor[k] = v
	}
	var tags []string
	latest := flavor["latest"] == "true"
	for _, rule := range rules {
		found, err := applyRule(c, fields(rule))
		if err != nil {
			return err
		}
		for _, t := range found {
			if tag := clean(flavor["prefix"] + t.value + flavor["suffix"]); !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
			latest = latest || t.latest && flavor["latest"] != "false"
		}
	}
	if latest && len(tags) > 0 {
		tags = append(tags, "latest")
	}
	version := ""
	if len(tags) > 0 {
		version = tags[0]
	}
	var refs []string
	for _, image := range c.list("images", true) {
		for _, t := range tags {
			refs = append(refs, strings.ToLower(strings.TrimPrefix(image, "name="))+":"+t)
		}
	}
	return writeMetadata(c, version, refs, tags)
}

func writeMetadata(c *Call, version string, refs, tags []string) error {
	_, name, _ := strings.Cut(c.Job.Repo, "/")
	url := c.Job.ServerURL + "/" + c.Job.Repo
	labels := map[string]string{
		"org.opencontainers.image.created": time.Now().UTC().Format(time.RFC3339), "org.opencontainers.image.revision": c.Job.Commit,
		"org.opencontainers.image.source": url, "org.opencontainers.image.url": url, "org.opencontainers.image.title": name,
		"org.opencontainers.image.version": version,
	}
	own, err := assignments(c, "labels")
	if err != nil {
		return err
	}
	for k, v := range own {
		labels[k] = v
	}
	var lines []string
	for _, k := range sorted(labels) {
		lines = append(lines, k+"="+labels[k])
	}
	data, err := json.Marshal(map[string]any{"tags": refs, "tag-names": tags, "labels": labels, "annotations": []string{}})
	if err != nil {
		return err
	}
	c.SetOutput("version", version)
	c.SetOutput("tags", strings.Join(refs, c.With["sep-tags"]))
	c.SetOutput("labels", strings.Join(lines, c.With["sep-labels"]))
	c.SetOutput("json", string(data))
	c.Logf("##[group]Docker tags\n%s\n##[endgroup]", strings.Join(refs, "\n"))
	return nil
}

// fields reads type=sha,prefix=x; a bare word is type=raw.
func fields(rule string) map[string]string {
	out := map[string]string{}
	for f := range strings.SplitSeq(rule, ",") {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			out["type"], out["value"] = "raw", k
			continue
		}
		out[strings.TrimSpace(k)] = v
	}
	return out
}

func applyRule(c *Call, f map[string]string) ([]imageTag, error) {
	if f["enable"] != "" && f["enable"] != "true" {
		return nil, nil
	}
	one := func(value string, latest bool) ([]imageTag, error) {
		return []imageTag{{f["prefix"] + value + f["suffix"], latest}}, nil
	}
	branch, isBranch := strings.CutPrefix(c.Job.Ref, "refs/heads/")
	tag, isTag := strings.CutPrefix(c.Job.Ref, "refs/tags/")
	switch f["type"] {
	case "raw":
		return one(f["value"], false)
	case "sha":
		prefix, given := f["prefix"]
		if !given {
			prefix = "sha-"
		}
		sha := c.Job.Commit
		if f["format"] != "long" {
			sha = sha[:min(7, len(sha))]
		}
		return []imageTag{{prefix + sha + f["suffix"], false}}, nil
	case "ref":
		if f["event"] == "branch" && isBranch {
			return one(branch, false)
		}
		if f["event"] == "tag" && isTag {
			return one(tag, true)
		}
		return nil, nil
	case "semver":
		source := f["value"]
		if source == "" && isTag {
			source = tag
		}
		m := semver.FindStringSubmatch(source)
		if m == nil {
			return nil, nil
		}
		if m[4] != "" { // a pre-release gets only its full version
			return one(strings.TrimPrefix(source, "v"), false)
		}
		text := strings.NewReplacer("{{version}}", m[1]+"."+m[2]+"."+m[3], "{{major}}", m[1], "{{minor}}", m[2], "{{patch}}", m[3], "{{raw}}", source).Replace(f["pattern"])
		return one(text, true)
	case "schedule", "pr", "edge":
		return nil, nil
	}
	return nil, c.errorf("use sha, raw, ref or semver", "tags of type %q are not supported yet", fmt.Sprint(f["type"]))
}

var notInTag = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// clean makes a valid tag.
func clean(s string) string {
	s = strings.TrimLeft(notInTag.ReplaceAllString(s, "-"), ".-")
	return s[:min(len(s), 128)]
}
