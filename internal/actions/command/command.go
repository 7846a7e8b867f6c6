// Package command reads what a step says to its runner: workflow commands on
// standard output, problems that matchers find there, and the environment files.
//
// Input: one line, or the content of GITHUB_OUTPUT, GITHUB_ENV, GITHUB_STATE,
// GITHUB_PATH or a problem matcher file. Output: an [Event] per line, with its
// [Command] or [Annotation] and what the log shows; names and values in order.
//
// Invariants: no I/O; errors carry the line of the file; a pattern that takes
// long is taken out of use, whatever it is.
//
// Start reading at [Session.Read], [ParseMatchers] and [ParseFile].
package command

import (
	"fmt"
	"strconv"
	"strings"
)

// Command is one workflow command: ::name key=value,key=value::data.
type Command struct {
	Name  string // in lower case
	Props map[string]string
	Data  string
}

var (
	unescapeData = strings.NewReplacer("%0D", "\r", "%0d", "\r", "%0A", "\n", "%0a", "\n", "%25", "%")
	unescapeProp = strings.NewReplacer("%0D", "\r", "%0d", "\r", "%0A", "\n", "%0a", "\n", "%3A", ":", "%3a", ":", "%2C", ",", "%2c", ",", "%25", "%")
	unescapeOld  = strings.NewReplacer("%3B", ";", "%3b", ";", "%0D", "\r", "%0d", "\r", "%0A", "\n", "%0a", "\n", "%5D", "]", "%5d", "]", "%25", "%")
)

// Parse reads a line that is a command. ok is false when it is none. The old
// form ##[name]data is read too.
func Parse(line string) (c Command, ok bool) {
	line = strings.TrimLeft(line, " \t")
	if strings.HasPrefix(line, "##[") {
		return parseOld(line)
	}
	return parseNew(line)
}

// parseNew reads ::name key=value,key=value::data.
func parseNew(line string) (Command, bool) {
	rest, found := strings.CutPrefix(strings.TrimLeft(line, " \t"), "::")
	if !found {
		return Command{}, false
	}
	head, data, found := strings.Cut(rest, "::")
	if !found {
		return Command{}, false
	}
	return build(head, ",", unescapeProp, unescapeData.Replace(data))
}

// parseOld reads ##[name key=value;key=value]data, which may stand anywhere in
// a line.
func parseOld(line string) (Command, bool) {
	_, rest, found := strings.Cut(line, "##[")
	if !found {
		return Command{}, false
	}
	head, data, found := strings.Cut(rest, "]")
	if !found {
		return Command{}, false
	}
	return build(head, ";", unescapeOld, unescapeOld.Replace(data))
}

func build(head, separator string, unescape *strings.Replacer, data string) (Command, bool) {
	name, props, _ := strings.Cut(head, " ")
	if name == "" {
		return Command{}, false
	}
	c := Command{Name: strings.ToLower(name), Props: map[string]string{}, Data: data}
	for p := range strings.SplitSeq(props, separator) {
		key, value, ok := strings.Cut(strings.TrimSpace(p), "=")
		if ok && key != "" {
			c.Props[strings.ToLower(key)] = unescape.Replace(value)
		}
	}
	return c, true
}

// Annotation is an error, warning or notice at a place in the repository.
type Annotation struct {
	Level        string `json:"level"` // "error", "warning", "notice"
	Message      string `json:"message"`
	Title        string `json:"title,omitempty"`
	File         string `json:"file,omitempty"`
	Line         int    `json:"line,omitempty"`
	EndLine      int    `json:"end_line,omitempty"`
	Column       int    `json:"column,omitempty"`
	EndColumn    int    `json:"end_column,omitempty"`
	Step         int    `json:"step,omitempty"` // number of the step, from 1
	FromWorkflow bool   `json:"-"`              // File is the workflow file
}

// Annotation reads the command as one; ok is false for other commands.
func (c Command) Annotation() (Annotation, bool) {
	if c.Name != "error" && c.Name != "warning" && c.Name != "notice" {
		return Annotation{}, false
	}
	number := func(key string) int {
		n, err := strconv.Atoi(c.Props[key])
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	return Annotation{
		Level: c.Name, Message: c.Data, Title: c.Props["title"], File: c.Props["file"], Line: number("line"),
		EndLine: number("endline"), Column: number("col"), EndColumn: number("endcolumn"),
	}.normal(), true
}

// normal repairs lines and columns as the runner does: an end alone is the
// beginning too; columns need a line, and one line only; what ends before it
// begins is left out.
func (a Annotation) normal() Annotation {
	if a.Line == 0 {
		a.Line = a.EndLine
	}
	if a.Column == 0 {
		a.Column = a.EndColumn
	}
	if a.Line == 0 || (a.EndLine != 0 && a.EndLine != a.Line) {
		a.Column, a.EndColumn = 0, 0
	}
	if a.EndLine != 0 && a.EndLine < a.Line {
		a.Line, a.EndLine = 0, 0
	}
	if a.EndColumn != 0 && a.EndColumn < a.Column {
		a.Column, a.EndColumn = 0, 0
	}
	return a
}

// Pair is one assignment of an environment file.
type Pair struct{ Name, Value string }

// ParseFile reads name=value lines and name<<DELIMITER blocks.
func ParseFile(content string) ([]Pair, error) {
	var pairs []Pair
	lines := strings.Split(strings.ReplaceAll(strings.TrimPrefix(content, "\ufeff"), "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if line == "" {
			continue
		}
		equals, heredoc := strings.Index(line, "="), strings.Index(line, "<<")
		switch {
		case equals >= 0 && (heredoc < 0 || equals < heredoc):
			if equals == 0 {
				return nil, fmt.Errorf("line %d: %q has no name before \"=\"", i+1, short(line))
			}
			pairs = append(pairs, Pair{line[:equals], line[equals+1:]})
		case heredoc >= 0:
			name, delimiter := line[:heredoc], line[heredoc+2:]
			if name == "" || delimiter == "" {
				return nil, fmt.Errorf("line %d: %q needs a name before and a delimiter after \"<<\"", i+1, short(line))
			}
			end := i + 1
			for end < len(lines) && lines[end] != delimiter {
				end++
			}
			if end == len(lines) {
				return nil, fmt.Errorf("line %d: the value of %q has no closing line %q", i+1, short(name), short(delimiter))
			}
			pairs = append(pairs, Pair{name, strings.Join(lines[i+1:end], "\n")})
			i = end
		default:
			return nil, fmt.Errorf("line %d: %q is neither name=value nor name<<DELIMITER", i+1, short(line))
		}
	}
	return pairs, nil
}

// ParsePath reads GITHUB_PATH: one directory a line.
func ParsePath(content string) []string {
	var dirs []string
	for line := range strings.Lines(content) {
		if line = strings.TrimSpace(line); line != "" {
			dirs = append(dirs, line)
		}
	}
	return dirs
}

// short keeps a quoted line from filling a log: it may hold a secret's start,
// so only its beginning is shown.
func short(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
