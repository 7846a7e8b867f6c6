package builtin

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	semverText = regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$`)
	pep440Text = regexp.MustCompile(`(?i)^v?(?:\d+!)?(\d+(?:\.\d+)*)([-_.]?(?:a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?((?:-\d+)|(?:[-_.]?(?:post|rev|r)[-_.]?\d*))?([-_.]?dev[-_.]?\d*)?(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?$`)
	expression = regexp.MustCompile(`\{\{\s*([^}]*?)\s*\}\}`)
	dateCall   = regexp.MustCompile(`^(date|commit_date)\s+['"]([^'"]*)['"](?:\s+tz=['"]([^'"]*)['"])?$`)
)

// apply adds the tags of one rule.
func (m *imageMeta) apply(f map[string]string) error {
	branch, isBranch := strings.CutPrefix(m.c.Job.Ref, "refs/heads/")
	tag, isTag := strings.CutPrefix(m.c.Job.Ref, "refs/tags/")
	pull, isPull := strings.CutPrefix(m.c.Job.Ref, "refs/pull/")
	switch f["type"] {
	case "raw":
		value, err := m.expand(f["value"], nil)
		if err != nil {
			return err
		}
		return m.add(f, value, false)
	case "sha":
		sha := m.commit
		switch f["format"] {
		case "", "short":
			sha = m.shortCommit()
		case "long":
		default:
			return m.c.errorf("write short or long", "input tags: type=sha,format=%s", f["format"])
		}
		return m.add(f, sha, false)
	case "ref":
		switch {
		case f["event"] == "branch" && isBranch:
			return m.add(f, branch, false)
		case f["event"] == "tag" && isTag:
			return m.add(f, tag, true)
		case f["event"] == "pr" && isPull:
			number, _, _ := strings.Cut(pull, "/")
			return m.add(f, number, false)
		case f["event"] != "branch" && f["event"] != "tag" && f["event"] != "pr":
			return m.c.errorf("write branch, tag or pr", "input tags: type=ref,event=%s", f["event"])
		}
		return nil
	case "schedule":
		if m.event != "schedule" {
			return nil
		}
		setDefault(f, "pattern", "nightly")
		value, err := m.expand(f["pattern"], nil)
		if err != nil {
			return err
		}
		return m.add(f, value, false)
	case "edge":
		want := f["branch"]
		if want == "" {
			want = m.defaultBranch()
		}
		if !isBranch || branch != want {
			return nil
		}
		setDefault(f, "value", "edge")
		return m.add(f, f["value"], false)
	case "match":
		return m.applyMatch(f, tag, isTag)
	}
	return m.applyVersion(f, tag, isTag)
}

// applyMatch takes a group of a regular expression over the Git tag.
func (m *imageMeta) applyMatch(f map[string]string, tag string, isTag bool) error {
	source, err := m.versionSource(f, tag, isTag)
	if err != nil || source == "" {
		return err
	}
	pattern := f["pattern"]
	if len(pattern) > 1 && pattern[0] == '/' { // /x/i, as in JavaScript
		if end := strings.LastIndexByte(pattern, '/'); end > 0 {
			flags := pattern[end+1:]
			pattern = pattern[1:end]
			if strings.Contains(flags, "i") {
				pattern = "(?i)" + pattern
			}
		}
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return m.c.errorf("", "input tags: type=match: %w", err)
	}
	group, err := strconv.Atoi(strings.TrimSpace("0" + f["group"]))
	if err != nil || group > re.NumSubexp() {
		return m.c.errorf("", "input tags: type=match: the pattern %q has no group %s", f["pattern"], f["group"])
	}
	found := re.FindStringSubmatch(source)
	if found == nil {
		m.c.Logf("##[warning]%s does not match %s.", f["pattern"], source)
		return nil
	}
	return m.add(f, found[group], true)
}

// versionSource is the input value, or the Git tag.
func (m *imageMeta) versionSource(f map[string]string, tag string, isTag bool) (string, error) {
	if v := f["value"]; v != "" {
		return m.expand(v, nil)
	}
	if !isTag {
		return "", nil
	}
	return tag, nil
}

// applyVersion is type=semver and type=pep440.
func (m *imageMeta) applyVersion(f map[string]string, tag string, isTag bool) error {
	source, err := m.versionSource(f, tag, isTag)
	if err != nil || source == "" {
		return err
	}
	if f["pattern"] == "" {
		return m.c.errorf("", "input tags: type=%s needs a pattern", f["type"])
	}
	parts := map[string]string{"raw": source, "version": strings.TrimPrefix(strings.TrimPrefix(source, "v"), "V")}
	pre := false
	if f["type"] == "semver" {
		found := semverText.FindStringSubmatch(source)
		if found == nil {
			m.c.Logf("##[warning]%s is not a valid semver. More info: https://semver.org/", source)
			return nil
		}
		parts["major"], parts["minor"], parts["patch"], pre = found[1], found[2], found[3], found[4] != ""
		parts["version"], _, _ = strings.Cut(parts["version"], "+")
	} else {
		found := pep440Text.FindStringSubmatch(source)
		if found == nil {
			m.c.Logf("##[warning]%s does not conform to PEP 440.", source)
			return nil
		}
		numbers := append(strings.Split(found[1], "."), "0", "0")
		parts["major"], parts["minor"], parts["patch"] = numbers[0], numbers[1], numbers[2]
		pre = found[2] != "" || found[3] != "" || found[4] != ""
	}
	pattern := f["pattern"]
	if pre && !strings.Contains(pattern, "raw") { // a pre-release gets only its full version
		pattern = "{{version}}"
	}
	value, err := m.expand(pattern, parts)
	if err != nil {
		return err
	}
	return m.add(f, value, !pre)
}

func (m *imageMeta) shortCommit() string {
	length := 7
	if n, err := strconv.Atoi(m.c.env("DOCKER_METADATA_SHORT_SHA_LENGTH")); err == nil && n > 0 {
		length = n
	}
	return m.commit[:min(length, len(m.commit))]
}

func (m *imageMeta) defaultBranch() string {
	if m.repo.DefaultBranch != "" {
		return m.repo.DefaultBranch
	}
	return "main"
}

// expand replaces the expressions of a text. parts are those of a version.
func (m *imageMeta) expand(text string, parts map[string]string) (string, error) {
	var failed error
	out := expression.ReplaceAllStringFunc(text, func(e string) string {
		name := expression.FindStringSubmatch(e)[1]
		value, err := m.value(name, parts)
		if err != nil && failed == nil {
			failed = err
		}
		return value
	})
	return out, failed
}

func (m *imageMeta) value(name string, parts map[string]string) (string, error) {
	if v, ok := parts[name]; ok {
		return v, nil
	}
	branch, isBranch := strings.CutPrefix(m.c.Job.Ref, "refs/heads/")
	tag, isTag := strings.CutPrefix(m.c.Job.Ref, "refs/tags/")
	switch name {
	case "branch":
		if isBranch {
			return clean(branch), nil
		}
		return "", nil
	case "tag":
		if isTag {
			return clean(tag), nil
		}
		return "", nil
	case "sha":
		return m.shortCommit(), nil
	case "base_ref":
		return clean(m.baseRef), nil
	case "is_default_branch":
		return strconv.FormatBool(isBranch && branch == m.defaultBranch()), nil
	case "is_not_default_branch":
		return strconv.FormatBool(!isBranch || branch != m.defaultBranch()), nil
	}
	call := dateCall.FindStringSubmatch(name)
	if call == nil {
		return "", m.c.errorf("use branch, tag, sha, base_ref, is_default_branch, date or commit_date", "the expression {{%s}} is not known", name)
	}
	at := m.now
	if call[1] == "commit_date" {
		if at = m.commitDate; at.IsZero() {
			return "", m.c.errorf("check the repository out before", "{{%s}}: the date of commit %s is not known", name, m.commit)
		}
	}
	zone := time.UTC
	if call[3] != "" {
		var err error
		if zone, err = time.LoadLocation(call[3]); err != nil {
			return "", m.c.errorf("", "{{%s}}: %w", name, err)
		}
	}
	return momentFormat(at.In(zone), call[2]), nil
}

var momentToken = regexp.MustCompile(`\[[^\]]*\]|YYYY|YY|MMMM|MMM|MM|M|DDDD|DDD|DD|D|dddd|ddd|HH|H|hh|h|mm|m|ss|s|SSS|A|a|ZZ|Z|X|x`)

// momentFormat writes a time in the way of moment.js.
func momentFormat(t time.Time, format string) string {
	layouts := map[string]string{"YYYY": "2006", "YY": "06", "MMMM": "January", "MMM": "Jan", "MM": "01", "M": "1", "DDDD": "002", "DD": "02", "D": "2",
		"dddd": "Monday", "ddd": "Mon", "HH": "15", "hh": "03", "h": "3", "mm": "04", "m": "4", "ss": "05", "s": "5", "A": "PM", "a": "pm", "ZZ": "-0700", "Z": "-07:00"}
	return momentToken.ReplaceAllStringFunc(format, func(token string) string {
		switch {
		case token[0] == '[':
			return token[1 : len(token)-1]
		case token == "DDD":
			return strconv.Itoa(t.YearDay())
		case token == "H":
			return strconv.Itoa(t.Hour())
		case token == "SSS":
			return t.Format(".000")[1:]
		case token == "X":
			return strconv.FormatInt(t.Unix(), 10)
		case token == "x":
			return strconv.FormatInt(t.UnixMilli(), 10)
		}
		return t.Format(layouts[token])
	})
}
