package actions

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

const loopWorkflow = `name: loop
on:
  push:
    branches: [main]
    paths-ignore: ["deploy/**"]
permissions:
  contents: write
env:
  IMAGE: ${{ vars.REGISTRY }}/storefront
jobs:
  build:
    runs-on: ubuntu-latest
    outputs:
      digest: ${{ steps.build.outputs.digest }}
      leaked: ${{ steps.leak.outputs.leaked }}
    steps:
      - uses: actions/checkout@v4
      - uses: docker/setup-buildx-action@v3
      - uses: docker/login-action@v3
        with:
          registry: ${{ vars.REGISTRY }}
          username: user
          password: ${{ secrets.PASSWORD }}
      - id: build
        uses: docker/build-push-action@v6
        with:
          context: .
          push: true
          tags: ${{ env.IMAGE }}:${{ github.sha }}
          build-args: VERSION=${{ github.sha }}
          cache-from: type=gha
      - id: leak
        run: |
          echo "leaked=${{ secrets.PASSWORD }}" >> "$GITHUB_OUTPUT"
          echo "the password is ${{ secrets.PASSWORD }}"
          printf '%s' '${{ secrets.PASSWORD }}' | base64
          echo "### Built" >> "$GITHUB_STEP_SUMMARY"
  never:
    if: github.ref == 'refs/heads/other'
    runs-on: ubuntu-latest
    steps:
      - run: exit 1
  pin:
    needs: [build]
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - name: Pin
        working-directory: deploy
        env:
          DIGEST: ${{ needs.build.outputs.digest }}
        run: kustomize edit set image "storefront=${IMAGE}@${DIGEST}"
      - name: Commit and push
        run: |
          git config user.name "github-actions[bot]"
          git config user.email "bot@example.com"
          git commit --quiet --all --message "deploy: pin for ${GITHUB_SHA::12}"
          git push
`

func TestPushBuildPinPush(t *testing.T) {
	w := newWorld(t)
	if err := w.engine.SetVariable(t.Context(), "o/r", "REGISTRY", "example.azurecr.io"); err != nil {
		t.Fatal(err)
	}
	if err := w.engine.SetSecret(t.Context(), "o/r", "PASSWORD", []byte("hunter2-hunter2")); err != nil {
		t.Fatal(err)
	}
	commit := w.push("first", map[string]string{
		".github/workflows/loop.yml": loopWorkflow, "Dockerfile": "FROM scratch\n", "main.go": "package main\n",
		"deploy/kustomization.yaml": "images:\n- name: storefront\n  newTag: none\n",
	})
	r := w.ended(commit, "loop.yml")
	if r.Conclusion != "success" {
		w.dump()
		t.Fatalf("run: %+v", r.Problem)
	}
	digest := "sha256:" + strings.Repeat("ab", 32)
	if b := w.builds; len(b) != 1 || b[0].Tags[0] != "example.azurecr.io/storefront:"+commit || !b[0].Push || b[0].BuildArgs["VERSION"] != commit ||
		b[0].Credentials["example.azurecr.io"] != (Credential{Username: "user", Password: "hunter2-hunter2"}) {
		t.Errorf("build %+v", b)
	}
	// The pin is on main, pushed by the job with its own token.
	pinned, err := w.repo.ReadFile(t.Context(), "main", "deploy/kustomization.yaml")
	if err != nil || !strings.Contains(string(pinned), digest) || !strings.Contains(string(pinned), "example.azurecr.io/storefront") {
		t.Errorf("pinned %s %v", pinned, err)
	}
	if c, _ := w.repo.Commit(t.Context(), "main"); c.Subject != "deploy: pin for "+commit[:12] || c.Parents[0] != commit {
		t.Errorf("commit %+v", c)
	}
	// Nothing shows the secret or the token.
	build := w.job(r, "build")
	if build.Outputs["digest"] != digest || build.Outputs["leaked"] != "" || !strings.Contains(build.Summary, "### Built") {
		t.Errorf("outputs %v, summary %q", build.Outputs, build.Summary)
	}
	all := w.log(r, "build") + w.log(r, "pin")
	for _, secret := range []string{"hunter2-hunter2", jobTokenText, "aHVudGVyMi1odW50ZXIy"} {
		if strings.Contains(all, secret) {
			t.Errorf("the log shows %s", secret)
		}
	}
	if !strings.Contains(all, "the password is ***") {
		t.Errorf("log\n%s", all)
	}
	if never := w.job(r, "never"); never.Conclusion != "skipped" || never.Note != "its if is false" {
		t.Errorf("never: %+v", never)
	}
	if c := w.check(commit, "pin"); c.Conclusion != "success" || c.Workflow != "loop" || !strings.Contains(c.Title, "Successful in") {
		t.Errorf("check %+v", c)
	}
	for _, tok := range w.tokens {
		if !tok.Write("contents") || tok.Repo != "o/r" || tok.Commit != commit || tok.Run != r.ID {
			t.Errorf("token %+v", tok)
		}
	}
	if w.revoked != len(w.tokens) || len(w.tokens) != 2 {
		t.Errorf("%d tokens, %d revoked", len(w.tokens), w.revoked)
	}
	// The job's push starts nothing.
	head, _ := w.repo.Resolve(t.Context(), "main")
	w.tellPush(head, "github-actions[bot]")
	// A person's push that only touches deploy/ starts nothing either, and says so.
	last := w.push("by hand", map[string]string{"deploy/note": "x"})
	e := w.event(0, func(e journal.Event) bool { return e.Commit == last })
	if e.Status != journal.StatusSkipped || e.Subject != "loop.yml" || e.Line != 5 || !strings.Contains(e.Message, "path filters") {
		t.Errorf("%+v", e)
	}
	if runs, _ := w.engine.Runs(t.Context(), Filter{}); len(runs) != 1 {
		t.Errorf("%d runs", len(runs))
	}
}

func TestStepsSeeWhatGitHubShowsThem(t *testing.T) {
	w := newWorld(t)
	commit := w.push("env", map[string]string{".github/workflows/env.yml": `on: push
env:
  FROM_WORKFLOW: ${{ github.event_name }}
jobs:
  a:
    runs-on: ubuntu-latest
    env:
      FROM_JOB: j-${{ github.event_name }}
    outputs:
      all: ${{ steps.set.outputs.all }}
    steps:
      - run: |
          for v in CI GITHUB_ACTIONS GITHUB_REPOSITORY GITHUB_REF GITHUB_REF_NAME GITHUB_REF_TYPE GITHUB_EVENT_NAME GITHUB_WORKSPACE HOME RUNNER_TEMP RUNNER_OS FROM_CONFIG FROM_WORKFLOW FROM_JOB FROM_STEP; do
            echo "$v=${!v}"
          done
          pwd
          env | grep -c '^PATH='
          test -z "$(env | grep -i -e secret -e AWS -e SSH)" && echo clean
          test -s "$GITHUB_EVENT_PATH" && grep -o '"full_name": "o/r"' "$GITHUB_EVENT_PATH" | head -1
        env:
          FROM_STEP: s-${{ env.FROM_JOB }}
      - id: set
        run: |
          {
            echo 'all<<EOF'
            echo 'one'
            echo 'two'
            echo 'EOF'
          } >> "$GITHUB_OUTPUT"
          echo "LATER=set before" >> "$GITHUB_ENV"
          mkdir -p tools && printf '#!/bin/sh\necho from my tool\n' > tools/mytool && chmod +x tools/mytool
          echo "$PWD/tools" >> "$GITHUB_PATH"
      - run: echo "$LATER"; mytool; echo "${{ env.LATER }} $FROM_STEP."
      - id: fails
        continue-on-error: true
        run: exit 3
      - run: echo "outcome ${{ steps.fails.outcome }} conclusion ${{ steps.fails.conclusion }} ${{ job.status }}"
      - if: failure()
        run: echo not reached
      - run: |
          echo "::add-mask::run-time-secret"
          echo "value run-time-secret"
          echo "::warning file=main.go,line=7::look here"
          echo "::group::Folded"
          echo "::stop-commands::tok"
          echo "::error::not a command"
          echo "::tok::"
          echo "::notice::after"
      - shell: sh
        run: echo "sh $0" | sed 's/_temp.*/_temp/'
      - run: false | true; echo "no pipefail by default"
      - shell: bash
        run: false | true
        continue-on-error: true
      - run: echo "${{ hashFiles('**/*.yml') }}"
  b:
    needs: a
    runs-on: ubuntu-latest
    steps:
      - run: echo '${{ toJSON(needs) }}'
`})
	r := w.ended(commit, "env.yml")
	if r.Conclusion != "success" {
		w.dump()
		t.Fatalf("run %+v", r.Problem)
	}
	log := w.log(r, "a")
	for _, want := range []string{
		"CI=true\nGITHUB_ACTIONS=true\nGITHUB_REPOSITORY=o/r\nGITHUB_REF=refs/heads/main\nGITHUB_REF_NAME=main\nGITHUB_REF_TYPE=branch\nGITHUB_EVENT_NAME=push\nGITHUB_WORKSPACE=/home/runner/work/r/r\nHOME=/home/runner\nRUNNER_TEMP=/home/runner/work/_temp\nRUNNER_OS=Linux\nFROM_CONFIG=yes\nFROM_WORKFLOW=push\nFROM_JOB=j-push\nFROM_STEP=s-j-push\n/home/runner/work/r/r\n1\nclean\n\"full_name\": \"o/r\"\n",
		"set before\nfrom my tool\nset before .\n", "outcome failure conclusion success success\n",
		"value ***\n", "##[group]Folded\n", "::error::not a command\n", "##[notice]after\n", "sh /home/runner/work/_temp\n", "no pipefail by default\n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("log lacks\n%s", want)
		}
	}
	if t.Failed() {
		t.Log(log)
	}
	if strings.Contains(log, "echo not reached\nshell") || w.job(r, "a").Outputs["all"] != "one\ntwo" {
		t.Errorf("outputs %q", w.job(r, "a").Outputs)
	}
	a := w.job(r, "a").Annotations
	if len(a) != 2 || a[0].File != "main.go" || a[0].Line != 7 || a[0].Level != "warning" || a[1].Message != "after" {
		t.Errorf("annotations %+v", a)
	}
	if got := w.log(r, "b"); !strings.Contains(got, `"result": "success"`) || !strings.Contains(got, `"all": "one\ntwo"`) {
		t.Errorf("needs\n%s", got)
	}
}

func TestFailuresSayWhere(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, workflow, message, hint string
		line                          int
		job                           string // whose log must exist, "" when nothing may have started
	}{
		{"typo", "on: push\njobs:\n  a:\n    runs-on: x\n    stepz:\n      - run: echo\n", `unknown key "stepz" in "job" section`, `did you mean "steps"?`, 5, ""},
		{"needs", "on: push\njobs:\n  a:\n    runs-on: x\n    needs: b\n    steps:\n      - run: echo\n", `job "a" needs job "b", which does not exist`, "this file has no other job", 5, ""},
		{"uses", "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo\n      - uses: someone/thing@v1\n", `a: action "someone/thing@v1" is not on this machine: the forge has no repository someone/thing`, "lockstep action import someone/thing@v1", 7, ""},
		{"step", "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo fine\n      - name: Break\n        run: |\n          echo about to break\n          exit 4\n", "a: Process completed with exit code 4.", "", 7, "a"},
		{"error command", "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo '::error file=src/x.go,line=12::bad x' && exit 1\n", "a: Process completed with exit code 1.", "", 12, "a"},
		{"expression", "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: |\n          echo\n          echo ${{ fromJSON('{') }}\n", "a: bad expression: Error parsing fromJson: empty or incomplete JSON", "", 8, "a"},
		{"timeout", "on: push\njobs:\n  a:\n    runs-on: x\n    timeout-minutes: 0.01\n    steps:\n      - run: sleep 60\n", "a: the job ran longer than its timeout-minutes", "raise timeout-minutes", 5, "a"},
		{"matrix", "on: push\njobs:\n  a:\n    runs-on: x\n    strategy:\n      matrix:\n        v: ${{ fromJSON('3') }}\n    steps:\n      - run: echo\n", `a: matrix: "v" of the matrix is not a list`, "", 6, ""},
		{"git output", "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo nonsense >> $GITHUB_OUTPUT\n", `a: GITHUB_OUTPUT: line 1: "nonsense" is neither name=value nor name<<DELIMITER`, "", 6, "a"},
		{"login", "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - uses: docker/login-action@v3\n        with:\n          registry: r\n          username: ${{ secrets.NOT_SET }}\n", `a: username is required to log in to "r", and is empty`, "set the secret", 6, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			commit := w.push(c.name, map[string]string{".github/workflows/bad.yml": c.workflow})
			e := w.event(0, func(e journal.Event) bool { return e.Commit == commit && e.Subject == "bad.yml" && e.Status.Closes() })
			if e.Status != journal.StatusFailed || e.Message != c.message || e.Line != c.line || !strings.HasPrefix(e.Hint, c.hint) {
				if !(c.job != "" && strings.HasSuffix(e.Message, strings.TrimPrefix(c.message, "a: ")) && e.Line == c.line && strings.HasPrefix(e.Hint, c.hint)) {
					t.Errorf("event %+v", e)
				}
			}
			r := w.ended(commit, "bad.yml")
			if r.Conclusion != "failure" {
				t.Errorf("conclusion %s", r.Conclusion)
			}
			started := 0
			for _, j := range r.Jobs {
				started += len(j.Steps)
			}
			if (started > 0) != (c.job != "") {
				t.Errorf("%d steps were started", started)
			}
			name := "a"
			if c.job == "" && len(r.Jobs) == 0 {
				name = ".github/workflows/bad.yml"
			}
			if s := w.check(commit, name); s.Conclusion != "failure" || !strings.Contains(s.Title, fmt.Sprintf(":%d: ", c.line)) {
				t.Errorf("check %s: %+v", name, s)
			}
		})
	}
}

func TestAFailedStepShowsItsLastLines(t *testing.T) {
	w := newWorld(t)
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - name: Break\n        run: |\n          echo about to break\n          exit 4\n      - if: always()\n        run: echo cleaning up\n"})
	e := w.event(0, func(e journal.Event) bool { return e.Commit == commit && e.Subject == "ci.yml/a" && e.Status.Closes() })
	if e.Message != `step "Break": Process completed with exit code 4.` || e.Data["tail"] != "about to break" || e.Data["failed_step"] != "2" || e.Data[journal.DataStep] != "" || e.File != ".github/workflows/ci.yml" {
		t.Errorf("%+v", e)
	}
	if log := w.log(w.ended(commit, "ci.yml"), "a"); !strings.Contains(log, "cleaning up") {
		t.Errorf("log\n%s", log)
	}
}

func TestCancelEndsEveryProcess(t *testing.T) {
	w := newWorld(t)
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": `on: push
jobs:
  long:
    runs-on: x
    steps:
      - run: |
          setsid sleep 4242 &
          sleep 4242
      - if: success()
        run: echo not reached
      - if: cancelled()
        run: echo was cancelled
  after:
    needs: long
    runs-on: x
    steps:
      - run: echo
`})
	w.event(0, func(e journal.Event) bool { return e.Subject == "ci.yml/long" && e.Status == journal.StatusStarted })
	deadline := time.Now().Add(20 * time.Second)
	for sleepers(t) == nil && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	pids := sleepers(t)
	if len(pids) == 0 {
		t.Fatal("the step did not start")
	}
	runs, err := w.engine.Runs(t.Context(), Filter{Commit: commit})
	if err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	if err := w.engine.Cancel(t.Context(), runs[0].ID); err != nil {
		t.Fatal(err)
	}
	r := w.ended(commit, "ci.yml")
	if r.Conclusion != "cancelled" || w.job(r, "long").Conclusion != "cancelled" || w.job(r, "after").Conclusion != "cancelled" {
		t.Errorf("%+v", r)
	}
	if log := w.log(r, "long"); strings.Contains(log, "\nnot reached") || !strings.Contains(log, "\nwas cancelled") {
		t.Errorf("log\n%s", log)
	}
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d is left", pid)
		}
	}
	if err := w.engine.Cancel(t.Context(), r.ID); err == nil {
		t.Error("cancelled twice")
	}
}

// sleepers finds the processes of the test above.
func sleepers(t *testing.T) (pids []int) {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && string(data) == "sleep\x004242\x00" {
			var pid int
			_, _ = fmt.Sscan(filepath.Base(filepath.Dir(f)), &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestAStopInterruptsAndARerunSucceeds(t *testing.T) {
	w := newWorld(t)
	flag := `if [ "$GITHUB_RUN_ATTEMPT" = 1 ]; then sleep 300; fi; echo attempt $GITHUB_RUN_ATTEMPT`
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": "on: push\njobs:\n  quick:\n    runs-on: x\n    outputs: {v: '${{ steps.s.outputs.v }}'}\n    steps:\n      - id: s\n        run: echo v=kept >> $GITHUB_OUTPUT\n  a:\n    needs: quick\n    runs-on: x\n    steps:\n      - run: |\n          " + flag + "\n          echo ${{ needs.quick.outputs.v }}\n"})
	w.event(0, func(e journal.Event) bool { return e.Subject == "ci.yml/a" && e.Status == journal.StatusStarted })
	w.stop()
	w.start()
	r := w.ended(commit, "ci.yml")
	if r.Conclusion != "failure" || r.Problem == nil || r.Problem.Message != interrupted().Message || w.job(r, "a").Problem.Message != interrupted().Message {
		t.Fatalf("%+v %+v", r, r.Problem)
	}
	last, _ := w.journal.Last(t.Context())
	if _, err := w.engine.Rerun(t.Context(), r.ID, true); err != nil {
		t.Fatal(err)
	}
	e := w.event(last, func(e journal.Event) bool { return e.Subject == "ci.yml" && e.Status.Closes() })
	if r, _ = w.engine.GetRun(t.Context(), r.ID); e.Status != journal.StatusSucceeded || r.Attempt != 2 {
		t.Errorf("%+v %+v", e, r)
	}
	if log := w.log(r, "a"); !strings.Contains(log, "attempt 2\nkept\n") || !strings.Contains(w.job(r, "quick").Note, "taken over") {
		t.Errorf("log\n%s\n%+v", log, w.job(r, "quick"))
	}
}

func TestKilledRunsAreMarkedAndUnreadPushesStart(t *testing.T) {
	w := newWorld(t)
	w.stop()
	// What kill -9 leaves: a run going on, one queued, and a push not read.
	db, err := store.Open(t.Context(), filepath.Join(w.dir, "state"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo hi\n"})
	going, err := db.CreateRun(t.Context(), Run{Repo: "o/r", File: ".github/workflows/old.yml", Name: "old", Attempt: 1, Commit: commit, Status: store.InProgress}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Change(t.Context(), true, func(tx *store.Tx) error {
		return tx.SaveJob(&Job{RunID: going.ID, Attempt: 1, Key: "a", Name: "a", Status: store.InProgress, Steps: []Step{{Number: 1, Status: store.InProgress}}})
	}); err != nil {
		t.Fatal(err)
	}
	queued, err := db.CreateRun(t.Context(), Run{Repo: "o/r", File: ".github/workflows/ci.yml", Ref: "refs/heads/main", Name: "queued", Attempt: 1, Commit: commit, Status: store.Queued, Event: "push"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	w.start()
	old := w.ended(commit, "old.yml")
	if old.Conclusion != "failure" || old.Problem.Hint == "" || old.Jobs[0].Conclusion != "failure" || old.Jobs[0].Steps[0].Status != store.Completed {
		t.Errorf("%+v", old)
	}
	e := w.event(0, func(e journal.Event) bool { return e.Subject == "old.yml" && e.Status.Closes() })
	if e.Status != journal.StatusFailed || e.Message != interrupted().Message {
		t.Errorf("%+v", e)
	}
	count := 0
	w.event(0, func(e journal.Event) bool {
		if e.Subject == "ci.yml" && e.Status == journal.StatusSucceeded {
			count++
		}
		return count == 2
	})
	if r, _ := w.engine.GetRun(t.Context(), queued.ID); r.Conclusion != "success" {
		t.Errorf("queued run: %+v", r)
	}
}

func TestMatrixAndConcurrency(t *testing.T) {
	w := newWorld(t)
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": `on: push
concurrency: one
jobs:
  m:
    runs-on: ${{ matrix.os }}
    strategy:
      matrix:
        os: [a, b]
        include: [{os: a, extra: more}]
    steps:
      - run: echo "${{ matrix.os }}-${{ matrix.extra }}-${{ strategy.job-index }}/${{ strategy.job-total }}"
`})
	r := w.ended(commit, "ci.yml")
	if got := w.log(r, "m (a)"); r.Conclusion != "success" || !strings.Contains(got, "\na-more-0/2\n") {
		t.Errorf("%v\n%s", r.Problem, got)
	}
	if got := w.log(r, "m (b)"); !strings.Contains(got, "\nb--1/2\n") {
		t.Errorf("%s", got)
	}
	// Three pushes: the first runs, the second gives way to the third.
	slow := func(n int) string {
		return fmt.Sprintf("on: push\nconcurrency: two\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: sleep %d\n", n)
	}
	first := w.push("1", map[string]string{".github/workflows/ci.yml": slow(3)})
	w.event(0, func(e journal.Event) bool { return e.Commit == first && e.Subject == "ci.yml/a" })
	second := w.push("2", map[string]string{".github/workflows/ci.yml": slow(0)})
	waiting := w.event(0, func(e journal.Event) bool { return e.Commit == second && e.Status == journal.StatusWaiting })
	if !strings.Contains(waiting.Message, "concurrency group") {
		t.Errorf("%+v", waiting)
	}
	third := w.push("3", map[string]string{".github/workflows/ci.yml": slow(0) + "# 3\n"})
	if r := w.ended(second, "ci.yml"); r.Conclusion != "cancelled" {
		t.Errorf("second %+v", r)
	}
	for _, c := range []string{first, third} {
		if r := w.ended(c, "ci.yml"); r.Conclusion != "success" {
			t.Errorf("%s: %+v", c, r)
		}
	}
	fourth := w.push("4", map[string]string{".github/workflows/ci.yml": slow(60)})
	w.event(0, func(e journal.Event) bool { return e.Commit == fourth && e.Subject == "ci.yml/a" })
	fifth := w.push("5", map[string]string{".github/workflows/ci.yml": strings.Replace(slow(0), "concurrency: two", "concurrency: {group: two, cancel-in-progress: true}", 1)})
	if r := w.ended(fourth, "ci.yml"); r.Conclusion != "cancelled" {
		t.Errorf("fourth %+v", r)
	}
	if r := w.ended(fifth, "ci.yml"); r.Conclusion != "success" {
		t.Errorf("fifth %+v", r)
	}
}

func TestSetupGo(t *testing.T) {
	if _, err := os.Stat("/usr/local/go/bin/go"); err != nil {
		t.Skip("this machine's Go is elsewhere")
	}
	w := newWorld(t)
	workflow := func(version string) string {
		return "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - uses: actions/checkout@v4\n      - uses: actions/setup-go@v5\n        with: {" + version + "}\n      - run: go test ./...\n"
	}
	files := map[string]string{".github/workflows/ci.yml": workflow("go-version-file: go.mod"), "go.mod": "module example.com/x\n\ngo 1.22\n", "x_test.go": "package x\n\nimport \"testing\"\n\nfunc TestX(*testing.T) {}\n"}
	r := w.ended(w.push("go", files), "ci.yml")
	if r.Conclusion != "success" || !strings.Contains(w.log(r, "a"), "Using Go 1.") || !strings.Contains(w.log(r, "a"), "ok  \texample.com/x") {
		t.Fatalf("%+v\n%s", r.Problem, w.log(r, "a"))
	}
	first := took(w.job(r, "a"))
	files[".github/workflows/ci.yml"] = workflow("go-version: '1.21'")
	r = w.ended(w.push("older", files), "ci.yml")
	a := w.job(r, "a").Annotations
	if r.Conclusion != "success" || len(a) != 1 || a[0].Level != "warning" || !strings.Contains(a[0].Message, "Go 1.21 is asked for") {
		t.Errorf("%+v %+v", r.Problem, a)
	}
	t.Logf("first go test %v, second %v", first, took(w.job(r, "a")))
	files[".github/workflows/ci.yml"] = workflow("go-version: '1.99'")
	if r = w.ended(w.push("newer", files), "ci.yml"); r.Conclusion != "failure" || !strings.Contains(r.Problem.Message, "Go 1.99 is asked for, but this machine has") || r.Problem.Line != 7 {
		t.Errorf("%+v", r.Problem)
	}
}

func took(j Job) time.Duration { return j.Ended.Sub(j.Started) }

func TestALinkInTheRepositoryLeadsNowhere(t *testing.T) {
	w := newWorld(t)
	outside := t.TempDir()
	if err := os.WriteFile(outside+"/Dockerfile", []byte("FROM scratch\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": `on: push
jobs:
  context:
    runs-on: x
    steps:
      - run: ln -s ` + outside + ` ctx
      - uses: docker/build-push-action@v6
        with: {context: ctx}
  dockerfile:
    runs-on: x
    steps:
      - run: ln -s /etc/shadow Dockerfile
      - uses: docker/build-push-action@v6
        with: {context: .}
  output:
    runs-on: x
    steps:
      - run: rm "$GITHUB_OUTPUT" && ln -s /etc/passwd "$GITHUB_OUTPUT"
`})
	r := w.ended(commit, "ci.yml")
	if j := w.job(r, "context"); j.Conclusion != "failure" || !strings.Contains(j.Problem.Message, `build context "ctx"`) || len(w.builds) > 0 {
		t.Errorf("%+v", j.Problem)
	}
	if j := w.job(r, "dockerfile"); j.Conclusion != "failure" || !strings.Contains(j.Problem.Message, `Dockerfile "Dockerfile" cannot be used`) {
		t.Errorf("%+v", j.Problem)
	}
	if j := w.job(r, "output"); j.Conclusion != "failure" || !strings.Contains(j.Problem.Message, "GITHUB_OUTPUT") {
		t.Errorf("%+v", j.Problem)
	}
}

func TestDockerfileErrorsCarryTheirPlace(t *testing.T) {
	w := newWorld(t)
	w.buildErr = &LocatedError{File: "Dockerfile", Line: 3, Msg: "unknown instruction: RNU", Hint: "did you mean RUN?"}
	commit := w.push("x", map[string]string{"app/Dockerfile": "FROM scratch\n", ".github/workflows/ci.yml": `on: push
jobs:
  a:
    runs-on: x
    steps:
      - uses: actions/checkout@v4
      - uses: docker/build-push-action@v6
        with: {context: app}
`})
	if p := w.job(w.ended(commit, "ci.yml"), "a").Problem; p == nil || p.File != "app/Dockerfile" || p.Line != 3 || p.Hint != "did you mean RUN?" || p.Message != "unknown instruction: RNU" {
		t.Errorf("%+v", p)
	}
}
