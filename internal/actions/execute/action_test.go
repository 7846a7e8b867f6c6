package execute

import (
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
)

const head = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n"

func TestCompositeActions(t *testing.T) {
	w := newWorld(t)
	commit := w.publish("acme/tools", map[string]string{
		"greet/action.yml": `name: greet
description: x
inputs:
  who: {default: "${{ github.actor }}"}
  old: {deprecationMessage: "use who"}
outputs:
  line: {value: "${{ steps.say.outputs.line }}"}
  empty: {value: "${{ steps.nothing.outputs.x }}"}
runs:
  using: composite
  steps:
    - id: say
      shell: bash
      env: {INNER: "in-${{ inputs.who }}"}
      run: |
        echo "line=hello ${{ inputs.who }}" >> "$GITHUB_OUTPUT"
        echo "inner=$INNER outer=$OUTER env=${{ env.OUTER }} path=$(cat "$GITHUB_ACTION_PATH/data.txt") same=$(cat ${{ github.action_path }}/data.txt) repo=$GITHUB_ACTION_REPOSITORY ref=$GITHUB_ACTION_REF input=${INPUT_WHO:-none}"
        echo "GLOBAL=from action" >> "$GITHUB_ENV"
    - shell: sh
      working-directory: /tmp
      run: pwd; echo "inner is '${INNER:-gone}', global is $GLOBAL"
    - if: failure()
      shell: bash
      run: echo must not run
    - uses: acme/tools/nested@v1
      with: {deep: "${{ steps.say.outputs.line }}"}
`, "greet/data.txt": "DATA\n",
		"nested/action.yml": `inputs:
  deep: {required: true}
runs:
  using: composite
  steps:
    - run: 'echo "deep: ${{ inputs.deep }} steps: ${{ toJSON(steps) }} repo ${{ github.action_repository }}"'
      shell: bash
`,
	})
	o := w.run(w.plan(map[string]string{"act/action.yaml": `runs:
  using: composite
  steps:
    - id: breaks
      run: exit 7
      shell: bash
      continue-on-error: true
    - run: echo "outcome ${{ steps.breaks.outcome }} ${{ steps.breaks.conclusion }}"
      shell: bash
    - run: exit 5
      shell: bash
    - run: echo not reached
      shell: bash
    - if: failure()
      run: echo "cleaning up ${{ github.action_status }}"
      shell: bash
    - if: always()
      uses: acme/tools/greet@v1
`}, head+`      - id: g
        uses: acme/tools/greet@v1
        env: {OUTER: out}
        with: {who: Bob, old: x, nonsense: y}
      - run: echo "got '${{ steps.g.outputs.line }}' $GLOBAL OUTER=${OUTER:-gone}"
      - id: l
        uses: ./act
        continue-on-error: true
      - run: echo "local ${{ steps.l.outcome }} ${{ steps.l.conclusion }}"
      - uses: ./act
`))
	o.wants("inner=in-Bob outer=out env=out path=DATA same=DATA repo=acme/tools ref=v1 input=none\n", "\n/tmp\ninner is 'gone', global is from action\n",
		"deep: hello Bob steps: {} repo acme/tools\n", "got 'hello Bob' from action OUTER=gone\n", "outcome failure success\n", "cleaning up failure\n",
		"local failure success\n", "Unexpected input(s) 'nonsense', valid inputs are ['who', 'old']", "Input 'old' has been deprecated with message: use who",
		"Action acme/tools/greet@v1 is commit "+commit+" (from the forge)", "inner=in-ann")
	if strings.Contains(o.log(), "\nnot reached\n") || strings.Contains(o.log(), "must not run\nshell") {
		t.Error("a step ran that must not")
	}
	if f := o.Failure; o.Conclusion != schedule.Failure || f.File != "act/action.yaml" || f.Line != 10 || f.Message != "Process completed with exit code 5." {
		t.Errorf("failure %+v", f)
	}
	if len(o.uses) < 2 || o.uses[0] != "acme/tools/greet@v1 "+commit+" 10" || o.uses[1] != "acme/tools/nested@v1 "+commit+" 10" {
		t.Errorf("uses %q", o.uses)
	}
	if !strings.Contains(o.names(), "Run ./act: success") {
		t.Error(o.names())
	}
}

func TestSelfReferences(t *testing.T) {
	w := newWorld(t)
	own := w.publish("o/r", map[string]string{"lib/one/action.yml": "runs:\n  using: composite\n  steps:\n    - run: echo own one\n      shell: sh\n    - uses: $/lib/two\n",
		"lib/two/action.yml": "runs:\n  using: composite\n  steps:\n    - run: echo own two\n      shell: sh\n"})
	w.publish("acme/many", map[string]string{"top/action.yml": "runs:\n  using: composite\n  steps:\n    - uses: $/lib/two\n", "lib/two/action.yml": "runs:\n  using: composite\n  steps:\n    - run: echo their two\n      shell: sh\n"})
	p := w.plan(nil, head+"      - uses: $/lib/one\n      - uses: acme/many/top@v1\n")
	p.Commit = own
	o := w.run(p)
	if o.Conclusion != schedule.Success {
		t.Errorf("%+v", o.Failure)
	}
	o.wants("own one\n", "own two\n", "their two\n", "Action $/lib/one is commit "+own)
}

const jsAction = `name: js
inputs:
  my input: {default: "${{ github.repository }}"}
  token: {default: "${{ github.token }}"}
outputs:
  result: {description: x}
runs:
  using: node20
  pre: pre.js
  main: main.js
  post: post.js
  post-if: success()
`

func TestJavaScriptActions(t *testing.T) {
	w := newWorld(t)
	w.publish("acme/js", map[string]string{
		"action.yml": jsAction,
		"pre.js":     `require('fs').appendFileSync(process.env.GITHUB_STATE, 'begun=pre\n'); console.log('pre runs', process.env['INPUT_MY_INPUT'])`,
		"main.js": `const fs = require('fs'), e = process.env
console.log('main', e['INPUT_MY_INPUT'], 'state', e.STATE_begun, 'action', e.GITHUB_ACTION, e.GITHUB_ACTION_REPOSITORY, e.GITHUB_ACTION_REF, process.cwd())
console.log('services', e.ACTIONS_RUNTIME_TOKEN, e.ACTIONS_RESULTS_URL, e.ACTIONS_ID_TOKEN_REQUEST_URL)
fs.appendFileSync(e.GITHUB_OUTPUT, 'result<<X\none\ntwo\nX\n')
fs.appendFileSync(e.GITHUB_STATE, 'file=kept\n')
fs.appendFileSync(e.GITHUB_PATH, '/opt/added\n')
console.log('::save-state name=old::older')`,
		"post.js": `console.log('post', process.env.STATE_begun, process.env.STATE_file, process.env.STATE_old)`,
	})
	w.publish("acme/wrap", map[string]string{"action.yml": "outputs:\n  r: {value: \"${{ steps.js.outputs.result }}\"}\nruns:\n  using: composite\n  steps:\n    - id: js\n      uses: acme/js@v1\n      with: {my input: wrapped}\n"})
	p := w.plan(nil, head+`      - id: first
        uses: acme/js@v1
      - run: echo "result ${{ steps.first.outputs.result }}"; echo "runtime=${ACTIONS_RUNTIME_TOKEN:-none} id=$ACTIONS_ID_TOKEN_REQUEST_URL"; echo "${PATH%%:*}"
      - id: w
        uses: acme/wrap@v1
      - run: echo "wrapped ${{ steps.w.outputs.r }}"
`)
	p.ServiceEnv = map[string]string{"ACTIONS_RUNTIME_TOKEN": "runtime-secret", "ACTIONS_RESULTS_URL": "http://results.github.localhost/", "ACTIONS_ID_TOKEN_REQUEST_URL": "http://id"}
	o := w.run(p)
	if o.Conclusion != schedule.Success {
		t.Errorf("%+v", o.Failure)
	}
	o.wants("pre runs o/r\n", "main o/r state pre action first acme/js v1 /home/runner/work/r/r\n", "services *** http://results.github.localhost/ http://id\n",
		"result one\ntwo", "runtime=none id=http://id\n/opt/added\n", "post pre kept older\n", "pre runs wrapped\n", "main wrapped state pre", "wrapped one\n")
	want := `Set up job: success
Pre Run acme/js@v1: success
Pre Run acme/wrap@v1: success
Run acme/js@v1: success
Run echo "result ${{ steps.first.outputs.result }}"; echo "runtime=${ACTIONS_RUNTIME_TOKEN:-none} id=$ACTIONS_ID_TOKEN_REQUEST_URL"; echo "${PATH%%:*}": success
Run acme/wrap@v1: success
Run echo "wrapped ${{ steps.w.outputs.r }}": success
Post Run acme/wrap@v1: success
Post Run acme/js@v1: success
Complete job: success`
	if got := o.names(); got != want {
		t.Errorf("steps\n%s", got)
	}
}

func TestActionsThatCannotBeHad(t *testing.T) {
	w := newWorld(t)
	w.publish("acme/broken", map[string]string{"action.yml": "runs:\n  using: composite\n  steps:\n    - run: echo\n", "deep/action.yml": "runs:\n  using: composite\n  steps:\n    - uses: acme/none@v1\n",
		"self/action.yml": "runs:\n  using: composite\n  steps:\n    - uses: acme/broken/self@v1\n", "js/action.yml": "runs: {using: node20, main: dist/index.js}\n"})
	for _, c := range []struct{ uses, message, hint string }{
		{"acme/none@v1", `action "acme/none@v1" is not on this machine: the forge has no repository acme/none`, "lockstep action import acme/none@v1"},
		{"acme/broken@v9", `the repository acme/broken on the forge has no branch, tag or commit "v9"; it has main, v1`, "lockstep action import"},
		{"acme/broken@v1", "acme/broken/action.yml:4: a `run` step of a composite action needs `shell`", "add `shell: bash`"},
		{"acme/broken/nowhere@v1", "has no action.yml, action.yaml or Dockerfile in nowhere", "check the path"},
		{"acme/broken/deep@v1", `acme/broken/deep/action.yml:4: action "acme/none@v1" is not on this machine`, "lockstep action import acme/none@v1"},
		{"acme/broken/self@v1", "nested deeper than 10", ""},
		{"acme/broken/js@v1", "the action has no file dist/index.js", "built files"},
		{"./nowhere", "there is no action.yml, action.yaml or Dockerfile in ./nowhere", "actions/checkout"},
		{"docker://alpine:3", "needs containers, which cannot be run here", "lockstep doctor"},
	} {
		o := w.run(w.plan(nil, head+"      - uses: "+c.uses+"\n"))
		if f := o.Failure; o.Conclusion != schedule.Failure || f == nil || !strings.Contains(f.Message, c.message) || !strings.Contains(f.Hint, c.hint) || f.Line != 6 || f.File != ".github/workflows/ci.yml" {
			t.Errorf("%s: %+v", c.uses, o.Failure)
		}
		p := w.plan(nil, head+"      - uses: "+c.uses+"\n")
		early := strings.HasPrefix(c.uses, "acme/none") || strings.HasSuffix(c.uses, "@v9") || strings.HasPrefix(c.uses, "docker")
		if f := w.runner.Preflight(t.Context(), p.Workflow, p.Job); (f != nil) != early || f != nil && f.Line != 6 {
			t.Errorf("preflight of %s: %+v", c.uses, f)
		}
	}
}
