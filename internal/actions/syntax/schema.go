package syntax

// shape says what may stand at one place of a workflow file, as GitHub's own
// parser does. Scalars, lists and mappings may all be allowed at once.
type shape struct {
	scalar   scalar
	nonEmpty bool     // of text
	values   []string // the only texts allowed; nil: any
	item     *shape   // of a list; nil: no list
	keys     []entry  // of a mapping
	loose    *shape   // of keys that are not listed
	tolerant bool     // GitHub ignores unknown keys and values here
	required []string

	// What expressions may name here, in addition to what the place around
	// allows. Without any, no expressions are allowed.
	contexts, functions []string
	key                 string // for people: "jobs.<job_id>.if"; "" is the place around
	condition           bool   // an expression also without ${{ }}
}

type entry struct {
	name string
	*shape
}

// scalar are the kinds of scalar that are allowed. Text takes numbers,
// booleans and null too, as their text.
type scalar uint8

const (
	text scalar = 1 << iota
	number
	boolean
	null
)

func (s *shape) isMapping() bool { return s.keys != nil || s.loose != nil }

func (s *shape) find(name string) *shape {
	for _, e := range s.keys {
		if e.name == name {
			return e.shape
		}
	}
	return nil
}

// in returns the shape with contexts of its own.
func (s shape) in(key string, contexts []string, functions ...string) *shape {
	s.key, s.contexts, s.functions = key, contexts, functions
	return &s
}

var (
	runContexts  = []string{"github", "inputs", "vars"}
	needContexts = []string{"github", "inputs", "vars", "needs"}
	jobContexts  = []string{"github", "inputs", "vars", "needs", "strategy", "matrix"}
	envContexts  = []string{"github", "inputs", "vars", "needs", "strategy", "matrix", "secrets"}
	// outside is what a job's runner knows, without secrets.
	outsideContexts = []string{"github", "inputs", "vars", "needs", "strategy", "matrix", "steps", "job", "runner", "env"}
	stepContexts    = []string{"github", "inputs", "vars", "needs", "strategy", "matrix", "secrets", "steps", "job", "runner", "env"}
)

var (
	anyText   = &shape{scalar: text}
	someText  = &shape{scalar: text, nonEmpty: true}
	aBoolean  = &shape{scalar: boolean}
	aNumber   = &shape{scalar: number}
	someTexts = &shape{scalar: text, nonEmpty: true, item: someText}
	aScalar   = &shape{scalar: text | number | boolean}
	anything  = &shape{scalar: text | number | boolean | null}
)

func oneOf(values ...string) *shape { return &shape{scalar: text, values: values} }

// root is the shape of a whole file.
func root() *shape {
	anything := *anything
	anything.item, anything.loose = &anything, &anything
	return &shape{
		required: []string{"on", "jobs"},
		keys: []entry{
			{"name", anyText}, {"description", anyText}, {"run-name", anyText.in("run-name", runContexts)}, {"on", triggers()},
			{"permissions", permissionsShape()}, {"env", shape{loose: anyText}.in("env", []string{"github", "inputs", "vars", "secrets"})},
			{"defaults", defaultsShape(&shape{keys: runDefaults()})}, {"concurrency", concurrencyShape("concurrency", runContexts)},
			{"jobs", &shape{loose: jobShape(&anything)}},
		},
	}
}

func runDefaults() []entry { return []entry{{"shell", someText}, {"working-directory", someText}} }

func defaultsShape(run *shape) *shape { return &shape{keys: []entry{{"run", run}}} }

func concurrencyShape(key string, contexts []string) *shape {
	return shape{
		scalar: text, required: []string{"group"},
		keys: []entry{{"group", someText}, {"cancel-in-progress", aBoolean}, {"queue", oneOf("single", "max")}},
	}.in(key, contexts)
}

// Scopes are what `permissions` may name, with the levels of each.
var scopes = []struct {
	name   string
	levels []string
}{
	{"actions", levels}, {"artifact-metadata", levels}, {"attestations", levels}, {"checks", levels}, {"contents", levels},
	{"copilot-requests", []string{"write", "none"}}, {"deployments", levels}, {"discussions", levels}, {"id-token", []string{"write", "none"}},
	{"issues", levels}, {"models", []string{"read", "none"}}, {"packages", levels}, {"pages", levels}, {"pull-requests", levels},
	{"repository-projects", levels}, {"security-events", levels}, {"statuses", levels}, {"vulnerability-alerts", []string{"read", "none"}},
}

var levels = []string{"read", "write", "none"}

func permissionsShape() *shape {
	s := oneOf("read-all", "write-all")
	for _, scope := range scopes {
		s.keys = append(s.keys, entry{scope.name, oneOf(scope.levels...)})
	}
	return s
}

// jobShape has the keys of both kinds of jobs: with steps, and calling a
// reusable workflow. The reader tells them apart.
func jobShape(anything *shape) *shape {
	filter := &shape{item: &shape{loose: anything}}
	return &shape{keys: []entry{
		{"name", anyText.in("jobs.<job_id>.name", jobContexts)},
		{"needs", someTexts},
		{"if", condition("jobs.<job_id>.if", needContexts, "always", "failure", "cancelled", "success")},
		{"strategy", shape{keys: []entry{
			{"fail-fast", aBoolean}, {"max-parallel", aNumber},
			{"matrix", &shape{keys: []entry{{"include", filter}, {"exclude", filter}}, loose: &shape{item: anything}}},
		}}.in("jobs.<job_id>.strategy", needContexts)},
		{"runs-on", shape{scalar: text, nonEmpty: true, item: someText, keys: []entry{{"group", someText}, {"labels", someTexts}}}.in("jobs.<job_id>.runs-on", jobContexts)},
		{"timeout-minutes", aNumber.in("jobs.<job_id>.timeout-minutes", jobContexts)},
		{"cancel-timeout-minutes", aNumber.in("jobs.<job_id>.cancel-timeout-minutes", jobContexts)},
		{"continue-on-error", aBoolean.in("jobs.<job_id>.continue-on-error", jobContexts)},
		{"container", containerShape("container", false)},
		{"services", shape{loose: containerShape("services.<service_id>", true)}.in("jobs.<job_id>.services", jobContexts)},
		{"env", shape{loose: anyText}.in("jobs.<job_id>.env", envContexts)},
		{"environment", shape{scalar: text, required: []string{"name"}, keys: []entry{
			{"name", anyText}, {"url", anyText.in("jobs.<job_id>.environment.url", outsideContexts)}, {"deployment", aBoolean},
		}}.in("jobs.<job_id>.environment", jobContexts)},
		{"permissions", permissionsShape()},
		{"concurrency", concurrencyShape("jobs.<job_id>.concurrency", jobContexts)},
		{"outputs", &shape{loose: anyText.in("jobs.<job_id>.outputs.<output_id>", stepContexts)}},
		{"defaults", defaultsShape(shape{keys: runDefaults()}.in("jobs.<job_id>.defaults.run", append([]string{"env"}, jobContexts...)))},
		{"steps", &shape{item: stepShape()}},
		{"snapshot", &shape{scalar: text, nonEmpty: true, required: []string{"image-name"}, keys: []entry{
			{"image-name", someText}, {"version", someText}, {"if", condition("jobs.<job_id>.snapshot.if", jobContexts)},
		}}},
		{"uses", someText},
		{"with", &shape{loose: aScalar.in("jobs.<job_id>.with.<with_id>", jobContexts)}},
		{"secrets", &shape{scalar: text, values: []string{"inherit"}, loose: aScalar.in("jobs.<job_id>.secrets.<secrets_id>", envContexts)}},
	}}
}

func containerShape(place string, service bool) *shape {
	at := "jobs.<job_id>." + place
	s := shape{
		scalar: text, nonEmpty: service, required: []string{"image"},
		keys: []entry{
			{"image", someText.in(at+".image", jobContexts)}, {"options", anyText}, {"env", &shape{loose: anyText.in(at+".env.<env_id>", stepContexts)}},
			{"ports", &shape{item: someText}}, {"volumes", &shape{item: someText}},
			{"credentials", shape{keys: []entry{{"username", someText}, {"password", someText}}}.in(at+".credentials", []string{"github", "inputs", "vars", "secrets", "env"})},
		},
	}
	if service {
		s.keys = append(s.keys, entry{"entrypoint", anyText}, entry{"command", anyText})
	}
	return s.in(at, jobContexts)
}

func condition(key string, contexts []string, functions ...string) *shape {
	s := anyText.in(key, contexts, functions...)
	s.condition = true
	return s
}

// stepShape has the keys of all kinds of steps.
func stepShape() *shape {
	in := func(s *shape, key string) *shape { return s.in("jobs.<job_id>.steps."+key, stepContexts, "hashFiles") }
	step := &shape{keys: []entry{
		{"id", someText}, {"name", in(anyText, "name")},
		{"if", condition("jobs.<job_id>.steps.if", outsideContexts, "always", "failure", "cancelled", "success", "hashFiles")},
		{"env", in(&shape{loose: anyText}, "env")},
		{"continue-on-error", in(aBoolean, "continue-on-error")}, {"timeout-minutes", in(aNumber, "timeout-minutes")},
		{"cancel-timeout-minutes", in(aNumber, "cancel-timeout-minutes")},
		{"run", in(anyText, "run")}, {"shell", someText}, {"working-directory", in(anyText, "working-directory")},
		{"uses", someText}, {"with", in(&shape{loose: anyText}, "with")},
		{"background", aBoolean}, {"wait", someTexts}, {"wait-all", &shape{scalar: boolean | null}}, {"cancel", someText},
	}}
	inner := *step
	step.keys = append(step.keys, entry{"parallel", &shape{item: &inner}})
	return step
}
