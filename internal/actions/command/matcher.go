package command

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The bounds of problem matchers.
const (
	maxMatcherFile = 1 << 20 // bytes
	maxMatchers    = 64      // in use at once
	maxMatchLine   = 16 << 10
)

// Matcher finds problems in what tools print, line by line.
type Matcher struct {
	Owner    string
	Severity string // "error" unless a pattern finds one; may be ""
	Patterns []MatchPattern
}

// MatchPattern is one line of a problem. The numbers are groups of the
// expression; -1 is none.
type MatchPattern struct {
	Source                                                string
	File, FromPath, Line, Column, Severity, Code, Message int
	Loop                                                  bool

	expression expression
}

type matcherJSON struct {
	Owner    string        `json:"owner"`
	Severity string        `json:"severity"`
	Pattern  []patternJSON `json:"pattern"`
}

type patternJSON struct {
	Regexp   string `json:"regexp"`
	File     *int   `json:"file"`
	FromPath *int   `json:"fromPath"`
	Line     *int   `json:"line"`
	Column   *int   `json:"column"`
	Severity *int   `json:"severity"`
	Code     *int   `json:"code"`
	Message  *int   `json:"message"`
	Loop     bool   `json:"loop"`
}

// ParseMatchers reads a problem matcher file: {"problemMatcher": […]}. Errors
// name the owner and the pattern.
func ParseMatchers(data []byte) ([]Matcher, error) {
	if len(data) > maxMatcherFile {
		return nil, fmt.Errorf("the problem matcher file has %d bytes, at most %d are read", len(data), maxMatcherFile)
	}
	var file struct {
		ProblemMatcher []matcherJSON `json:"problemMatcher"`
	}
	if err := json.Unmarshal(plainJSON(data), &file); err != nil {
		return nil, fmt.Errorf("the problem matcher file is not valid: %w", err)
	}
	if len(file.ProblemMatcher) > maxMatchers {
		return nil, fmt.Errorf("the problem matcher file holds %d matchers, at most %d are read", len(file.ProblemMatcher), maxMatchers)
	}
	var list []Matcher
	owners := map[string]bool{}
	for _, m := range file.ProblemMatcher {
		parsed, err := m.parse()
		if err != nil {
			return nil, err
		}
		if key := strings.ToLower(m.Owner); owners[key] {
			return nil, fmt.Errorf("two problem matchers have the owner %q", m.Owner)
		} else {
			owners[key] = true
		}
		list = append(list, parsed)
	}
	return list, nil
}

func (m matcherJSON) parse() (Matcher, error) {
	fail := func(format string, args ...any) (Matcher, error) {
		return Matcher{}, fmt.Errorf("problem matcher %q: "+format, append([]any{m.Owner}, args...)...)
	}
	if m.Owner == "" {
		return Matcher{}, fmt.Errorf("a problem matcher has no owner")
	}
	switch strings.ToLower(m.Severity) {
	case "", "error", "warning", "notice":
	default:
		return fail("severity %q is none of error, warning and notice", m.Severity)
	}
	if len(m.Pattern) == 0 || len(m.Pattern) > 20 {
		return fail("it has %d patterns; 1 to 20 are possible", len(m.Pattern))
	}
	out := Matcher{Owner: m.Owner, Severity: m.Severity}
	set := map[string]bool{}
	for i, p := range m.Pattern {
		if p.Loop && (i == 0 || i != len(m.Pattern)-1) {
			return fail("only the last of several patterns may set loop")
		}
		if p.Loop && p.Message == nil {
			return fail("the pattern that loops must set message")
		}
		e, err := compile(p.Regexp)
		if err != nil {
			return fail("pattern %d: %w", i+1, err)
		}
		pattern := MatchPattern{Source: p.Regexp, Loop: p.Loop, expression: e}
		for _, field := range []struct {
			name string
			from *int
			to   *int
		}{
			{"file", p.File, &pattern.File}, {"fromPath", p.FromPath, &pattern.FromPath}, {"line", p.Line, &pattern.Line}, {"column", p.Column, &pattern.Column},
			{"severity", p.Severity, &pattern.Severity}, {"code", p.Code, &pattern.Code}, {"message", p.Message, &pattern.Message},
		} {
			*field.to = -1
			if field.from == nil {
				continue
			}
			if set[field.name] {
				return fail("%s is set by two patterns", field.name)
			}
			if n := *field.from; n < 0 || n > e.groups() {
				return fail("pattern %d: %s is group %d, the expression has %d", i+1, field.name, n, e.groups())
			}
			set[field.name], *field.to = true, *field.from
		}
		out.Patterns = append(out.Patterns, pattern)
	}
	if !set["message"] {
		return fail("no pattern sets message")
	}
	return out, nil
}

// plainJSON blanks comments and commas before a closing bracket, which the
// runner's reader takes.
func plainJSON(data []byte) []byte {
	data = slices.Clone(data)
	data = []byte(strings.TrimPrefix(string(data), "\ufeff"))
	comma := -1
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
			comma = -1
		case c == '/' && i+1 < len(data) && (data[i+1] == '/' || data[i+1] == '*'):
			i = blankComment(data, i)
		case c == ',':
			comma = i
		case c == ']' || c == '}':
			if comma >= 0 {
				data[comma] = ' '
			}
			comma = -1
		case c != ' ' && c != '\t' && c != '\n' && c != '\r':
			comma = -1
		}
	}
	return data
}

// blankComment turns the comment that begins at start into blanks and returns
// the place of its last byte.
func blankComment(data []byte, start int) int {
	closing := "\n"
	if data[start+1] == '*' {
		closing = "*/"
	}
	end := len(data)
	if i := strings.Index(string(data[start+2:]), closing); i >= 0 {
		end = start + 2 + i + len(closing)
	}
	for i := start; i < end; i++ {
		if data[i] != '\n' { // keeps the line numbers of errors
			data[i] = ' '
		}
	}
	return end - 1
}

// Matchers are those that are in use in a job. It is safe for concurrent use.
type Matchers struct {
	mu      sync.Mutex
	list    []*Matcher // newest first
	version int
}

// Add brings matchers into use; one with the same owner is replaced.
func (m *Matchers) Add(list ...Matcher) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, added := range list {
		m.remove(added.Owner)
		if len(m.list) >= maxMatchers {
			return fmt.Errorf("%d problem matchers are in use already: remove some before %q is added", maxMatchers, added.Owner)
		}
		m.list = slices.Insert(m.list, 0, &added)
		m.version++
	}
	return nil
}

// Remove takes matchers out of use.
func (m *Matchers) Remove(owners ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range owners {
		m.remove(o)
	}
}

func (m *Matchers) remove(owner string) {
	m.list = slices.DeleteFunc(m.list, func(x *Matcher) bool { return strings.EqualFold(x.Owner, owner) })
	m.version++
}

// Owners lists the matchers in use.
func (m *Matchers) Owners() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, x := range m.list {
		names = append(names, x.Owner)
	}
	return names
}

// runningMatches is how far each matcher is within a step.
type runningMatches struct {
	version int
	list    []*runningMatch
}

type runningMatch struct {
	matcher *Matcher
	state   []*found // of all patterns but the last
	slow    int
}

// found is what the patterns of one problem found so far; nil is not set.
type found struct{ file, fromPath, line, column, severity, code, message *string }

// maxSlow is how often a matcher may take too long before it is taken out.
const maxSlow = 3

// match gives a line to the matchers.
func (s *Session) match(line string) (Annotation, bool) {
	s.follow()
	if len(s.running.list) == 0 || len(line) > maxMatchLine {
		return Annotation{}, false
	}
	stripped := stripColors(line)
	for _, r := range s.running.list {
		f, err := r.read(stripped)
		if err != nil {
			if r.slow++; r.slow >= maxSlow {
				s.Matchers.Remove(r.matcher.Owner)
			}
			continue
		}
		if f == nil {
			continue
		}
		for _, other := range s.running.list {
			if other != r {
				clear(other.state)
			}
		}
		if a, ok := s.annotation(f, r.matcher.Severity); ok {
			return a, true
		}
	}
	return Annotation{}, false
}

// follow takes over what was added and removed since the last line.
func (s *Session) follow() {
	m := s.Matchers
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.running != nil && s.running.version == m.version {
		return
	}
	next := &runningMatches{version: m.version}
	for _, x := range m.list {
		r := &runningMatch{matcher: x, state: make([]*found, len(x.Patterns)-1)}
		if s.running != nil {
			if i := slices.IndexFunc(s.running.list, func(old *runningMatch) bool { return old.matcher == x }); i >= 0 {
				r = s.running.list[i]
			}
		}
		next.list = append(next.list, r)
	}
	s.running = next
}

// read returns a whole problem, or nil. The patterns are tried from the last,
// so that a line can end one problem and not begin another.
func (r *runningMatch) read(line string) (*found, error) {
	patterns := r.matcher.Patterns
	last := len(patterns) - 1
	for i := last; i >= 0; i-- {
		var before *found
		if i > 0 {
			if before = r.state[i-1]; before == nil {
				continue
			}
		}
		groups, err := patterns[i].expression.match(line)
		if err != nil {
			return nil, err
		}
		switch {
		case groups != nil && i == last:
			clear(r.state)
			if patterns[i].Loop {
				r.state[i-1] = before
			}
			return patterns[i].extend(before, groups), nil
		case groups != nil:
			r.state[i] = patterns[i].extend(before, groups)
		case i == last && i > 0:
			r.state[i-1] = nil
		case i < last:
			r.state[i] = nil
		}
	}
	return nil, nil
}

func (p MatchPattern) extend(before *found, groups []string) *found {
	var f found
	if before != nil {
		f = *before
	}
	set := func(to **string, group int) {
		if *to == nil && group >= 0 && group < len(groups) {
			*to = &groups[group]
		}
	}
	set(&f.file, p.File)
	set(&f.fromPath, p.FromPath)
	set(&f.line, p.Line)
	set(&f.column, p.Column)
	set(&f.severity, p.Severity)
	set(&f.code, p.Code)
	set(&f.message, p.Message)
	return &f
}

// annotation turns a problem into one; ok is false when it has no message, or a
// severity that is no level.
func (s *Session) annotation(f *found, severity string) (Annotation, bool) {
	text := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	number := func(p *string) int {
		n, err := strconv.Atoi(text(p))
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	if found := text(f.severity); found != "" {
		severity = found
	}
	level := strings.ToLower(severity)
	if level == "" {
		level = "error"
	}
	if strings.TrimSpace(text(f.message)) == "" || (level != "error" && level != "warning" && level != "notice") {
		return Annotation{}, false
	}
	return Annotation{Level: level, Message: text(f.message), File: s.place(text(f.file), text(f.fromPath)), Line: number(f.line), Column: number(f.column)}, true
}

// stripColors removes terminal colours: ESC [ digits and semicolons, m.
func stripColors(line string) string {
	if !strings.Contains(line, "\x1b[") {
		return line
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(line, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		line = strings.TrimPrefix(strings.TrimLeft(rest, "0123456789;"), "m")
	}
}
