package cli_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/lockstep-gitops/lockstep/internal/cli"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/server"
	"github.com/lockstep-gitops/lockstep/internal/server/servertest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is a state folder with, perhaps, a running platform.
type machine struct {
	*servertest.Platform
	dir     string
	streams output.Streams // In, terminals and Width of the next command
	env     map[string]string
}

type result struct {
	code     int
	out, err string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "ls") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "lockstep"), 0o700); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), filepath.Join(dir, "lockstep", "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return &machine{Platform: servertest.New(j), dir: dir, env: map[string]string{}}
}

// start serves the platform until the test ends or stop is called.
func (m *machine) start(t *testing.T) (stop func()) {
	t.Helper()
	config := server.Config{Socket: filepath.Join(m.dir, "lockstep", "lockstep.sock"), Coalesce: 10 * time.Millisecond}
	s, err := server.New(config, m.Deps())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	stop = func() {
		if cancel(); done != nil {
			if err := <-done; err != nil {
				t.Error(err)
			}
			done = nil
		}
	}
	t.Cleanup(stop)
	return stop
}

func playing(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t)
	if err := m.Play(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	return m
}

func (m *machine) run(ctx context.Context, args ...string) result {
	var out, errs bytes.Buffer
	streams := m.streams
	streams.Out, streams.Err = &out, &errs
	if streams.In == nil {
		streams.In = strings.NewReader("")
	}
	code := cli.Main(ctx, cli.Options{Streams: streams, Version: "v0.1.0", Now: m.Now, Location: time.UTC,
		Getenv: func(name string) string {
			if name == "LOCKSTEP_STATE_DIR" {
				return m.dir
			}
			return m.env[name]
		}}, args)
	return result{code, out.String(), strings.ReplaceAll(errs.String(), m.dir, "$STATE")}
}

func TestOutputs(t *testing.T) {
	m := playing(t)
	for name, tc := range map[string]struct {
		args string
		code int
	}{
		"status":            {"status", 0},
		"status_yaml":       {"status -o yaml", 0},
		"trace_list":        {"trace", 0},
		"trace_app":         {"trace storefront", 0},
		"trace_prefix":      {"trace 9f8e7", 0},
		"trace_name":        {"trace 1a2b -o name", 0},
		"trace_app_behind":  {"trace ledger", 0},
		"trace_unknown":     {"trace 0000", 1},
		"trace_nonsense":    {"trace nobody", 1},
		"trace_follow":      {"trace 1a2b3c4 --follow", 0},
		"trace_follow_fail": {"trace 9f8e7d6 --follow", 1},
		"trace_follow_none": {"trace --follow", 1},
		"app_list":          {"app list", 0},
		"app_list_name":     {"app list -o name", 0},
		"app_get":           {"app get storefront", 0},
		"app_get_degraded":  {"app get argocd/ledger", 0},
		"app_get_json":      {"app get ledger -o json", 0},
		"app_get_unknown":   {"app get nobody", 1},
		"app_diff":          {"app diff storefront", 20},
		"app_sync":          {"app sync storefront --prune", 0},
		"app_sync_dry":      {"app sync storefront --dry-run", 20},
		"app_sync_wait":     {"app sync storefront --wait", 0},
		"app_wait":          {"app wait storefront", 0},
		"app_wait_commit":   {"app wait storefront --commit 1111 --timeout 100ms", 8},
		"app_wait_late":     {"app wait ledger --timeout 100ms", 8},
		"app_sync_only":     {"app sync storefront --resource Deployment/web --force", 0},
		"app_sync_none":     {"app sync storefront --resource Deployment/db", 1},
		"app_sync_revision": {"app sync storefront --dry-run --revision v1 --resource :Service:storefront/web", 0},
		"app_diff_revision": {"app diff storefront --revision v1", 20},
		"app_refresh":       {"app refresh storefront --hard", 0},
		"app_history":       {"app history storefront", 0},
		"app_history_json":  {"app history storefront -o json", 0},
		"app_rollback":      {"app rollback storefront", 0},
		"app_rollback_dry":  {"app rollback storefront 0 --dry-run", 20},
		"app_rollback_json": {"app rollback storefront 1 --prune -o json", 0},
		"app_rollback_wait": {"app rollback storefront 1 --wait", 0},
		"app_rollback_bad":  {"app rollback storefront first", 1},
		"app_unhold":        {"app set-free storefront", 0},
		"app_terminate":     {"app terminate storefront", 0},
		"app_pause":         {"app pause storefront --reason incident", 0},
		"app_resume":        {"app resume storefront", 0},
		"app_confirm":       {"app confirm-deletion storefront", 0},
		"app_resources":     {"app resources storefront", 0},
		"app_resource_name": {"app resources storefront -o name", 0},
		"app_manifests":     {"app manifests storefront --history 0", 0},
		"app_manifests_bad": {"app manifests storefront --history 0 --revision v1", 1},
		"app_actions":       {"app actions storefront", 0},
		"app_action_run":    {"app action run storefront Deployment/web scale --param replicas=3", 0},
		"app_action_bad":    {"app actions run storefront web scale", 1},
		"app_delete":        {"app delete-resource storefront Pod/storefront/web-5d6e-x", 0},
		"run_list":          {"run list", 0},
		"run_list_commit":   {"run list --commit 1a2b -o name", 0},
		"run_view":          {"run view", 0},
		"run_view_jobs":     {"run view 1", 0},
		"run_view_log":      {"run view 1 --log", 0},
		"run_view_follow":   {"run view 2 --follow", 1},
		"run_view_unknown":  {"run view 77", 1},
		"run_view_nonsense": {"run view seventy", 1},
		"run_cancel":        {"run cancel 1", 0},
		"run_rerun":         {"run rerun 1 --failed", 0},
		"run_approve":       {"run approve 2 --comment fine", 0},
		"run_reject_none":   {"run reject 1", 1},
		"run_dispatch":      {"run dispatch contoso/storefront ci.yaml -f a=b", 0},
		"run_dispatch_bad":  {"run dispatch contoso/storefront ci.yaml -f a", 1},
		"run_cancel_force":  {"run cancel 2 --force", 0},
		"image_list":        {"image list", 0},
		"image_show":        {"image show storefront.azurecr.io/storefront:v1", 0},
		"image_show_name":   {"image show storefront.azurecr.io/storefront:v1 -o name", 0},
		"image_show_none":   {"image show storefront.azurecr.io/gone:v1", 1},
		"image_list_name":   {"image list -o name", 0},
		"image_list_json":   {"image list -o json", 0},
		"image_import":      {"image import testdata/image.tar docker.io/library/redis:7", 0},
		"image_import_json": {"image import testdata/image.tar docker.io/library/redis:7 -o json", 0},
		"image_import_none": {"image import nothing.tar docker.io/library/redis:7", 1},
		"image_import_swap": {"image import redis:7 testdata/image.tar", 1},
		"image_import_args": {"image import testdata/image.tar", 1},
		"secret_list":       {"secret list", 0},
		"secret_set":        {"secret set storefront-kv/db-password hunter2", 0},
		"secret_set_empty":  {"secret set storefront-kv/db-password -", 1},
		"secret_set_vault":  {"secret set db-password x", 1},
		"secret_set_repo":   {"secret set --repo contoso/storefront DEPLOY_KEY x", 0},
		"secret_repo_bad":   {"secret set --repo contoso DEPLOY_KEY x", 1},
		"logs":              {"logs kubelet", 0},
		"logs_all":          {"logs", 0},
		"logs_follow":       {"logs kubelet -f --timeout 150ms", 0},
		"logs_unknown":      {"logs nobody", 1},
		"no_platform":       {"status --name other", 1},
		"bad_name":          {"status --name Other!", 1},
		"bad_output":        {"status -o xml", 1},
		"bad_flag":          {"status --nope", 1},
		"bad_args":          {"app get", 1},
		"bad_verb":          {"app gett storefront", 1},
		"bad_noun":          {"stat", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := m.run(t.Context(), strings.Fields(tc.args)...)
			if r.code != tc.code {
				t.Errorf("exit code %d, want %d", r.code, tc.code)
			}
			golden(t, name, fmt.Sprintf("$ lockstep %s\n%s", tc.args, mark(r)))
		})
	}
	if file, err := filepath.Abs("testdata/image.tar"); err != nil || !slices.Contains(m.Calls(), "import docker.io/library/redis:7 from "+file) {
		t.Errorf("the platform was not asked to import %s (%v)", file, err)
	}
	for _, call := range m.Calls() {
		if strings.Contains(call, "hunter2") {
			t.Error("a secret's value is recorded: ", call)
		}
	}
}

// TestRollbackAsksOnATerminal shows the plan there, and goes on with the entry
// that was shown.
func TestRollbackAsksOnATerminal(t *testing.T) {
	m := playing(t)
	m.streams.InTTY = true
	for _, tc := range []struct {
		answer, args string
		code         int
		call         string // the last, "" for none
	}{
		{"n\n", "app rollback storefront", output.ExitCancelled, ""},
		{"", "app rollback storefront", output.ExitCancelled, ""},
		{"y\n", "app rollback storefront 1", 0, "rollback argocd/storefront to=1 prune=false"},
		{"", "app rollback storefront --yes", 0, "rollback argocd/storefront to=0 prune=false"},
		{"no\n", "app delete-resource storefront Pod/x", output.ExitCancelled, ""},
	} {
		before := len(m.Calls())
		m.streams.In = strings.NewReader(tc.answer)
		r := m.run(t.Context(), strings.Fields(tc.args)...)
		calls := m.Calls()[before:]
		if r.code != tc.code || tc.call == "" && len(calls) > 0 || tc.call != "" && (len(calls) != 1 || calls[0] != tc.call) {
			t.Errorf("%q to %s: exit code %d, calls %q\n%s%s", tc.answer, tc.args, r.code, calls, r.out, r.err)
		}
		if strings.Contains(tc.args, "rollback") && !strings.Contains(tc.args, "--yes") && !strings.Contains(r.out, "+  replicas: 2") {
			t.Errorf("the plan was not shown:\n%s", r.out)
		}
	}
}

// TestRefusals shows why something is not done, and what to try.
func TestRefusals(t *testing.T) {
	m := newMachine(t)
	m.Refusal = &server.Problem{Status: 409, Title: "argocd/storefront: a sync that ada asked for is under way", Hint: "lockstep app terminate"}
	m.start(t)
	for _, args := range []string{"app rollback storefront", "app sync storefront", "app unhold storefront", "app terminate storefront", "app pause storefront", "app resume storefront", "app actions run storefront Deployment/web restart"} {
		r := m.run(t.Context(), strings.Fields(args)...)
		if r.code != 1 || !strings.Contains(r.err, "ada asked for") || !strings.Contains(r.err, "try: lockstep app terminate") {
			t.Errorf("%s: exit code %d\n%s%s", args, r.code, r.out, r.err)
		}
	}
}

func TestHistoryIsCompleted(t *testing.T) {
	m := playing(t)
	r := m.run(t.Context(), "__complete", "app", "rollback", "storefront", "")
	if !strings.Contains(r.out, "0\t1a2b3c4 First version") {
		t.Errorf("%s%s", r.out, r.err)
	}
}

func TestLogsOfAllComponentsFollow(t *testing.T) {
	m := playing(t)
	r := m.run(t.Context(), "logs", "-f", "--timeout", "150ms")
	for _, want := range []string{"kubelet   | I1123", "buildkitd | I1123"} {
		if r.code != 0 || !strings.Contains(r.out, want) {
			t.Errorf("exit code %d, no %q in\n%s%s", r.code, want, r.out, r.err)
		}
	}
}

func TestImagesThatCannotBeImportedOrListed(t *testing.T) {
	m := newMachine(t)
	m.Images = nil
	m.ImportError = &server.Problem{Status: 422, Title: "the image was not imported", Detail: "it is neither this nor that", Hint: "docker save"}
	m.start(t)
	if r := m.run(t.Context(), "image", "import", "testdata/image.tar", "redis:7"); r.code != 1 || r.out != "" ||
		r.err != "error: the image was not imported\n  why: it is neither this nor that\n  try: docker save\n" {
		t.Errorf("import: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if r := m.run(t.Context(), "image", "import", "testdata/image.tar", ""); r.code != 1 || !strings.Contains(r.err, "the reference is empty") {
		t.Errorf("import without a name: exit code %d\n%s", r.code, r.err)
	}
	if r := m.run(t.Context(), "image", "import", "/dev/null", "redis:7"); r.code != 1 || !strings.Contains(r.err, "neither a file nor a folder") {
		t.Errorf("import of a device: exit code %d\n%s", r.code, r.err)
	}
	if r := m.run(t.Context(), "image", "list"); r.code != 0 || !strings.Contains(r.out, "There are no images") {
		t.Errorf("list: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if r := m.run(t.Context(), "image", "list", "-o", "json"); r.out != "[]\n" {
		t.Errorf("list as JSON: %q", r.out)
	}
}

// mark joins both streams, the lines of standard error marked.
func mark(r result) string {
	var b strings.Builder
	b.WriteString(r.out)
	for line := range strings.Lines(r.err) {
		b.WriteString("2> " + line)
	}
	fmt.Fprintf(&b, "[%d]\n", r.code)
	return b.String()
}

func TestColoursOnlyOnATerminal(t *testing.T) {
	m := playing(t)
	for name, tc := range map[string]struct {
		tty  bool
		env  map[string]string
		args string
		want bool
	}{
		"terminal":     {true, nil, "app list", true},
		"pipe":         {false, nil, "app list", false},
		"NO_COLOR":     {true, map[string]string{"NO_COLOR": "1"}, "app list", false},
		"--no-color":   {true, nil, "app list --no-color", false},
		"dumb":         {true, map[string]string{"TERM": "dumb"}, "app list", false},
		"json":         {true, nil, "app list -o json", false},
		"trace":        {true, nil, "trace storefront", true},
		"trace follow": {true, nil, "trace storefront --follow", true},
	} {
		m.streams.OutTTY, m.streams.Width, m.env = tc.tty, 80, tc.env
		if m.env == nil {
			m.env = map[string]string{}
		}
		r := m.run(t.Context(), strings.Fields(tc.args)...)
		if r.code != 0 || strings.Contains(r.out, "\x1b") != tc.want {
			t.Errorf("%s: exit code %d, colours %v, want %v\n%s", name, r.code, !tc.want, tc.want, r.out)
		}
	}
}

func TestSecretComesFromPromptInputOrFile(t *testing.T) {
	m := playing(t)
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("from file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set := func(want string, args ...string) {
		t.Helper()
		r := m.run(t.Context(), append([]string{"secret", "set"}, args...)...)
		if calls := m.Calls(); r.code != 0 || calls[len(calls)-1] != want {
			t.Errorf("%v: exit code %d, %q %s", args, r.code, calls, r.err)
		}
		if strings.Contains(r.out+r.err, "prompted") {
			t.Errorf("%v shows the value: %s%s", args, r.out, r.err)
		}
	}
	m.streams.In = strings.NewReader("piped\r\n")
	set("set storefront-kv/a to 5 bytes", "storefront-kv/a")
	m.streams.In = strings.NewReader("two\nlines\n\n")
	set("set storefront-kv/a to 10 bytes", "storefront-kv/a", "-")
	set("set storefront-kv/a to 10 bytes", "storefront-kv/a", "--from-file", file)
	m.streams.InTTY, m.streams.ReadSecret = true, func() ([]byte, error) { return []byte("prompted"), nil }
	set("set contoso/storefront KEY to 8 bytes", "--repo", "contoso/storefront", "KEY")
	m.streams.ReadSecret = func() ([]byte, error) { return nil, nil }
	if r := m.run(t.Context(), "secret", "set", "storefront-kv/a"); r.code != output.ExitCancelled {
		t.Errorf("an empty prompt: exit code %d, want %d", r.code, output.ExitCancelled)
	}
}

// A commit that is followed while it goes on ends with the code of its fate,
// though the platform is restarted in between.
func TestTraceFollowsUntilReady(t *testing.T) {
	m := newMachine(t)
	story := servertest.Story()[:16]
	for _, e := range story[:10] {
		if _, err := m.Journal.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	m.Now = func() time.Time { return servertest.Start.Add(17 * time.Second) }
	stop := m.start(t)
	done := make(chan result)
	go func() { done <- m.run(t.Context(), "trace", "1a2b3c4", "--follow", "--timeout", "20s") }()
	time.Sleep(50 * time.Millisecond) // so that it is asked at least once before
	stop()
	m.start(t)
	for _, e := range story[10:] {
		if _, err := m.Journal.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	r := <-done
	if r.code != 0 || !strings.Contains(r.out, "✓ argocd/storefront is ready at 5d6e7f8, 21.4s after the push.") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
}

func TestTraceFollowGivesUp(t *testing.T) {
	m := newMachine(t)
	if _, err := m.Journal.Append(t.Context(), servertest.Story()[0]); err != nil {
		t.Fatal(err)
	}
	m.Now = func() time.Time { return servertest.Start.Add(time.Second) }
	stop := m.start(t)
	if r := m.run(t.Context(), "trace", "1a2b3c4", "--follow", "--timeout", "100ms"); r.code != output.ExitPending {
		t.Errorf("exit code %d, want %d\n%s%s", r.code, output.ExitPending, r.out, r.err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if r := m.run(ctx, "trace", "1a2b3c4", "--follow"); r.code != output.ExitCancelled {
		t.Errorf("interrupted: exit code %d, want %d\n%s%s", r.code, output.ExitCancelled, r.out, r.err)
	}
	stop()
	m.Now = func() time.Time { return servertest.Start.Add(time.Hour) }
	m.Info.State = "starting"
	m.start(t)
	if r := m.run(t.Context(), "trace", "1a2b3c4"); r.code != 0 || !strings.Contains(r.out, "no application took") {
		t.Errorf("an old push: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if r := m.run(t.Context(), "status"); r.code != output.ExitPending || !strings.Contains(r.out, "node Ready") {
		t.Errorf("status while it starts: exit code %d\n%s%s", r.code, r.out, r.err)
	}
}

func TestCompletion(t *testing.T) {
	m := playing(t)
	for args, want := range map[string]string{
		"app get ":  "storefront\tSynced, Healthy",
		"trace ":    "9f8e7d6\tBreak the test",
		"run view ": "2\tfailure Break the test",
		"logs ":     "kubelet\trunning",
		"app ":      "wait\t",
		"-o ":       "yaml",
	} {
		r := m.run(t.Context(), append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if r.code != 0 || !strings.Contains(r.out, want) {
			t.Errorf("completing %q: exit code %d, %q", args, r.code, r.out)
		}
	}
	if r := m.run(t.Context(), "__complete", "app", "get", "--name", "other", ""); r.code != 0 {
		t.Errorf("completing without a platform: exit code %d, %s", r.code, r.err)
	}
}

// Every command says what it is for and shows how to use it.
func TestEveryCommandHasExamples(t *testing.T) {
	root := cli.New(cli.Options{Getenv: func(string) string { return "" }, Streams: output.Streams{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}})
	var check func(*cobra.Command)
	check = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: no description or no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(root)
}

func TestStateDir(t *testing.T) {
	m := newMachine(t)
	if r := m.run(t.Context(), "status", "--state-dir", filepath.Join(m.dir, "elsewhere")); !strings.Contains(r.err, "nothing answers at $STATE/elsewhere/lockstep/lockstep.sock") {
		t.Error(r.err)
	}
	m.env["LOCKSTEP_NAME"] = "two"
	if r := m.run(t.Context(), "status"); !strings.Contains(r.err, "$STATE/two/lockstep.sock") || !strings.Contains(r.err, "lockstep up --name two") {
		t.Error(r.err)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
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
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
