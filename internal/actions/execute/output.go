package execute

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/mask"
)

// begin opens the next step.
func (j *job) begin(name string) {
	j.number++
	j.tail, j.place = nil, command.Annotation{}
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

// output is where a step's process writes: workflow commands are acted on, what
// matchers find becomes annotations, the rest is masked and logged.
func (j *job) output(st *running) *mask.Writer {
	allow, _ := st.env.Get("ACTIONS_ALLOW_UNSECURE_COMMANDS")
	session := &command.Session{Matchers: &j.matchers, Workspace: j.workspace(), AllowUnsecure: strings.EqualFold(expr.Text(allow), "true")}
	return &mask.Writer{Masker: j.masker, Out: j.line, Raw: func(line string) bool {
		e := session.Read(line)
		if e.Kind == command.Text {
			return true // masked as part of the stream
		}
		if e.Kind == command.AddMask {
			j.masker.Add(e.Value)
		}
		if e.Kind != command.Debug || j.debug {
			for _, text := range e.Log {
				j.log(text)
			}
		}
		j.act(st, e)
		return false
	}}
}

// act carries out what a line of a step asks for.
func (j *job) act(st *running, e command.Event) {
	switch e.Kind {
	case command.Annotate:
		a := e.Annotation
		a.File = j.inRepository(a.File)
		if a.Level == "error" && j.place.File == "" {
			j.place = a
		}
		j.annotate(a)
	case command.SetOutput:
		st.outputs.Set(e.Name, e.Value)
	case command.SaveState:
		st.state[e.Name] = e.Value
	case command.SetEnv:
		if err := j.setEnv(e.Name, e.Value); err != nil {
			st.problem = cmpError(st.problem, err)
		}
	case command.AddPath:
		j.addPath(e.Value)
	case command.AddMatcher:
		if err := j.addMatcher(e.Value); err != nil {
			j.log("##[warning]add-matcher: " + err.Error())
		}
	case command.RemoveMatcher:
		j.removeMatcher(e.Name, e.Value)
	case command.Failed:
		st.problem = cmpError(st.problem, shownError{errors.New(e.Problem)})
	}
}

// maxMatcher bounds the file of problem matchers, in bytes.
const maxMatcher = 1 << 20

func (j *job) readMatchers(file string) ([]command.Matcher, error) {
	root, name, ok := j.locate(file)
	if !ok {
		return nil, fmt.Errorf("%s is not in a folder of the job", file)
	}
	content, err := readTemp(root, name, maxMatcher)
	if err != nil {
		return nil, err
	}
	if content == "" {
		return nil, fmt.Errorf("%s is not there or empty", file)
	}
	return command.ParseMatchers([]byte(content))
}

func (j *job) addMatcher(file string) error {
	list, err := j.readMatchers(file)
	if err != nil {
		return err
	}
	if err := j.matchers.Add(list...); err != nil {
		return err
	}
	for _, m := range list {
		j.log("##[add-matcher]" + m.Owner)
	}
	return nil
}

func (j *job) removeMatcher(owner, file string) {
	if owner != "" {
		j.matchers.Remove(owner)
		return
	}
	list, err := j.readMatchers(file)
	if err != nil {
		j.log("##[warning]remove-matcher: " + err.Error())
		return
	}
	for _, m := range list {
		j.matchers.Remove(m.Owner)
	}
}

// locate finds a path of the job in one of its folders.
func (j *job) locate(file string) (root *os.Root, name string, ok bool) {
	if !path.IsAbs(file) {
		file = path.Join(j.workspace(), file)
	}
	file = path.Clean(file)
	for _, p := range []struct {
		dir  string
		root *os.Root
	}{{j.workspace(), j.files}, {tempDir, j.temp}, {actionsDir, j.actions}, {homeDir, j.home}} {
		if name, ok := strings.CutPrefix(file, p.dir+"/"); ok {
			return p.root, name, true
		}
	}
	return nil, "", false
}

// inRepository turns a path of the workspace into one of the repository.
func (j *job) inRepository(file string) string {
	return strings.TrimPrefix(strings.TrimPrefix(file, j.workspace()+"/"), "./")
}
