package command

import (
	"fmt"
	"path"
	"strings"
)

// Kind is what a line means.
type Kind int

// The kinds of events. The comment says which fields are set beside Log.
const (
	Text          Kind = iota // nothing
	Annotate                  // Annotation
	Group                     // Value: its title
	EndGroup                  // nothing
	Debug                     // Value; the log shows it only with debugging
	AddMask                   // Value: the secret
	SetOutput                 // Name, Value
	SaveState                 // Name, Value
	SetEnv                    // Name, Value; only with AllowUnsecure
	AddPath                   // Value; only with AllowUnsecure
	AddMatcher                // Value: path of the file in the job; the caller reads it and calls [Matchers.Add]
	RemoveMatcher             // Name: the owner, or Value: path of the file whose owners go
	Control                   // nothing: stop-commands, echo
	Failed                    // Problem: the command could not be carried out; the step fails
)

// Event is what one line of a step means.
type Event struct {
	Kind       Kind
	Name       string
	Value      string
	Annotation Annotation
	// Log is what the log shows, line by line, not masked yet. It may be empty.
	Log []string
	// Problem says why a command failed.
	Problem string
}

// Session reads the output of one step. It is not safe for concurrent use.
type Session struct {
	// Matchers are those of the job; nil for none.
	Matchers *Matchers
	// Workspace is where relative paths of problems start, in the job.
	Workspace string
	// Locate turns an absolute path of the job into one in the repository; ok is
	// false when no such file is in it. nil takes what is below Workspace.
	Locate func(file string) (inRepository string, ok bool)
	// Echo says that commands are shown too (`::echo::on`).
	Echo bool
	// AllowUnsecure is ACTIONS_ALLOW_UNSECURE_COMMANDS.
	AllowUnsecure bool

	stopped string // token that ends stop-commands
	running *runningMatches
}

// known are the commands that are acted on; everything else is text.
func known(name string) bool {
	switch name {
	case "error", "warning", "notice", "group", "endgroup", "debug", "add-mask", "set-output", "save-state", "set-env", "add-path",
		"add-matcher", "remove-matcher", "stop-commands", "echo":
		return true
	}
	return false
}

// Read says what a line without its end means.
func (s *Session) Read(line string) Event {
	if c, ok := s.command(line); ok {
		if e, acted := s.act(c, line); acted {
			return e
		}
	}
	if s.Matchers != nil {
		if a, ok := s.match(line); ok {
			return Event{Kind: Annotate, Annotation: a, Log: []string{"##[" + a.Level + "]" + line}}
		}
	}
	return Event{Log: []string{line}}
}

// command parses a line. Only commands that are known, or the token that is
// waited for, are commands.
func (s *Session) command(line string) (Command, bool) {
	if !strings.Contains(line, "::") && !strings.Contains(line, "##[") {
		return Command{}, false
	}
	for _, parse := range []func(string) (Command, bool){parseNew, parseOld} {
		if c, ok := parse(line); ok && (known(c.Name) || (s.stopped != "" && c.Name == s.stopped)) {
			return c, true
		}
	}
	return Command{}, false
}

// act carries a command out; acted is false when the line is text after all.
func (s *Session) act(c Command, line string) (e Event, acted bool) {
	if s.stopped != "" {
		if c.Name != s.stopped {
			return Event{}, false
		}
		s.stopped = ""
		return Event{Kind: Control, Log: []string{line}}, true
	}
	e = s.effect(c, line)
	quiet := c.Name == "add-mask" || c.Name == "debug" || c.Name == "stop-commands" || e.Kind == Annotate
	if s.Echo && !quiet {
		e.Log = append([]string{line}, e.Log...)
	}
	return e, true
}

func (s *Session) effect(c Command, line string) Event {
	if a, ok := c.Annotation(); ok {
		return Event{Kind: Annotate, Annotation: a, Log: lines("##[" + a.Level + "]" + a.Message)}
	}
	failed := func(format string, args ...any) Event {
		text := fmt.Sprintf(format, args...)
		return Event{Kind: Failed, Problem: text, Log: lines("##[error]" + text)}
	}
	name := c.Props["name"]
	switch c.Name {
	case "group":
		return Event{Kind: Group, Value: c.Data, Log: []string{"##[group]" + oneLine(c.Data)}}
	case "endgroup":
		return Event{Kind: EndGroup, Log: []string{"##[endgroup]"}}
	case "debug":
		return Event{Kind: Debug, Value: c.Data, Log: lines("##[debug]" + c.Data)}
	case "add-mask":
		if strings.TrimSpace(c.Data) == "" {
			return Event{Kind: Control, Log: []string{"##[warning]Can't add secret mask for empty string in ##[add-mask] command."}}
		}
		e := Event{Kind: AddMask, Value: c.Data}
		if s.Echo {
			e.Log = []string{"::add-mask::***"}
		}
		return e
	case "set-output", "save-state", "set-env":
		if name == "" {
			return failed("Unable to process command '%s' successfully. Required field 'name' is missing in ##[%s] command.", oneLine(line), c.Name)
		}
		return s.assign(c, name)
	case "add-path":
		return s.assign(c, "")
	case "add-matcher":
		if c.Data == "" {
			return Event{Kind: Control, Log: []string{"##[warning]File path must be specified."}}
		}
		return Event{Kind: AddMatcher, Value: c.Data}
	case "remove-matcher":
		if owner := c.Props["owner"]; (owner == "") == (c.Data == "") {
			return Event{Kind: Control, Log: []string{"##[warning]Give either an owner name or a file path in the ##[remove-matcher] command."}}
		}
		return Event{Kind: RemoveMatcher, Name: c.Props["owner"], Value: c.Data}
	case "stop-commands":
		if c.Data == "" || known(strings.ToLower(c.Data)) {
			return failed("Invalid stop-commands token '%s': use a random text that is no command.", oneLine(c.Data))
		}
		s.stopped = strings.ToLower(c.Data)
		return Event{Kind: Control, Log: []string{line}}
	}
	switch strings.ToLower(strings.TrimSpace(c.Data)) { // echo
	case "on":
		s.Echo = true
	case "off":
		s.Echo = false
	default:
		return failed("Invalid echo command value. Possible values can be: 'on', 'off'. Current value is: '%s'.", oneLine(c.Data))
	}
	return Event{Kind: Control}
}

// assign reads the commands that environment files replaced.
func (s *Session) assign(c Command, name string) Event {
	e := Event{Name: name, Value: c.Data}
	const advice = "see https://github.blog/changelog/2022-10-11-github-actions-deprecating-save-state-and-set-output-commands/"
	switch c.Name {
	case "set-output":
		e.Kind = SetOutput
		e.Log = []string{"##[warning]The `set-output` command is deprecated: write to the file in GITHUB_OUTPUT; " + advice}
		return e
	case "save-state":
		e.Kind = SaveState
		e.Log = []string{"##[warning]The `save-state` command is deprecated: write to the file in GITHUB_STATE; " + advice}
		return e
	case "set-env":
		e.Kind = SetEnv
	default:
		e.Kind = AddPath
	}
	if !s.AllowUnsecure {
		text := fmt.Sprintf("The `%s` command is disabled, as on GitHub: write to the file in %s, or set ACTIONS_ALLOW_UNSECURE_COMMANDS to true.", c.Name,
			map[Kind]string{SetEnv: "GITHUB_ENV", AddPath: "GITHUB_PATH"}[e.Kind])
		return Event{Kind: Failed, Problem: text, Log: []string{"##[error]" + text}}
	}
	if e.Kind == SetEnv && strings.EqualFold(name, "NODE_OPTIONS") {
		const text = "Can't update NODE_OPTIONS environment variable using ::set-env:: command."
		return Event{Kind: Control, Log: []string{"##[error]" + text}}
	}
	return e
}

// place turns the file of a problem into one of the repository, or "".
func (s *Session) place(file, fromPath string) string {
	if strings.TrimSpace(file) == "" {
		return ""
	}
	if dir := path.Dir(fromPath); !path.IsAbs(file) && strings.TrimSpace(fromPath) != "" && dir != "." {
		file = path.Join(dir, file)
	}
	if !path.IsAbs(file) {
		file = path.Join("/", s.Workspace, file)
	}
	file = path.Clean(file)
	if s.Locate != nil {
		found, ok := s.Locate(file)
		if !ok {
			return ""
		}
		return found
	}
	found, ok := strings.CutPrefix(file, strings.TrimSuffix(path.Join("/", s.Workspace), "/")+"/")
	if !ok {
		return ""
	}
	return found
}

func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
}

func oneLine(text string) string { return strings.Join(lines(text), " ") }
