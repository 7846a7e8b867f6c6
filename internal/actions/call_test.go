package actions

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// writeFiles writes files below a folder.
func writeFiles(dir string, files map[string]string) error {
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// addRepository makes a further repository of the forge with one commit.
func (w *world) addRepository(name string, files map[string]string) string {
	w.t.Helper()
	bare := filepath.Join(w.dir, "repos", filepath.FromSlash(name))
	repo, err := git.Init(w.t.Context(), bare, "main")
	if err != nil {
		w.t.Fatal(err)
	}
	dir := w.t.TempDir()
	w.git(dir, "clone", "--quiet", bare, dir)
	if err := writeFiles(dir, files); err != nil {
		w.t.Fatal(err)
	}
	w.git(dir, "checkout", "--quiet", "-B", "main")
	w.git(dir, "add", "--all")
	w.git(dir, "commit", "--quiet", "-m", "x")
	w.git(dir, "tag", "v1")
	w.git(dir, "push", "--quiet", "origin", "main", "v1")
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.others == nil {
		w.others = map[string]*git.Repository{}
	}
	w.others[name] = repo
	return w.git(dir, "rev-parse", "HEAD")
}

func TestReusableWorkflows(t *testing.T) {
	w := newWorld(t)
	for k, v := range map[string]string{"DEPLOY_KEY": "the-deploy-key", "OTHER": "the-other-secret"} {
		if err := w.engine.SetSecret(t.Context(), "o/r", k, []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	shared := w.addRepository("shared/flows", map[string]string{".github/workflows/deploy.yml": `name: deploy
on:
  workflow_call:
    inputs:
      env: {type: string, required: true}
      replicas: {type: number, default: 2}
      dry: {type: boolean}
    secrets:
      key: {required: true}
    outputs:
      url: {value: "${{ jobs.go.outputs.url }}"}
jobs:
  go:
    runs-on: x
    outputs: {url: "${{ steps.u.outputs.url }}"}
    steps:
      - id: u
        run: |
          echo "url=https://${{ inputs.env }}.example" >> $GITHUB_OUTPUT
          echo "replicas ${{ inputs.replicas }} dry ${{ inputs.dry }} workflow $GITHUB_WORKFLOW"
          echo "key '${{ secrets.key }}' other '${{ secrets.OTHER }}'"
          echo "caller ${{ github.workflow_ref }} called ${{ github.job_workflow_ref }}"
`})
	commit := w.push("x", map[string]string{
		".github/workflows/main.yml": `name: main
on: push
jobs:
  build:
    name: Build it
    uses: ./.github/workflows/build.yml
    secrets: inherit
  deploy:
    needs: build
    strategy:
      matrix: {env: [dev, prod]}
    uses: shared/flows/.github/workflows/deploy.yml@v1
    with: {env: "${{ matrix.env }}", replicas: 3}
    secrets: {key: "${{ secrets.DEPLOY_KEY }}"}
  end:
    needs: [build, deploy]
    runs-on: x
    steps:
      - run: echo "version ${{ needs.build.outputs.version }} url ${{ needs.deploy.outputs.url }} ${{ needs.deploy.result }}"
`,
		".github/workflows/build.yml": `on:
  workflow_call:
    outputs:
      version: {value: "${{ jobs.compile.outputs.v }}"}
jobs:
  compile:
    runs-on: x
    outputs: {v: "${{ steps.s.outputs.v }}"}
    steps:
      - id: s
        run: echo "v=1.2" >> $GITHUB_OUTPUT; echo "inherited ${{ secrets.OTHER }}"
  test:
    needs: compile
    runs-on: x
    steps:
      - run: echo tested ${{ needs.compile.outputs.v }}
`})
	r := w.ended(commit, "main.yml")
	if r.Conclusion != "success" {
		w.dump()
		t.Fatal(r.Problem)
	}
	if log := w.log(r, "Build it / compile"); !strings.Contains(log, "inherited ***\n") {
		t.Errorf("%s", log)
	}
	if log := w.log(r, "Build it / test"); !strings.Contains(log, "tested 1.2\n") {
		t.Errorf("%s", log)
	}
	log := w.log(r, "deploy (prod) / go")
	for _, want := range []string{
		"replicas 3 dry false workflow main\n", "key '***' other ''\n",
		"caller o/r/.github/workflows/main.yml@refs/heads/main called shared/flows/.github/workflows/deploy.yml@refs/tags/v1\n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("lacks %q\n%s", want, log)
		}
	}
	if log := w.log(r, "end"); !strings.Contains(log, "version 1.2 url https://") || !strings.Contains(log, ".example success\n") {
		t.Errorf("%s", log)
	}
	if u := r.Referenced; len(u) != 2 || u[1].Commit != shared || u[0].Commit != commit {
		t.Errorf("referenced %+v", u)
	}
	if j := w.job(r, "Build it / test"); j.Key != "build/test" || j.Needs[0] != "build/compile" || j.File != ".github/workflows/build.yml" {
		t.Errorf("%+v", j)
	}
}

func TestCallsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	call := func(file string) string {
		return "    uses: ./.github/workflows/" + file + "\n"
	}
	reusable := "on: {workflow_call: {inputs: {n: {type: number, required: true}}, secrets: {s: {required: true}}}}\njobs:\n  b:\n    runs-on: x\n    steps: [{run: echo}]\n"
	deep := map[string]string{}
	for i := range 12 {
		deep[fmt.Sprintf("d%d.yml", i)] = "on: workflow_call\njobs:\n  a:\n" + call(fmt.Sprintf("d%d.yml", i+1))
	}
	deep["d12.yml"] = "on: workflow_call\njobs:\n  a:\n    runs-on: x\n    steps: [{run: echo}]\n"
	bomb := map[string]string{}
	for i := range 8 {
		body := "on: workflow_call\njobs:\n"
		for k := range 8 {
			body += fmt.Sprintf("  j%d:\n", k) + call(fmt.Sprintf("b%d.yml", i+1))
		}
		bomb[fmt.Sprintf("b%d.yml", i)] = body
	}
	bomb["b8.yml"] = deep["d12.yml"]
	for _, c := range []struct {
		name, main, message string
		line                int
		files               map[string]string
	}{
		{"cycle", "    uses: ./.github/workflows/loop.yml\n", "the call of o/r/.github/workflows/loop.yml@refs/heads/main is a cycle", 4, map[string]string{"loop.yml": "on: workflow_call\njobs:\n  again:\n    uses: ./.github/workflows/loop.yml\n"}},
		{"deep", call("d0.yml"), "calls a workflow at level 11; at most 10 levels", 4, deep},
		{"bomb", call("b0.yml"), "the run has more than 1024 jobs", 0, bomb},
		{"missing", call("none.yml"), "workflow o/r/.github/workflows/none.yml@refs/heads/main", 4, nil},
		{"repository", "    uses: no/where/.github/workflows/x.yml@main\n", "repository no/where", 4, nil},
		{"not reusable", call("plain.yml"), "is not reusable as it is missing a `on.workflow_call` trigger", 4, map[string]string{"plain.yml": "on: workflow_dispatch\njobs:\n  b:\n    runs-on: x\n    steps: [{run: echo}]\n"}},
		{"input", call("r.yml"), "input 'n' is required", 4, map[string]string{"r.yml": reusable}},
		{"type", call("r.yml") + "    with: {n: many}\n", "input 'n' must be a number", 4, map[string]string{"r.yml": reusable}},
		{"secret", call("r.yml") + "    with: {n: 1}\n", "secret s is required", 4, map[string]string{"r.yml": reusable}},
		{"unknown", call("r.yml") + "    with: {n: 1, m: 2}\n    secrets: inherit\n", "'m' is not defined", 4, map[string]string{"r.yml": reusable}},
		{"permissions", call("p.yml"), `the nested job "b" is requesting 'contents: write', but is only allowed 'contents: read'`, 4, map[string]string{"p.yml": "on: workflow_call\njobs:\n  b:\n    permissions: {contents: write}\n    runs-on: x\n    steps: [{run: echo}]\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{".github/workflows/main.yml": "on: push\njobs:\n  a:\n" + c.main}
			for name, content := range c.files {
				files[".github/workflows/"+name] = content
			}
			commit := w.push(c.name, files)
			e := w.event(0, func(e journal.Event) bool { return e.Commit == commit && e.Subject == "main.yml" && e.Status.Closes() })
			if e.Status != journal.StatusFailed || !strings.Contains(e.Message, c.message) || c.line > 0 && e.Line != c.line {
				t.Errorf("%+v", e)
			}
		})
	}
}
