package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	source    = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
	writeBack = "5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f80"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// script builds events: each line is "seconds commit stage status subject
// [key=value]… [| message]"; commits are S (source) and W (write-back). The
// keys file, line and hint fill those fields, underscores stand for spaces.
func script(t *testing.T, text string) []journal.Event {
	t.Helper()
	var events []journal.Event
	for line := range strings.Lines(text) {
		head, message, _ := strings.Cut(strings.TrimSpace(line), "|")
		f := strings.Fields(head)
		if len(f) == 0 {
			continue
		}
		at, err := strconv.ParseFloat(f[0], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		e := journal.Event{
			ID: int64(len(events) + 1), Time: start.Add(time.Duration(at*1000+0.5) * time.Millisecond), Repo: "contoso/storefront",
			Commit: map[string]string{"S": source, "W": writeBack, "-": ""}[f[1]], Stage: journal.Stage(f[2]),
			Status: journal.Status(f[3]), Subject: f[4], Message: strings.TrimSpace(message), Data: map[string]string{},
		}
		for _, pair := range f[5:] {
			k, v, _ := strings.Cut(pair, "=")
			v = strings.ReplaceAll(v, "_", " ")
			switch k {
			case "file":
				e.File = v
			case "line":
				e.Line, _ = strconv.Atoi(v)
			case "hint":
				e.Hint = v
			case "cause":
				e.Data[k] = map[string]string{"S": source, "W": writeBack}[v]
			default:
				e.Data[k] = v
			}
		}
		events = append(events, e)
	}
	return events
}

const pushed = `
0 S push succeeded refs/heads/main actor=alice author=Alice_Example subject=Say_hello_in_the_banner
`

const built = pushed + `
0.4 S run started ci.yaml run=1
0.5 S run started ci.yaml/build run=1 job=build
0.6 S run started ci.yaml/build run=1 job=build step=1
0.9 S run succeeded ci.yaml/build run=1 job=build step=1
1 S image started storefront.azurecr.io/web
15.2 S image succeeded storefront.azurecr.io/web digest=sha256:abc
15.9 W push succeeded refs/heads/main actor=github-actions[bot] cause=S subject=Pin_web_to_sha256:abc
16 S run succeeded ci.yaml/build run=1 job=build
16.1 S run succeeded ci.yaml run=1
`

const deployed = built + `
16.2 W render started argocd/storefront
16.5 W render succeeded argocd/storefront
16.5 W plan started argocd/storefront
16.6 W plan succeeded argocd/storefront | 1 to change
16.6 W apply started argocd/storefront
17.1 W apply succeeded argocd/storefront
17.1 W ready started argocd/storefront
18 W ready waiting argocd/storefront | Deployment web: 0 of 2 pods are available
21.4 W ready succeeded argocd/storefront
`

// cases are stories: what happened, when one looks, and what one should see.
var cases = map[string]struct {
	events string
	at     float64 // seconds after the push
	state  State
	now    string
}{
	"pushed":          {pushed, 3, StatePending, "After push of 1a2b3c4: nothing has picked it up yet, for 3.0s."},
	"pushed_for_long": {pushed, 90, StateIdle, "Nothing has happened since push of 1a2b3c4, 1m30s ago: no application took this commit."},
	"building": {`
		0 S push succeeded refs/heads/main actor=alice
		0.4 S run started ci.yaml run=1
		0.5 S run started ci.yaml/build run=1 job=build
		1 S image started storefront.azurecr.io/web
		2 S image info storefront.azurecr.io/web | step 4 of 9: go build`,
		9, StateRunning, "In image of storefront.azurecr.io/web for 8.0s: step 4 of 9: go build."},
	"written_back": {built, 16.4, StatePending, "After push of 5d6e7f8: nothing has picked it up yet, for 300ms."},
	"waiting": {strings.Split(deployed, "21.4 W")[0], 20, StateWaiting,
		"Waiting in ready of argocd/storefront for 2.9s: Deployment web: 0 of 2 pods are available."},
	"ready": {deployed, 500, StateReady, "argocd/storefront is ready at 5d6e7f8, 21.4s after the push."},
	"failed_step": {pushed + `
		0.4 S run started ci.yaml run=1
		0.5 S run started ci.yaml/test run=1 job=test
		0.6 S run started ci.yaml/test run=1 job=test step=2
		4 S run failed ci.yaml/test run=1 job=test step=2 file=.github/workflows/ci.yaml line=14 hint=run_«go_test_./...»_in_your_checkout | go test ./... ended with exit code 1: FAIL: TestBanner: got "Helo", want "Hello"
		4.1 S run failed ci.yaml/test run=1 job=test | step 2 failed
		4.1 S run skipped ci.yaml/build run=1 job=build | it needs test
		4.2 S run failed ci.yaml run=1 | job test failed`,
		60, StateFailed, `Failed in run of ci.yaml/test, 4.0s after the push: .github/workflows/ci.yaml:14: go test ./... ended with exit code 1: FAIL: TestBanner: got "Helo", want "Hello".`},
	"failed_step_run_goes_on": {pushed + `
		0.4 S run started ci.yaml run=1
		0.5 S run started ci.yaml/test run=1 job=test
		4 S run failed ci.yaml/test run=1 job=test | exit code 1`,
		6, StateRunning, "In run of ci.yaml for 5.6s."},
	"tolerated_failure": {strings.Replace(deployed, "0.9 S run succeeded", "0.9 S run failed", 1),
		60, StateReady, "argocd/storefront is ready at 5d6e7f8, 21.4s after the push."},
	"render_failed_then_fixed": {pushed + `
		1 S render started argocd/storefront
		1.2 S render failed argocd/storefront file=deploy/kustomization.yaml line=7 | no such file ../base
		31 S render started argocd/storefront
		31.2 S render succeeded argocd/storefront
		31.3 S ready started argocd/storefront
		33 S ready succeeded argocd/storefront`,
		60, StateReady, "argocd/storefront is ready at 1a2b3c4, 33.0s after the push."},
	"render_failed": {pushed + `
		1 S render started argocd/storefront
		1.2 S render failed argocd/storefront file=deploy/kustomization.yaml line=7 hint=add_the_file,_or_take_it_out_of_"resources" | no such file ../base`,
		2, StateFailed, "Failed in render of argocd/storefront, 1.2s after the push: deploy/kustomization.yaml:7: no such file ../base."},
	"run_failed_then_rerun": {pushed + `
		1 S run started ci.yaml run=1
		1 S run started ci.yaml/test run=1
		2 S run failed ci.yaml/test run=1 | flaky
		2 S run failed ci.yaml run=1
		9 S run started ci.yaml run=2
		9 S run started ci.yaml/test run=2
		10 S run succeeded ci.yaml/test run=2
		10 S run succeeded ci.yaml run=2`,
		11, StatePending, "After run of 1a2b3c4: nothing has picked it up yet, for 1.0s."},
	"child_superseded_parent": {pushed + `
		0.5 S run started ci.yaml run=1
		1 S render started argocd/storefront
		1.1 S render failed argocd/storefront | the image has no digest yet
		5 W push succeeded refs/heads/main cause=S
		5.1 S run succeeded ci.yaml run=1
		5.2 W render started argocd/storefront
		5.3 W render succeeded argocd/storefront
		6 W ready succeeded argocd/storefront`,
		60, StateReady, "argocd/storefront is ready at 5d6e7f8, 6.0s after the push."},
	"image_failed": {pushed + `
		0.5 S run started ci.yaml run=1
		0.5 S run started ci.yaml/build run=1
		1 S image started web
		3 S image failed web file=Dockerfile line=4 | "/nothing": not found
		3.1 S run failed ci.yaml/build run=1 file=.github/workflows/ci.yaml line=9 | step 3 failed
		3.2 S run failed ci.yaml run=1`,
		9, StateFailed, `Failed in image of web, 3.0s after the push: Dockerfile:4: "/nothing": not found.`},
	"image_failed_run_goes_on": {pushed + `
		0.5 S run started ci.yaml run=1
		1 S image started web
		3 S image failed web | no`,
		9, StateRunning, "In run of ci.yaml for 8.5s."},
	"child_took_over": {pushed + `
		1 S ready started argocd/storefront
		1 S ready waiting argocd/storefront | 0 of 1 pods
		5 W push succeeded refs/heads/main cause=S
		5.2 W render started argocd/storefront
		5.3 W render succeeded argocd/storefront
		6 W ready succeeded argocd/storefront`,
		6000, StateReady, "argocd/storefront is ready at 5d6e7f8, 6.0s after the push."},
	"not_affected": {pushed + `
		1 S render skipped argocd/storefront | not affected: none of 1 changed file is among the 4 inputs that it reads`,
		60, StateIdle, "No application took this commit: argocd/storefront: not affected: none of 1 changed file is among the 4 inputs that it reads."},
	"degraded_later": {deployed + `
		900 W ready failed argocd/storefront hint=kubectl_logs_-n_storefront_deploy/web | Deployment web: CrashLoopBackOff`,
		1000, StateFailed, "Failed in ready of argocd/storefront, 15m00s after the push: Deployment web: CrashLoopBackOff."},
	"drift_put_right": {deployed + `
		900 W plan started argocd/storefront
		900.1 W plan succeeded argocd/storefront
		900.1 W apply started argocd/storefront
		900.4 W apply succeeded argocd/storefront`,
		1000, StateReady, "argocd/storefront is ready at 5d6e7f8, 21.4s after the push."},
	"crash_and_again": {pushed + `
		1 S apply started argocd/storefront
		7 S apply started argocd/storefront
		7.5 S apply succeeded argocd/storefront
		8 S ready succeeded argocd/storefront`,
		10, StateReady, "argocd/storefront is ready at 1a2b3c4, 8.0s after the push."},
	"end_written_before_start": {pushed + `
		3 S render succeeded argocd/storefront
		1 S render started argocd/storefront
		4 S ready succeeded argocd/storefront`,
		10, StateReady, "argocd/storefront is ready at 1a2b3c4, 4.0s after the push."},
	"cancelled": {pushed + `
		1 S render started argocd/storefront
		2 S render cancelled argocd/storefront | commit 9f8e7d6 is newer`,
		3, StateCancelled, "Cancelled in render of argocd/storefront: commit 9f8e7d6 is newer."},
	"hostile_text": {"0 S push succeeded refs/heads/main subject=\x1b[31mred\x07 author=a\u202eb\n" +
		"1 S run failed ci.yaml | \x1b]0;title\x07" + strings.Repeat("wide ", 40) + strings.Repeat("x", 150),
		3, StateFailed, "*"},
}

func TestStories(t *testing.T) {
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			now := start.Add(time.Duration(tc.at*1000) * time.Millisecond)
			traces := Build(script(t, tc.events), now)
			if len(traces) != 1 {
				t.Fatalf("%d traces, want 1", len(traces))
			}
			got := traces[0]
			if got.State != tc.state || got.Now != tc.now && tc.now != "*" {
				t.Errorf("stands at %s: %s\n want      %s: %s", got.State, got.Now, tc.state, tc.now)
			}
			if (got.Failed != nil) != (tc.state == StateFailed) || (got.Waiting != nil) != (tc.state == StateWaiting) {
				t.Errorf("state %s with failed %v, waiting %v", got.State, got.Failed, got.Waiting)
			}
			var sum Duration
			for _, s := range got.Spent {
				sum += s.Time
			}
			if sum != got.Total {
				t.Errorf("spent %v in all, total is %v", time.Duration(sum), time.Duration(got.Total))
			}
			golden(t, name+".txt", draw(t, got, Style{}))
		})
	}
}

func TestRenderColourAndWidths(t *testing.T) {
	got := Build(script(t, cases["failed_step"].events), start.Add(time.Minute))[0]
	golden(t, "failed_step_colour.txt", draw(t, got, Style{Color: true}))
	for name, tc := range cases {
		tr := Build(script(t, tc.events), start.Add(time.Duration(tc.at*1000)*time.Millisecond))[0]
		for _, width := range []int{0, 1, 60, 80, 120, 9999} {
			limit := max(60, min(width, maxWidth))
			if width == 0 {
				limit = 80
			}
			for line := range strings.Lines(draw(t, tr, Style{Width: width})) {
				if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > limit {
					t.Errorf("%s at %d columns: %d columns in %q", name, width, n, line)
				}
				if strings.ContainsAny(line, "\x1b\x07\u202e") {
					t.Errorf("%s: control characters in %q", name, line)
				}
			}
		}
	}
	wide := Build(script(t, deployed), start.Add(time.Minute))[0]
	golden(t, "ready_120.txt", draw(t, wide, Style{Width: 120}))
}

func TestCausesInACircleEnd(t *testing.T) {
	traces := Build(script(t, "0 S push succeeded r cause=W\n1 W push succeeded r cause=S"), start)
	n := 0
	for i := range traces {
		traces[i].each(func(*Trace) { n++ })
	}
	if n != 2 {
		t.Errorf("%d commits drawn, want each of the 2 once", n)
	}
}

func TestLoadFollowsCausesBothWays(t *testing.T) {
	j, err := journal.Open(t.Context(), filepath.Join(t.TempDir(), "j"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	for _, e := range script(t, deployed) {
		if _, err := j.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	now := start.Add(time.Minute)
	want := Build(script(t, deployed), now)[0]
	for _, ask := range []string{source, writeBack, "1a2b", "5D6E7F8"} {
		got, err := LoadAt(t.Context(), j, ask, now)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Load(%s) -want +got:\n%s", ask, diff)
		}
	}
	for _, ask := range []string{"ffff", "1a2", "", "xyz123", "1a2b%"} {
		if _, err := Load(t.Context(), j, ask); !errors.Is(err, ErrUnknown) {
			t.Errorf("Load(%q) = %v, want ErrUnknown", ask, err)
		}
	}
	if _, err := j.Append(t.Context(), journal.Event{Commit: "1a2b" + strings.Repeat("0", 36), Stage: journal.StagePush, Status: journal.StatusSucceeded}); err != nil {
		t.Fatal(err)
	}
	var ambiguous *AmbiguousError
	if _, err := Load(t.Context(), j, "1a2b"); !errors.As(err, &ambiguous) || len(ambiguous.Commits) != 2 {
		t.Errorf("Load(1a2b) = %v, want two commits to choose from", err)
	}
	// A newer commit of the same application ends what nobody ends otherwise.
	old := strings.Repeat("ab", 20)
	for _, e := range []journal.Event{
		{Time: start, Commit: old, Stage: journal.StagePush, Subject: "refs/heads/main", Status: journal.StatusSucceeded},
		{Time: start, Commit: old, Stage: journal.StageReady, Subject: "argocd/storefront", Status: journal.StatusWaiting},
		{Time: start.Add(time.Second), Commit: strings.Repeat("cd", 20), Stage: journal.StageApply, Subject: "argocd/storefront", Status: journal.StatusStarted},
	} {
		if _, err := j.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := LoadAt(t.Context(), j, old, now); err != nil || got.State != StateCancelled || got.Now != "Cancelled in ready of argocd/storefront: commit cdcdcdc took its place." {
		t.Errorf("a commit that was replaced: %v, %s: %s", err, got.State, got.Now)
	}
	list, next, err := Recent(t.Context(), j, "", 0, 2, now)
	if err != nil || len(list) != 2 || next == 0 || list[0].Commit != old {
		t.Fatalf("Recent = %d traces, next %d, %v; want the newest two", len(list), next, err)
	}
	if list, next, err = Recent(t.Context(), j, "", next, 3, now); err != nil || len(list) != 1 || next != 0 || list[0].Commit != source {
		t.Errorf("second page = %d traces, next %d, %v; want the chain alone", len(list), next, err)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	want := Build(script(t, cases["waiting"].events), start.Add(20*time.Second))[0]
	body, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(body, []byte(`"totalMs":20000`)) {
		t.Errorf("durations are not milliseconds: %s", body)
	}
	var got Trace
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFormat(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Microsecond: "1ms", 120 * time.Millisecond: "120ms", 4250 * time.Millisecond: "4.2s",
		59990 * time.Millisecond: "59.9s", 185 * time.Second: "3m05s", 127 * time.Minute: "2h07m", 76 * time.Hour: "3d4h",
	} {
		if got := Format(d); got != want {
			t.Errorf("Format(%v) = %s, want %s", d, got, want)
		}
	}
}

func draw(t *testing.T, tr Trace, style Style) string {
	t.Helper()
	var b strings.Builder
	if err := Render(&b, tr, style); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s\n%s", path, diff, got)
	}
}
