package builtin

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
)

// references are the tags with the names of the images.
func (m *imageMeta) references() (tags, refs []string, err error) {
	tags = slices.Clone(m.tags)
	if m.latest != nil && *m.latest && len(tags) > 0 {
		latest := "latest"
		if m.flavor.prefixOnLatest {
			latest = m.flavor.prefix + latest
		}
		if m.flavor.suffixOnLatest {
			latest += m.flavor.suffix
		}
		if !slices.Contains(tags, latest) {
			tags = append(tags, latest)
		}
	}
	images := 0
	for _, line := range m.c.list("images", false) {
		f := map[string]string{"enable": "true"}
		for _, part := range splitFields(line) {
			if k, v, ok := strings.Cut(part, "="); ok {
				f[strings.ToLower(k)] = v
			} else {
				f["name"] = part
			}
		}
		enabled, err := m.expand(f["enable"], nil)
		if err != nil {
			return nil, nil, err
		}
		name, err := m.expand(f["name"], nil)
		if err != nil {
			return nil, nil, err
		}
		images++
		if enabled != "true" || name == "" {
			continue
		}
		for _, t := range tags {
			refs = append(refs, strings.ToLower(name)+":"+t)
		}
	}
	if images == 0 {
		refs = tags
	}
	return tags, refs, nil
}

// pairs are the standard labels with those of an input over them.
func (m *imageMeta) pairs(input, version string) (map[string]string, error) {
	_, name, _ := strings.Cut(m.c.Job.Repo, "/")
	url := m.c.Job.ServerURL + "/" + m.c.Job.Repo
	const oci = "org.opencontainers.image."
	out := map[string]string{
		oci + "created": m.now.Format("2006-01-02T15:04:05.000Z07:00"), oci + "revision": m.commit, oci + "source": url, oci + "url": url, oci + "title": name,
		oci + "version": version, oci + "description": m.repo.Description, oci + "licenses": m.repo.License.SPDX,
	}
	for _, line := range m.c.list(input, false) {
		k, v, ok := strings.Cut(line, "=")
		if !ok || k == "" {
			return nil, m.c.errorf("", "input %s: %q is not name=value", input, line)
		}
		value, err := m.expand(v, nil)
		if err != nil {
			return nil, err
		}
		out[strings.TrimSpace(k)] = value
	}
	return out, nil
}

// write gives all outputs.
func (m *imageMeta) write() error {
	c := m.c
	tags, refs, err := m.references()
	if err != nil {
		return err
	}
	version := ""
	if len(tags) > 0 {
		version = tags[0]
	} else {
		c.Logf("##[warning]No Docker image version has been generated. Check tags input.")
	}
	labels, err := m.pairs("labels", version)
	if err != nil {
		return err
	}
	annotations, err := m.pairs("annotations", version)
	if err != nil {
		return err
	}
	levels := c.env("DOCKER_METADATA_ANNOTATIONS_LEVELS")
	if levels == "" {
		levels = "manifest"
	}
	var notes []string
	for level := range strings.SplitSeq(levels, ",") {
		for _, line := range assigned(annotations) {
			notes = append(notes, strings.TrimSpace(level)+":"+line)
		}
	}
	data, err := json.Marshal(map[string]any{"tags": nonNil(refs), "tag-names": nonNil(tags), "labels": labels, "annotations": nonNil(notes)})
	if err != nil {
		return err
	}
	for _, out := range [][2]string{{"version", version}, {"tags", strings.Join(refs, c.With["sep-tags"])}, {"labels", strings.Join(assigned(labels), c.With["sep-labels"])},
		{"annotations", strings.Join(notes, c.With["sep-annotations"])}, {"json", string(data)}} {
		c.SetOutput(out[0], out[1])
		c.SetEnv("DOCKER_METADATA_OUTPUT_"+strings.ToUpper(out[0]), out[1])
	}
	c.SetOutput("tag-names", strings.Join(tags, c.With["sep-tags"]))
	c.Logf("##[group]Docker tags\n%s\n##[endgroup]", strings.Join(refs, "\n"))
	c.Logf("##[group]Docker labels\n%s\n##[endgroup]", strings.Join(assigned(labels), "\n"))
	return m.writeBake(version, refs, labels, notes)
}

// writeBake writes the files that docker/bake-action reads.
func (m *imageMeta) writeBake(version string, refs []string, labels map[string]string, notes []string) error {
	var images []string
	for _, r := range refs {
		if name := r[:max(strings.LastIndexByte(r, ':'), 0)]; name != "" && !slices.Contains(images, name) {
			images = append(images, name)
		}
	}
	arguments := map[string]string{"DOCKER_META_IMAGES": strings.Join(images, ","), "DOCKER_META_VERSION": version}
	const dir = "_lockstep/metadata"
	if err := m.c.Job.Temp.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	all := map[string]any{}
	for _, part := range []struct {
		name   string
		target map[string]any
	}{
		{"tags", map[string]any{"tags": nonNil(refs), "args": arguments}}, {"labels", map[string]any{"labels": labels}}, {"annotations", map[string]any{"annotations": nonNil(notes)}},
	} {
		for k, v := range part.target {
			all[k] = v
		}
		if err := m.bake(dir, "bake-file-"+part.name, part.target); err != nil {
			return err
		}
	}
	delete(all, "annotations") // as the real file: annotations have one of their own
	return m.bake(dir, "bake-file", all)
}

func (m *imageMeta) bake(dir, output string, target map[string]any) error {
	data, err := json.MarshalIndent(map[string]any{"target": map[string]any{m.c.With["bake-target"]: target}}, "", "  ")
	if err != nil {
		return err
	}
	name := path.Join(dir, "docker-metadata-action-"+output+".json")
	if err := m.c.Job.Temp.WriteFile(name, data, 0o644); err != nil {
		return err
	}
	m.c.SetOutput(output, path.Join(m.c.Job.TempPath, name))
	return nil
}

// assigned lists a map as name=value, sorted.
func assigned(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for _, k := range sorted(m) {
		out = append(out, k+"="+m[k])
	}
	return out
}

func nonNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
