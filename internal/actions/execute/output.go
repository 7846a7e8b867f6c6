package execute

import (
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/mask"
)

// begin opens the next step.
func (j *job) begin(name string) {
	j.number++
	j.tail, j.place, j.stopped = nil, command.Annotation{}, ""
	j.report.StepStarted(Step{Number: j.number, Name: j.masker.Text(name)})
}

func (j *job) finish(s Step) {
	s.Name = j.masker.Text(s.Name)
	j.report.StepDone(s)
}

// log writes lines of the engine itself.
func (j *job) log(text string) {
	for line := range strings.SplitSeq(text, "\n") {
		j.line(j.masker.Text(line))
	}
}

// line is one masked line.
func (j *job) line(line string) {
	line = strings.ToValidUTF8(line, "\ufffd")
	if !strings.HasPrefix(line, "##[") {
		if len(j.tail) == tailLines {
			j.tail = slices.Delete(j.tail, 0, 1)
		}
		j.tail = append(j.tail, line)
	}
	j.report.Log(line)
}

// output is where a step's process writes: workflow commands are acted on, the
// rest is masked and logged.
func (j *job) output(onCommand func(command.Command) bool) *mask.Writer {
	return &mask.Writer{Masker: j.masker, Out: j.line, Raw: func(line string) bool {
		c, ok := command.Parse(line)
		if !ok {
			return true
		}
		return j.command(c, onCommand)
	}}
}

// command acts on a workflow command. It returns whether the line is shown as
// it is.
func (j *job) command(c command.Command, onCommand func(command.Command) bool) bool {
	if j.stopped != "" {
		if c.Name == strings.ToLower(j.stopped) {
			j.stopped = ""
			return false
		}
		return true
	}
	if a, ok := c.Annotation(); ok {
		a.File = j.inRepository(a.File)
		if a.Level == "error" && j.place.File == "" {
			j.place = a
		}
		j.annotate(a)
		j.log("##[" + a.Level + "]" + a.Message)
		return false
	}
	switch c.Name {
	case "group", "endgroup":
		j.log("##[" + c.Name + "]" + c.Data)
	case "debug":
		if j.debug {
			j.log("##[debug]" + c.Data)
		}
	case "add-mask":
		j.masker.Add(c.Data)
		j.log("::add-mask::***")
	case "stop-commands":
		if c.Data != "" {
			j.stopped = c.Data
		}
	case "echo", "add-matcher", "remove-matcher":
		// They change only how a log looks.
	case "set-output", "save-state":
		if onCommand != nil && onCommand(c) {
			j.log("##[warning]The `" + c.Name + "` command is deprecated; write to its file instead.")
			return false
		}
		return true
	case "set-env", "add-path":
		j.log("##[error]The `" + c.Name + "` command was removed by GitHub; write to its file instead.")
	default:
		return true
	}
	return false
}

// inRepository turns a path of the workspace into one of the repository.
func (j *job) inRepository(file string) string {
	return strings.TrimPrefix(strings.TrimPrefix(file, j.workspace()+"/"), "./")
}
