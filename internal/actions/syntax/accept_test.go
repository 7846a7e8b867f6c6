package syntax

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// job puts lines into a job, steps into its steps.
func inJob(lines, steps string) string {
	return "on: push\njobs:\n  a:\n    runs-on: x\n" + indent(lines, 4) + "    steps:\n      - run: echo\n" + indent(steps, 6)
}

func onEvent(lines string) string {
	return "on:\n" + indent(lines, 2) + "jobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo\n"
}

func atTop(lines string) string {
	return lines + "\non: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo\n"
}

func indent(lines string, n int) string {
	var b strings.Builder
	for line := range strings.SplitSeq(lines, "\n") {
		if line != "" {
			b.WriteString(strings.Repeat(" ", n) + line + "\n")
		}
	}
	return b.String()
}

// TestAccepted lists what GitHub accepts; nothing is to be said about it.
func TestAccepted(t *testing.T) {
	for name, content := range map[string]string{
		"description":          atTop("name: x\ndescription: what it is for"),
		"numbers as names":     atTop("name: 1.20"),
		"read-all":             atTop("permissions: read-all"),
		"no permissions":       atTop("permissions: {}"),
		"every scope":          atTop("permissions: {actions: read, artifact-metadata: write, attestations: write, checks: write, contents: none, copilot-requests: write, deployments: write, discussions: read, id-token: write, issues: write, models: read, packages: write, pages: write, pull-requests: write, repository-projects: read, security-events: write, statuses: write, vulnerability-alerts: read}"),
		"queue":                atTop("concurrency: {group: g, queue: max}"),
		"empty group":          atTop("concurrency: ''"),
		"group expression":     atTop("concurrency: {group: '${{ github.workflow }}-${{ github.ref }}', cancel-in-progress: \"${{ github.event_name == 'pull_request' }}\"}"),
		"env expression":       atTop("env: ${{ fromJSON(vars.ENV) }}"),
		"secrets in env":       atTop("env:\n  A: ${{ secrets.A }}\n  B:\n  C: true"),
		"event list":           "on: [push, pull_request, workflow_dispatch]\njobs:\n  a:\n    runs-on: x\n    steps: [{run: echo}]\n",
		"event alone":          onEvent("merge_group:"),
		"all events":           onEvent("create:\ndelete:\nfork:\ngollum:\nstatus:\npublic:\npage_build:\ndeployment:\ndeployment_status:\nwatch: {types: [started]}\nimage_version: {names: [a], versions: ['1.*']}"),
		"types":                onEvent("pull_request: {types: [opened, ready_for_review], branches: [main], paths: ['**.go']}\npull_request_target: {types: labeled}\nrelease: {types: published}\nissue_comment: {types: [created]}\nrepository_dispatch: {types: [deploy, anything-else]}"),
		"empty filters":        onEvent("push:\n  branches: [main]\n  tags:"),
		"one filter text":      onEvent("push: {branches: main}"),
		"workflow_run":         onEvent("workflow_run: {workflows: [CI], types: [completed], branches: [main]}"),
		"schedule":             onEvent("schedule:\n  - cron: '0 5 * * MON-FRI'\n    timezone: Europe/London\n  - cron: '*/5 * * * *'"),
		"dispatch inputs":      onEvent("workflow_dispatch:\n  inputs:\n    a: {type: choice, options: [x, y], default: x, description: d, required: true}\n    b: {type: boolean, default: true}\n    c: {type: number, default: 3}\n    d: {type: environment}\n    e:\n    f: {required: 'true', deprecationMessage: no}"),
		"workflow_call":        onEvent("workflow_call:\n  inputs:\n    a: {type: string, default: '${{ github.ref }}', required: false}\n  outputs:\n    o: {value: '${{ github.ref }}', description: d}\n  secrets:\n    s: {required: true}\n    t:"),
		"container":            inJob("container: node:20", ""),
		"no container":         inJob("container: ''", ""),
		"container expression": inJob("container: ${{ github.event_name == 'push' && 'a' || '' }}", ""),
		"container mapping":    inJob("container: {image: '${{ vars.IMAGE }}', credentials: {username: u, password: '${{ secrets.P }}'}, env: {A: '${{ secrets.A }}'}, ports: [80, '90:90/udp'], volumes: ['/a:/b'], options: --cpus 1}", ""),
		"services":             inJob("services: {db: {image: postgres, ports: ['5432:5432'], entrypoint: /x, command: y z, options: --health-cmd x}, cache: redis}", ""),
		"services expression":  inJob("services: ${{ fromJSON(vars.SERVICES) }}", ""),
		"environment":          inJob("environment: {name: '${{ vars.ENV }}', url: '${{ steps.x.outputs.url }}', deployment: false}", "- id: x\n  run: echo"),
		"runs-on group":        "on: push\njobs:\n  a:\n    runs-on: {group: g, labels: [a, b]}\n    steps: [{run: echo}]\n",
		"runs-on expression":   "on: push\njobs:\n  a:\n    runs-on: ${{ fromJSON('[\"a\"]') }}\n    steps: [{run: echo}]\n",
		"strategy expression":  inJob("strategy: ${{ fromJSON(vars.S) }}", ""),
		"matrix expression":    inJob("strategy: {fail-fast: '${{ true }}', max-parallel: '${{ fromJSON(vars.N) }}', matrix: '${{ fromJSON(vars.M) }}'}", ""),
		"odd matrix":           inJob("strategy: {matrix: {a: [1, [2], {b: c}, null], include: ['${{ fromJSON(vars.M) }}', {a: {b: 1}}], exclude: '${{ fromJSON(vars.X) }}'}}", ""),
		"job numbers":          inJob("timeout-minutes: 0.5\ncancel-timeout-minutes: 3\ncontinue-on-error: ${{ github.ref != 'x' }}", ""),
		"if":                   inJob("if: ${{ success('a') && !cancelled() }}", "- if: hashFiles('x') != '' && success()\n  run: echo"),
		"empty if":             inJob("", "- if:\n  run: echo"),
		"call":                 "on: push\njobs:\n  a:\n    uses: ./.github/workflows/b.yml\n    with: {a: 1, b: '${{ github.ref }}'}\n    secrets: inherit\n    strategy: {matrix: {x: [1]}}\n    concurrency: g\n    permissions: {contents: read}\n",
		"self call":            "on: push\njobs:\n  a:\n    uses: $/.github/workflows/b.yml\n",
		"remote call":          "on: push\njobs:\n  a:\n    uses: o/r/.github/workflows/b.yaml@v1\n    secrets: {A: '${{ secrets.A }}'}\n",
		"snapshot":             inJob("snapshot: {image-name: a, version: '1', if: github.ref == 'x'}", ""),
		"background":           inJob("", "- id: s\n  run: serve\n  background: true\n- wait: s\n- wait: [s]\n- wait-all:\n- wait-all: true\n- cancel: s\n- parallel:\n    - run: echo 1\n    - uses: a/b@v1"),
		"uses":                 inJob("", "- uses: ./a\n- uses: $/.github/actions/x\n- uses: docker://alpine:3\n- uses: o/r@v1\n- uses: o/r/p/q@0123abc\n- uses: ./\n  with: {a: 1.0, b: true}"),
		"anchors":              "on: push\nenv: &e\n  A: 1\njobs:\n  a: &job\n    runs-on: x\n    env: *e\n    steps: &steps\n      - run: echo\n  b: *job\n  c:\n    runs-on: x\n    steps: *steps\n",
		"unused anchor":        atTop("env: &e\n  A: 1"),
		"yes is text":          atTop("env: {A: yes, B: no, C: on}"),
		"old-style job":        inJob("needs: []", ""),
		"windows line ends":    strings.ReplaceAll(inJob("", "- run: |\n    echo ${{ github.sha }}"), "\n", "\r\n"),
	} {
		w, diagnostics := Load("ci.yml", []byte(content))
		if w == nil || len(diagnostics) > 0 {
			t.Errorf("%s: %v\n%s", name, diagnostics, content)
		}
	}
}

// TestRefused lists what GitHub refuses, with the first thing that is said.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ content, want string }{
		{"on: push\n", `1:1: key "jobs" is missing in the workflow`},
		{"jobs:\n  a:\n    runs-on: x\n    steps: [{run: echo}]\n", `1:1: key "on" is missing in the workflow`},
		{"on: push\njobs: {}\n", "2:7: the workflow has no jobs"},
		{"on: {}\njobs:\n  a:\n    runs-on: x\n    steps: [{run: echo}]\n", "1:5: no event is named in `on`"},
		{"[1]", `1:1: a list was not expected in ""`},
		{atTop("on: pull_request"), `2:1: key "on" is already defined in "" (it stands in line 1 too; upper and lower case make no difference)`},
		{atTop("name: ${{ github.ref }}"), `1:7: an expression is not allowed in "name"`},
		{atTop("run-name: ${{ secrets.A }}"), `1:15: Unrecognized named-value: 'secrets'. Located at position 1 within expression: secrets.A (run-name allows the contexts github, inputs, vars)`},
		{atTop("run-name: \"a ${{ needs.A }}\""), `1:18: Unrecognized named-value: 'needs'. Located at position 1 within expression: needs.A (run-name allows the contexts github, inputs, vars)`},
		{atTop("permissions: write"), `1:14: unexpected value "write" in "permissions" (one of read-all, write-all)`},
		{atTop("permissions: {id-token: read}"), `1:25: unexpected value "read" in "id-token" (one of write, none)`},
		{atTop("permissions: {content: read}"), `1:15: unknown key "content" in "permissions" section (did you mean "contents"?)`},
		{atTop("concurrency: {cancel-in-progress: true}"), `1:14: key "group" is missing in "concurrency" section`},
		{atTop("concurrency: {group: g, queue: min}"), `1:32: unexpected value "min" in "queue" (one of single, max)`},
		{atTop("concurrency: {group: g, queue: max, cancel-in-progress: true}"), "1:32: `queue: max` keeps everything, `cancel-in-progress: true` keeps nothing (remove one of them)"},
		{atTop("env: [A]"), `1:6: a list was not expected in "env"`},
		{atTop("env: {A: {B: C}}"), `1:10: a mapping was not expected in "A"`},
		{atTop("env: {a: 1, A: 2}"), `1:13: key "A" is already defined in "env" (it stands in line 1 too; upper and lower case make no difference)`},
		{atTop("env: &e {A: 1}\ndefaults: {run: {<<: *e}}"), `2:18: GitHub does not support the YAML merge key "<<" (repeat the keys, or alias the whole mapping)`},
		{atTop("defaults: {run: {shell: ''}}"), `1:25: "shell" is empty`},
		{onEvent("pussh:"), `2:3: unknown key "pussh" in "on" section (did you mean "push"?)`},
		{onEvent("teatime:"), `2:3: unknown event "teatime" (see GitHub's list of events that trigger workflows)`},
		{"on: [push, teatime]\n" + strings.TrimPrefix(atTop(""), "\non: push\n"), `1:12: unexpected value "teatime" in "on" (one of branch_protection_rule, check_run`},
		{onEvent("schedule:"), `2:12: unexpected value "" in "schedule": a list is needed`},
		{onEvent("schedule: [{cron: '* * *'}]"), `2:1: bad cron expression: "* * *" has 3 fields; five are needed: minute, hour, day of the month, month, day of the week`},
		{onEvent("schedule: [{cron: '0 5 * * *', timezone: Mars/Olympus}]"), `2:1: time zone "Mars/Olympus" is not known; IANA names such as "Europe/London" are`},
		{onEvent("workflow_dispatch: {inputs: {a: {type: choice}}}"), "2:1: input \"a\" is a choice without `options`"},
		{onEvent("workflow_dispatch: {inputs: {a: {type: choice, options: [x], default: y}}}"), `2:1: the default "y" of input "a" is not among its options`},
		{onEvent("workflow_dispatch: {inputs: {a: {type: number, default: x}}}"), `2:1: the default "x" of input "a" is not a number`},
		{onEvent("workflow_call: {inputs: {a: {required: true}}}"), `2:31: key "type" is missing in "a" section`},
		{onEvent("workflow_call: {outputs: {a: {value: '${{ steps.a.outputs.b }}'}}}"), `2:45: Unrecognized named-value: 'steps'. Located at position 1 within expression: steps.a.outputs.b (on.workflow_call.outputs.<output_id>.value allows the contexts jobs, github, inputs, vars)`},
		{inJob("timeout-minutes: soon", ""), `5:22: unexpected value "soon" in "timeout-minutes": a number is needed`},
		{inJob("timeout-minutes: '5'", ""), `5:22: unexpected value "5" in "timeout-minutes": a number is needed`},
		{inJob("continue-on-error: 1", ""), `5:24: unexpected value "1" in "continue-on-error": true or false is needed`},
		{inJob("strategy: {matrix: {a: 1}}", ""), `5:28: unexpected value "1" in "a": a list is needed`},
		{inJob("strategy: {matrix: {a: [1], include: [1]}}", ""), `5:43: unexpected value "1" in "include": a mapping is needed`},
		{inJob("container: {options: x}", ""), `5:16: key "image" is missing in "container" section`},
		{inJob("environment: {url: x}", ""), `5:18: key "name" is missing in "environment" section`},
		{inJob("with: {a: b}", ""), "5:5: key \"with\" has no meaning in job \"a\" (it belongs to a job that calls a reusable workflow with `uses`)"},
		{inJob("uses: ./.github/workflows/b.yml", ""), `4:5: key "runs-on" cannot stand beside "uses" (a job that calls a reusable workflow has name, uses, with, secrets, needs, if, strategy, permissions and concurrency)`},
		{"on: push\njobs:\n  a:\n    uses: ./b.yml\n", `4:11: "./b.yml" is not a reusable workflow (write ./.github/workflows/name.yml or owner/repository/.github/workflows/name.yml@ref)`},
		{"on: push\njobs:\n  a:\n    uses: ./.github/workflows/b.yml\n    secrets: all\n", `5:14: unexpected value "all" in "secrets" (one of inherit)`},
		{"on: push\njobs:\n  a:\n    steps: [{run: echo}]\n", `3:3: key "runs-on" is missing in job "a"`},
		{"on: push\njobs:\n  1a:\n    runs-on: x\n    steps: [{run: echo}]\n", `3:3: "1a" is not a valid job id (ids start with a letter or _ and contain letters, digits, _ and -)`},
		{"on: push\njobs:\n  __a:\n    runs-on: x\n    steps: [{run: echo}]\n", `3:3: "__a" is not a valid job id: ids that start with __ are reserved`},
		{inJob("", "- name: nothing"), `7:9: a step needs one of "run" and "uses"`},
		{inJob("", "- run: a\n  uses: b/c@v1"), `8:9: a step cannot have "run" and "uses" (make two steps of it)`},
		{inJob("", "- uses: a/b@v1\n  shell: sh"), `8:16: key "shell" has no meaning in a step with "uses"`},
		{inJob("", "- run: a\n  with: {a: b}"), `8:15: key "with" has no meaning in a step with "run"`},
		{inJob("", "- uses: checkout"), `7:15: "checkout" is not an action (write owner/repository[/path]@ref, ./path, $/path or docker://image)`},
		{inJob("", "- uses: a/b@${{ github.ref }}"), `7:15: an expression is not allowed in "uses"`},
		{inJob("", "- wait: nobody"), `7:15: there is no step with the id "nobody" (it must stand before this step)`},
		{inJob("", "- wait-all: false"), "7:19: `wait-all` is true or has no value"},
		{inJob("", "- id: x\n  run: echo\n- cancel: x\n  if: always()"), `10:13: key "if" has no meaning in a step with "cancel"`},
		{inJob("", "- run: |\n    fine\n    ${{ secrets.A == \"x\" }}"), `9:28: Unexpected symbol: '"x"'. Located at position 14 within expression: secrets.A == "x" (strings are written in single quotes, not double quotes)`},
		{inJob("", "- if: secrets.A\n  run: echo"), `7:13: Unrecognized named-value: 'secrets'. Located at position 1 within expression: secrets.A (jobs.<job_id>.steps.if allows the contexts github, inputs, vars, needs, strategy, matrix, steps, job, runner, env and the functions always, failure, cancelled, success, hashFiles)`},
		{inJob("env: {A: '${{ runner.os }}'}", ""), `5:19: Unrecognized named-value: 'runner'. Located at position 1 within expression: runner.os (jobs.<job_id>.env allows the contexts github, inputs, vars, needs, strategy, matrix, secrets)`},
		{inJob("", "- run: ${{ x }} "+strings.Repeat("y", 21_001)), `7:18: Unrecognized named-value: 'x'.`},
		{inJob("", "- run: ${{ github.sha }} "+strings.Repeat("y", 21_001)), "7:14: Exceeded max expression length 21000"},
	} {
		w, diagnostics := Load("ci.yml", []byte(c.content))
		got := "nothing"
		for _, d := range diagnostics {
			if d.Fatal {
				got = strings.TrimPrefix(d.String(), "ci.yml:")
				break
			}
		}
		if w != nil || !strings.HasPrefix(got, c.want) {
			t.Errorf("%.300s\n got %s\nwant %s", c.content, got, c.want)
		}
	}
}

// TestWarned lists what runs, with a word about it.
func TestWarned(t *testing.T) {
	for _, c := range []struct{ content, want string }{
		{onEvent("push: {branches_ignore: [a]}"), `2:10: unknown key "branches_ignore" in "push" section has no effect (did you mean "branches-ignore"?)`},
		{onEvent("create: {tags: [a]}"), `2:12: unknown key "tags" in "create" section has no effect`},
		{onEvent("push:\n  branches: ''"), `3:15: "branches" is empty`},
		{onEvent("push: {colour: red}"), `2:10: unknown key "colour" in "push" section has no effect`},
		{onEvent("pull_request: {types: [merged]}"), `2:26: unexpected value "merged" in "types" (one of assigned, unassigned`},
		{onEvent("workflow_run: {types: [completed]}"), "2:1: workflow_run without `workflows` never starts a run (list the names of workflows)"},
		{onEvent("schedule: [{cron: '* * * * *'}]"), "2:1: scheduled runs start at most every 5 minutes"},
		{onEvent("schedule: [{cron: '0 0 30 2 *'}]"), `2:1: "0 0 30 2 *" names a day that never comes`},
		{"on: push\njobs:\n  a:\n    runs-on: x\n", `3:3: job "a" has no steps`},
		{inJob("colour: red", ""), `5:5: unknown key "colour" in "job" section has no effect (GitHub refuses keys that it does not know)`},
		// The linter's own findings.
		{inJob("", "- run: echo ${{ github.event.issue.title }}"), `7:23: "github.event.issue.title" is potentially untrusted`},
		{inJob("", "- run: echo ${{ github.nothing }}"), `7:23: property "nothing" is not defined in object type`},
		{inJob("", "- run: echo\n  shell: fish"), `8:16: shell name "fish" is invalid`},
		{onEvent("push: {branches: ['a[']}"), "2:23: "},
		{inJob("container: {image: x, credentials: {username: u, password: p}}", ""), `5:64: "password" section in "container" section should be specified via secrets`},
		{inJob("if: true", ""), `5:9: constant expression "true" in condition`},
		{inJob("if: ${{ true }} && false", ""), `5:9: if: condition "${{ true }} && false" is always evaluated to true`},
	} {
		w, diagnostics := Load("ci.yml", []byte(c.content))
		if w == nil || len(diagnostics) == 0 || !strings.HasPrefix(strings.TrimPrefix(diagnostics[0].String(), "ci.yml:"), c.want) {
			t.Errorf("%s\n got %v\nwant %s", c.content, diagnostics, c.want)
		}
	}
}

// TestBombs: files that would grow without end are refused, in no time.
func TestBombs(t *testing.T) {
	billion := "on: push\nx0: &x0 [a, a, a, a, a, a, a, a, a]\n"
	for i := 1; i < 12; i++ {
		billion += fmt.Sprintf("x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 9), ", "))
	}
	for name, content := range map[string]string{
		"billion laughs": billion,
		"itself":         "on: push\njobs: &j\n  a: *j\n",
		"deep":           "on: " + strings.Repeat("[", 500) + strings.Repeat("]", 500),
		"deep flow":      "on: push\nenv: " + strings.Repeat("{a: ", 2000) + strings.Repeat("}", 2000),
		"many nodes":     "on: push\nx: [" + strings.Repeat("a,", 300_000) + "]\n",
		"size":           "#" + strings.Repeat("x", MaxSize),
	} {
		w, diagnostics := Load("ci.yml", []byte(content))
		if w != nil || len(diagnostics) == 0 || !diagnostics[0].Fatal {
			t.Errorf("%s: %.200v", name, diagnostics)
		}
	}
}

func TestEverythingIsRead(t *testing.T) {
	content, err := os.ReadFile("testdata/full.good.yml")
	if err != nil {
		t.Fatal(err)
	}
	w, diagnostics := Load("ci.yml", content)
	if w == nil || len(diagnostics) > 0 {
		t.Fatalf("refused: %v", diagnostics)
	}
	check := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s\n got %v\nwant %v", what, got, want)
		}
	}
	check("description", w.Description, "for tests")
	check("concurrency", []string{w.Concurrency.Group.Value, w.Concurrency.Queue.Value}, "[g-${{ github.ref }} max]")
	pr := w.Event("pull_request")
	check("types", pr.Types, "[opened labeled]")
	check("lines", []int{pr.Line, pr.LineOf("branches"), pr.LineOf("nothing")}, "[6 8 6]")
	check("usual types", w.Event("pull_request_target").ActiveTypes(), "[opened synchronize reopened]")
	check("any types", w.Event("issue_comment").ActiveTypes() == nil, true)
	check("empty filter", []any{pr.Tags == nil, w.Event("push").Tags}, "[true [**]]")
	check("workflows", w.Event("workflow_run").Workflows, "[CI]")
	check("crons", w.Event("schedule").Crons, "[{0 5 * * *  14} {30 6 * * 1 Europe/London 15}]")
	call := w.Event("workflow_call")
	check("inputs", []any{call.Inputs[0].Name, call.Inputs[0].Type, call.Inputs[0].Default, call.Inputs[1].Required}, "[level string low true]")
	check("outputs", []any{call.Outputs[0].Name, call.Outputs[0].Value.Value}, "[url ${{ jobs.deploy.outputs.url }}]")
	check("secrets", call.Secrets, "[{token true 26} {other false 28}]")
	deploy := w.Job("deploy")
	check("runs-on", []any{deploy.RunsOn[0].Value, deploy.RunsOnGroup.Value}, "[linux big]")
	check("environment", []any{deploy.Environment.Name.Value, deploy.Environment.URL.Value, deploy.Environment.Deployment.Value}, "[prod https://x false]")
	c := deploy.Container
	check("container", []any{c.Image.Value, c.Username.Value, c.Password.Value, c.Ports[0].Value, c.Volumes[0].Value, c.Options.Value, c.Env.Vars[0].Name, c.Line}, "[node:20 u ${{ secrets.TOKEN }} 80 /a:/b --cpus 1 A 40]")
	check("services", []any{deploy.Services[0].Name, deploy.Services[0].Image.Value, deploy.Services[1].Image.Value, deploy.Services[1].Entrypoint.Value}, "[cache redis postgres /run]")
	s := deploy.Steps
	check("steps", []any{s[0].Background, s[1].Wait[0].Value, s[2].WaitAll, s[3].Cancel.Value, len(s[4].Parallel), s[4].Parallel[1].Uses.Value}, "[true server true server 2 a/b@v1]")
	check("with", s[5].With, "[{b {1 67 14 false}} {a {true 68 14 false}} {args {x y 69 17 false}}]")
	check("cancel timeout", []any{deploy.CancelTimeout.Value, s[0].CancelTimeout.Value}, "[3 1]")
	again := w.Job("again")
	check("call", []any{again.Uses.Value, again.With[0].Name, again.With[0].Value.Value, again.Secrets.Map[0].Name, again.Secrets.Inherit, again.Needs}, "[o/r/.github/workflows/x.yml@v1 level 1.2 token false [deploy]]")
	check("unsupported", []int{len(deploy.Unsupported), len(again.Unsupported)}, "[5 0]") // the steps beside each other
	check("aliased", w.Job("copy").Env.Vars[0].Value.Value, "1")
	check("levels", []string{w.Permissions.Level("contents"), w.Permissions.Level("issues"), (&Permissions{All: "read-all"}).Level("checks")}, "[write none read]")
}
