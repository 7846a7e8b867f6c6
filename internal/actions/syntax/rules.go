package syntax

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/schedule/cron"
	"go.yaml.in/yaml/v4"
)

// maxID bounds the ids of jobs and steps, in bytes.
const maxID = 100

var (
	legalID = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)
	// callPattern is a reusable workflow: of this repository or of another.
	callPattern = regexp.MustCompile(`^([.$]/\.github/workflows/[^/@]+\.ya?ml|[^/@\s]+/[^/@\s]+/\.github/workflows/[^/@]+\.ya?ml@\S+)$`)
	// selfPattern is an action of this repository, at the commit that runs.
	selfPattern = regexp.MustCompile(`^\$/[^@\s]+$`)
	// actionPattern is an action of another repository.
	actionPattern = regexp.MustCompile(`^[^/@\s]+/[^/@\s]+(/[^@\s]*)?@\S+$`)
)

// Keys of the two kinds of jobs that the other does not have.
var (
	stepsKeys = []string{"runs-on", "steps", "timeout-minutes", "cancel-timeout-minutes", "continue-on-error", "container", "services", "env",
		"environment", "outputs", "defaults", "snapshot"}
	callKeysOnly = []string{"with", "secrets"}
)

// checkJob checks what belongs together in one job.
func (d *document) checkJob(j *Job, key, n *yaml.Node) {
	d.checkID(key, "job")
	if n.Kind != yaml.MappingNode {
		d.refuse(n, "", "job %q has no steps", j.ID)
		return
	}
	if get(n, "uses") != nil {
		for _, p := range d.pairs(n) {
			if slices.Contains(stepsKeys, p.key.Value) {
				d.refuse(p.key, "a job that calls a reusable workflow has name, uses, with, secrets, needs, if, strategy, permissions and concurrency", "key %q cannot stand beside %q", p.key.Value, "uses")
			}
		}
		if !callPattern.MatchString(j.Uses.Value) && j.Uses.Value != "" {
			d.refuse(get(n, "uses"), "write ./.github/workflows/name.yml or owner/repository/.github/workflows/name.yml@ref", "%q is not a reusable workflow", short(j.Uses.Value))
		}
		return
	}
	for _, p := range d.pairs(n) {
		if slices.Contains(callKeysOnly, p.key.Value) {
			d.refuse(p.key, "it belongs to a job that calls a reusable workflow with `uses`", "key %q has no meaning in job %q", p.key.Value, j.ID)
		}
	}
	if get(n, "runs-on") == nil {
		d.refuse(key, "", "key %q is missing in job %q", "runs-on", j.ID)
	}
	if get(n, "steps") == nil {
		d.warn(key, "", "job %q has no steps", j.ID)
	}
	d.checkSteps(get(n, "steps"), map[string]int{})
	if c := get(n, "concurrency"); c != nil {
		d.checkQueue(c)
	}
}

func (d *document) checkQueue(n *yaml.Node) {
	if textAt(n, "queue").Value == "max" && isTrue(get(n, "cancel-in-progress")) {
		d.refuse(get(n, "queue"), "remove one of them", "`queue: max` keeps everything, `cancel-in-progress: true` keeps nothing")
	}
}

func (d *document) checkID(n *yaml.Node, what string) {
	switch {
	case !legalID.MatchString(n.Value):
		d.refuse(n, "ids start with a letter or _ and contain letters, digits, _ and -", "%q is not a valid %s id", short(n.Value), what)
	case len(n.Value) >= maxID:
		d.refuse(n, "", "the %s id %q is not shorter than %d characters", what, short(n.Value), maxID)
	case strings.HasPrefix(n.Value, "__"):
		d.refuse(n, "", "%q is not a valid %s id: ids that start with __ are reserved", n.Value, what)
	}
}

// stepKinds are the keys of which a step has exactly one.
var stepKinds = []string{"run", "uses", "wait", "wait-all", "cancel", "parallel"}

// checkSteps checks each step; ids are those of the job so far, with lines.
func (d *document) checkSteps(steps *yaml.Node, ids map[string]int) {
	if steps == nil || steps.Kind != yaml.SequenceNode {
		return
	}
	for _, s := range steps.Content {
		if s.Kind != yaml.MappingNode {
			d.refuse(s, "", "a step is a mapping with one of run, uses")
			continue
		}
		d.checkStep(s, ids)
	}
}

func (d *document) checkStep(s *yaml.Node, ids map[string]int) {
	kind := ""
	for _, p := range d.pairs(s) {
		switch {
		case !slices.Contains(stepKinds, p.key.Value):
		case kind != "":
			d.refuse(p.key, "make two steps of it", "a step cannot have %q and %q", kind, p.key.Value)
		default:
			kind = p.key.Value
		}
	}
	only := func(allowed string, keys ...string) {
		for _, key := range keys {
			if n := get(s, key); n != nil && kind != "" && !slices.Contains(strings.Fields(allowed), kind) {
				d.refuse(n, "", "key %q has no meaning in a step with %q", key, kind)
			}
		}
	}
	only("run", "shell", "working-directory")
	only("uses", "with")
	only("run uses", "env", "background", "timeout-minutes", "if", "cancel-timeout-minutes")
	switch kind {
	case "":
		d.refuse(s, "", "a step needs one of %q and %q", "run", "uses")
	case "uses":
		d.checkUses(get(s, "uses"))
	case "wait", "cancel":
		d.checkTargets(get(s, kind), ids)
	case "wait-all":
		if n := get(s, kind); scalarOf(n) == false {
			d.refuse(n, "", "`wait-all` is true or has no value")
		}
	case "parallel":
		d.checkSteps(get(s, kind), ids)
	}
	id := get(s, "id")
	if id == nil || id.Kind != yaml.ScalarNode {
		return
	}
	d.checkID(id, "step")
	folded := strings.ToLower(id.Value)
	if line := ids[folded]; line > 0 {
		d.refuse(id, fmt.Sprintf("line %d has it too; upper and lower case make no difference", line), "step id %q is used twice", id.Value)
	}
	ids[folded] = id.Line
}

// checkTargets looks the steps up that a step waits for or cancels.
func (d *document) checkTargets(n *yaml.Node, ids map[string]int) {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	for _, target := range nodes {
		if target.Value != "" && ids[strings.ToLower(target.Value)] == 0 {
			d.refuse(target, "it must stand before this step", "there is no step with the id %q", short(target.Value))
		}
	}
}

func (d *document) checkUses(n *yaml.Node) {
	uses := n.Value
	switch {
	case n.Kind != yaml.ScalarNode || uses == "" || strings.Contains(uses, "${{"): // reported by the shape
	case selfPattern.MatchString(uses), strings.HasPrefix(uses, "./"), strings.HasPrefix(uses, `.\`), uses == ".", strings.HasPrefix(uses, "docker://"):
	case !actionPattern.MatchString(uses):
		d.refuse(n, "write owner/repository[/path]@ref, ./path, $/path or docker://image", "%q is not an action", short(uses))
	}
}

// checkRules checks what belongs together in the whole workflow.
func (d *document) checkRules(w *Workflow, top *yaml.Node) {
	if c := get(top, "concurrency"); c != nil {
		d.checkQueue(c)
	}
	for _, p := range d.pairs(get(top, "jobs")) {
		d.checkNeeds(w, w.Job(p.key.Value), get(p.value, "needs"))
	}
	jobs := get(top, "jobs")
	switch {
	case len(w.Jobs) == 0 && jobs != nil:
		d.refuse(jobs, "", "the workflow has no jobs")
	case len(w.Jobs) > 0 && !d.fatal():
		d.checkCycle(w)
	}
	if on := get(top, "on"); on != nil && len(w.Events) == 0 {
		d.refuse(on, "", "no event is named in `on`")
	}
	for i := range w.Events {
		d.checkEvent(&w.Events[i])
	}
}

// checkNeeds looks every needed job up.
func (d *document) checkNeeds(w *Workflow, j *Job, n *yaml.Node) {
	if n == nil {
		return
	}
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	for _, need := range nodes {
		if need.Kind != yaml.ScalarNode || need.Value == "" || w.Job(need.Value) != nil {
			continue
		}
		var names []string
		for _, other := range w.Jobs {
			if other != j {
				names = append(names, other.ID)
			}
		}
		hint := "this file has no other job"
		if len(names) > 0 {
			hint = "the other jobs of this file are " + short(strings.Join(names, ", "))
		}
		d.refuse(need, hint, "job %q needs job %q, which does not exist", j.ID, short(need.Value))
	}
}

// checkCycle finds jobs that wait for each other.
func (d *document) checkCycle(w *Workflow) {
	done, path := map[string]bool{}, []string{}
	var visit func(j *Job) bool
	visit = func(j *Job) bool {
		if i := slices.Index(path, j.ID); i >= 0 {
			first := w.Job(path[i])
			d.report(first.Line, 1, true, "jobs need each other: "+short(strings.Join(append(path[i:], j.ID), " → ")), "")
			return false
		}
		if done[j.ID] {
			return true
		}
		done[j.ID] = true
		path = append(path, j.ID)
		defer func() { path = path[:len(path)-1] }()
		for _, need := range j.Needs {
			if !visit(w.Job(need)) {
				return false
			}
		}
		return true
	}
	for _, j := range w.Jobs {
		if !visit(j) {
			return
		}
	}
}

// checkEvent checks what belongs together in one trigger.
func (d *document) checkEvent(e *Event) {
	for _, name := range []string{"branches", "tags", "paths"} {
		if e.Lines[name] > 0 && e.Lines[name+"-ignore"] > 0 {
			d.report(e.Lines[name+"-ignore"], 1, true, fmt.Sprintf("both %q and %q are given for the event %q", name, name+"-ignore", e.Name),
				fmt.Sprintf("keep %q and exclude with patterns that start with \"!\"", name))
		}
	}
	if e.Name == "workflow_run" && len(e.Workflows) == 0 {
		d.report(e.Line, 1, false, "workflow_run without `workflows` never starts a run", "list the names of workflows")
	}
	for _, c := range e.Crons {
		d.checkCron(c)
	}
	for _, in := range e.Inputs {
		d.checkInput(e, in)
	}
}

// minInterval is the shortest time between scheduled runs on GitHub.
const minInterval = 5 * time.Minute

func (d *document) checkCron(c Cron) {
	s, err := cron.Parse(c.Expr)
	if err != nil {
		d.report(c.Line, 1, true, "bad cron expression: "+err.Error(), "")
		return
	}
	if s.Shortest() < minInterval {
		d.report(c.Line, 1, false, "scheduled runs start at most every 5 minutes", "")
	}
	if s.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), nil).IsZero() {
		d.report(c.Line, 1, false, fmt.Sprintf("%q names a day that never comes", c.Expr), "")
	}
	if _, err := cron.Zone(c.Zone); err != nil {
		d.report(c.Line, 1, true, err.Error(), "")
	}
}

func (d *document) checkInput(e *Event, in Input) {
	at := max(in.DefaultText.Line, in.Line)
	switch {
	case in.Type == "choice" && len(in.Options) == 0:
		d.report(in.Line, 1, true, fmt.Sprintf("input %q is a choice without `options`", in.Name), "")
	case in.Type != "choice" && in.Options != nil && e.Name == "workflow_dispatch":
		d.report(in.Line, 1, false, fmt.Sprintf("input %q has `options`, which only a choice looks at", in.Name), "add `type: choice`")
	case !in.DefaultText.IsSet() || in.Default == "" || strings.Contains(in.Default, "${{"):
	case in.Type == "choice" && !slices.Contains(in.Options, in.Default):
		d.report(at, 1, true, fmt.Sprintf("the default %q of input %q is not among its options", in.Default, in.Name), "")
	case in.Type == "boolean" && in.Default != "true" && in.Default != "false":
		d.report(at, 1, true, fmt.Sprintf("the default %q of input %q is not true or false", in.Default, in.Name), "")
	case in.Type == "number" && !isNumber(in.Default):
		d.report(at, 1, true, fmt.Sprintf("the default %q of input %q is not a number", in.Default, in.Name), "")
	}
}

func isNumber(s string) bool {
	_, ok := plainScalar(s).(float64)
	return ok
}
