// Package command reads what a step says to its runner: workflow commands on
// standard output and the environment files.
//
// Input: one line, or the content of GITHUB_OUTPUT, GITHUB_ENV, GITHUB_STATE or
// GITHUB_PATH. Output: a [Command], or names and values in order.
//
// Invariants: pure; errors carry the line of the file.
//
// Start reading at [Parse] and [ParseFile].
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
)

// Parse reads a line. ok is false when it is no command. The old form
// ##[name]data is read too.
func Parse(line string) (c Command, ok bool) {
	line = strings.TrimLeft(line, " \t")
	if rest, old := strings.CutPrefix(line, "##["); old {
		head, data, found := strings.Cut(rest, "]")
		if !found {
			return Command{}, false
		}
		return build(head, ";", data)
	}
	rest, found := strings.CutPrefix(line, "::")
	if !found {
		return Command{}, false
	}
	head, data, found := strings.Cut(rest, "::")
	if !found {
		return Command{}, false
	}
	return build(head, ",", data)
}

func build(head, separator, data string) (Command, bool) {
	name, props, _ := strings.Cut(head, " ")
	if name == "" {
		return Command{}, false
	}
	c := Command{Name: strings.ToLower(name), Props: map[string]string{}, Data: unescapeData.Replace(data)}
	for p := range strings.SplitSeq(props, separator) {
		key, value, ok := strings.Cut(strings.TrimSpace(p), "=")
		if ok && key != "" {
			c.Props[strings.ToLower(key)] = unescapeProp.Replace(value)
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
	}, true
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
