package execute

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
)

func TestShells(t *testing.T) {
	w := newWorld(t)
	o := w.run(w.plan(nil, head+`      - run: false | true; echo "default $-"
      - shell: bash
        run: set -o | grep pipefail
      - shell: sh
        run: echo "sh $-"
      - shell: perl -w {0}
        run: print "perl $0\n"
      - shell: bash --noprofile "{0}" "two words"
        run: echo "custom $1"
      - shell: pwsh
        run: echo x
        continue-on-error: true
      - shell: fish
        run: echo x
        continue-on-error: true
      - run: echo late
        working-directory: nowhere
        continue-on-error: true
`))
	if o.Conclusion != schedule.Success {
		t.Errorf("%+v", o.Failure)
	}
	o.wants("default ehB\n", "shell: bash --noprofile --norc -e -o pipefail {0}\n", "pipefail       \ton\n", "sh e", "perl /home/runner/work/_temp/", "custom two words\n",
		"##[error]pwsh: command not found", "Try: install PowerShell on this machine, or use `shell: bash`", `shell "fish" is not known`, "nowhere does not exist")
}

func TestHostileFiles(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ name, script, failure, log string }{
		{"node options", `echo "NODE_OPTIONS=--require /tmp/x" >> "$GITHUB_ENV"; echo "OK=1" >> "$GITHUB_ENV"`, "", "Can't store NODE_OPTIONS output parameter"},
		{"runner's own", `echo "GITHUB_SHA=forged" >> "$GITHUB_ENV"`, "", "after sha=" + strings.Repeat("a", 40)},
		{"no delimiter", `echo "A<<" >> "$GITHUB_ENV"`, "needs a name before and a delimiter", ""},
		{"open heredoc", `printf 'A<<EOF\nx\n' >> "$GITHUB_OUTPUT"`, "has no closing line", ""},
		{"link", `rm "$GITHUB_OUTPUT"; ln -s /etc/passwd "$GITHUB_OUTPUT"`, "GITHUB_OUTPUT", ""},
		{"folder", `rm "$GITHUB_OUTPUT"; mkdir "$GITHUB_OUTPUT"`, "is no file any more", ""},
		{"pipe", `rm "$GITHUB_OUTPUT"; mkfifo "$GITHUB_OUTPUT"`, "is no file any more", ""},
		{"removed", `rm "$GITHUB_OUTPUT" "$GITHUB_ENV"`, "", ""},
		{"large", `head -c 20000000 /dev/zero | tr '\0' x >> "$GITHUB_OUTPUT"`, "at most 16777216 are read", ""},
		{"large summary", `head -c 1100000 /dev/zero | tr '\0' x >> "$GITHUB_STEP_SUMMARY"`, "", "supports content up to a size of 1024k, got 1074k"},
		{"old commands", `echo "::set-env name=A::b"`, "`set-env` command is disabled", ""},
		{"matcher elsewhere", `echo "::add-matcher::/etc/passwd"`, "", "/etc/passwd is not in a folder of the job"},
		{"matcher broken", `echo "{" > m.json; echo "::add-matcher::m.json"`, "", "##[warning]add-matcher: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := w.run(w.plan(nil, head+"      - run: |\n          "+c.script+"\n      - if: always()\n        run: echo \"after sha=$GITHUB_SHA\"\n"))
			o.t = t
			if (o.Conclusion == schedule.Failure) != (c.failure != "") || c.failure != "" && !strings.Contains(o.Failure.Message, c.failure) {
				t.Errorf("%s %+v\n%s", o.Conclusion, o.Failure, o.log())
			}
			o.wants(c.log, "\nafter sha=")
		})
	}
}

func TestMatchersFindProblems(t *testing.T) {
	w := newWorld(t)
	o := w.run(w.plan(map[string]string{"m.json": `{"problemMatcher":[{"owner":"go","pattern":[{"regexp":"^(.+\\.go):(\\d+):(\\d+): (.+)$","file":1,"line":2,"column":3,"message":4}]}]}`}, head+`      - run: echo "::add-matcher::m.json"
      - run: |
          echo "$PWD/cmd/x.go:7:2: undefined: y"
          exit 1
`))
	if len(o.annotations) != 1 || o.annotations[0].File != "cmd/x.go" || o.annotations[0].Line != 7 || o.annotations[0].Level != "error" {
		t.Errorf("%+v\n%s", o.annotations, o.log())
	}
	if f := o.Failure; f.File != "cmd/x.go" || f.Line != 7 {
		t.Errorf("%+v", f)
	}
}

func TestCancellationReachesNestedSteps(t *testing.T) {
	w := newWorld(t)
	w.publish("acme/slow", map[string]string{"action.yml": `runs:
  using: composite
  steps:
    - run: echo sleeping; setsid sleep 5353 & sleep 5353
      shell: bash
    - run: echo must not run
      shell: bash
    - if: always()
      run: echo nested always, cancelled=${{ cancelled() }}
      shell: bash
`})
	ctx, cancel := context.WithCancelCause(t.Context())
	p := w.plan(nil, head+`      - uses: acme/slow@v1
      - run: echo neither
      - if: always()
        run: echo outer always ${{ job.status }}
`)
	start := time.Now()
	o := w.runCtx(ctx, p, func(line string) {
		if line == "sleeping" {
			cancel(ErrCancelled)
		}
	})
	if o.Conclusion != schedule.Cancelled || time.Since(start) > 10*time.Second {
		t.Errorf("%s after %s", o.Conclusion, time.Since(start))
	}
	o.wants("nested always, cancelled=true\n", "outer always cancelled\n")
	if log := o.log(); strings.Contains(log, "must not run\nshell") || strings.Contains(log, "\nneither\n") {
		t.Error(log)
	}
	if left := sleepers("5353"); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

func TestStepTimeoutEndsAnAction(t *testing.T) {
	w := newWorld(t)
	w.publish("acme/slow", map[string]string{"action.yml": "runs:\n  using: composite\n  steps:\n    - run: sleep 5454\n      shell: bash\n    - if: always()\n      run: echo must not run\n      shell: bash\n"})
	o := w.run(w.plan(nil, head+"      - uses: acme/slow@v1\n        timeout-minutes: 0.005\n      - if: failure()\n        run: echo told\n"))
	if o.Conclusion != schedule.Failure || !strings.Contains(o.Failure.Message, "ran longer than its timeout-minutes") {
		t.Errorf("%+v", o.Failure)
	}
	o.wants("\ntold\n")
}

// sleepers are the processes `sleep <seconds>` of this machine.
func sleepers(seconds string) []string {
	entries, _ := os.ReadDir("/proc")
	var out []string
	for _, e := range entries {
		if data, err := os.ReadFile("/proc/" + e.Name() + "/cmdline"); err == nil && string(data) == "sleep\x00"+seconds+"\x00" {
			out = append(out, e.Name())
		}
	}
	return out
}

func TestContexts(t *testing.T) {
	w := newWorld(t)
	p := w.plan(nil, head+`      - run: |
          echo "head=$GITHUB_HEAD_REF base=$GITHUB_BASE_REF ref=$GITHUB_REF_NAME/$GITHUB_REF_TYPE prot=$GITHUB_REF_PROTECTED id=$GITHUB_REPOSITORY_ID owner=$GITHUB_REPOSITORY_OWNER_ID actor=$GITHUB_ACTOR_ID by=$GITHUB_TRIGGERING_ACTOR"
          echo "debug=$RUNNER_DEBUG ${{ runner.debug }} job=${{ github.job }} action=$GITHUB_ACTION extra=${{ github.job_workflow_sha }} inputs=${{ inputs.color }} vis=${{ github.repository_visibility }}"
          echo "::debug::shown"
      - run: echo "action=${{ github.action }} $GITHUB_ACTION steps=${{ toJSON(steps) }}"
`)
	payload, err := expr.FromJSON(`{"repository":{"id":42,"private":true,"owner":{"id":7}},"sender":{"id":9},"pull_request":{"head":{"ref":"feature"},"base":{"ref":"main"}}}`)
	if err != nil {
		t.Fatal(err)
	}
	p.Payload = payload.(*expr.Object)
	p.Event, p.Ref, p.RefProtected, p.TriggeringActor = "pull_request", "refs/pull/5/merge", true, "bob"
	p.GitHub = map[string]string{"job_workflow_sha": "abc"}
	p.Inputs = expr.NewObject().Set("color", "red")
	p.Secrets["ACTIONS_STEP_DEBUG"] = "true"
	o := w.run(p)
	o.wants("head=feature base=main ref=5/merge/branch prot=true id=42 owner=7 actor=9 by=bob\n", "debug=1 1 job=a action=__run extra=abc inputs=red vis=private\n",
		"##[debug]shown\n", "action=__run_2 __run_2 steps={}\n")
}

func TestSocketsAreServedToEachJob(t *testing.T) {
	w := newWorld(t)
	w.runner.Config.JobsDir = w.dir + "/" + strings.Repeat("long", 30)
	closed := 0
	w.runner.Sockets = []Socket{{Name: "hello.sock", Env: "HELLO_SOCKET", New: func(job SocketJob) (http.Handler, func(), error) {
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(rw, "hello %s, sandbox %t", job.Plan.Repo, job.Box() != nil)
		}), func() { closed++ }, nil
	}}}
	p := w.plan(nil, head+"      - run: curl --silent --unix-socket \"$HELLO_SOCKET\" http://x/\n")
	p.Untrusted = false
	o := w.run(p)
	o.wants("hello o/r, sandbox true\n")
	if closed != 1 {
		t.Errorf("closed %d times", closed)
	}
}

func TestOutputsOfAJobAreBounded(t *testing.T) {
	w := newWorld(t)
	o := w.run(w.plan(nil, `on: push
jobs:
  a:
    runs-on: x
    outputs:
      small: ${{ steps.s.outputs.small }}
      large: ${{ steps.s.outputs.large }}
      secret: ${{ steps.s.outputs.secret }}
    steps:
      - id: s
        run: |
          echo "small=1" >> "$GITHUB_OUTPUT"
          echo "secret=x${{ secrets.PASSWORD }}" >> "$GITHUB_OUTPUT"
          echo "large=$(head -c 1100000 /dev/zero | tr '\0' x)" >> "$GITHUB_OUTPUT"
`))
	if len(o.Outputs) != 1 || o.Outputs["small"] != "1" || len(o.annotations) != 2 {
		t.Errorf("%d outputs, annotations %+v", len(o.Outputs), o.annotations)
	}
}

func TestCommandLine(t *testing.T) {
	for line, want := range map[string][]string{
		"bash -e {0}":             {"bash", "-e", "/s"},
		`pwsh -command ". '{0}'"`: {"pwsh", "-command", ". '/s'"},
		`a  "b c"d ""`:            {"a", "b cd", ""},
	} {
		if got, err := commandLine(line, "/s"); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q %v", line, got, err)
		}
	}
	for _, line := range []string{"", "  ", `a "b`} {
		if _, err := commandLine(line, "/s"); err == nil {
			t.Errorf("%q was read", line)
		}
	}
	for text, want := range map[string]string{`a 'b c' "d\"e" f\ g`: `["a" "b c" "d\"e" "f g"]`, `''`: `[""]`, "": "[]"} {
		if got, err := splitWords(text); err != nil || fmt.Sprintf("%q", got) != want {
			t.Errorf("%s: %q %v", text, got, err)
		}
	}
}
