package execute

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
)

const coreScript = `
const core = require('@actions/core')
async function main() {
  if (!core.getState('begun')) {
    core.saveState('begun', {at: 'main'})
    core.info('input ' + core.getInput('who to greet', {required: true}) + ' ' + core.getBooleanInput('loud') + ' ' + core.getMultilineInput('many').join('|'))
    core.setOutput('greeting', 'hello\nworld')
    core.setOutput('object', {a: [1, 2]})
    core.exportVariable('EXPORTED', 'line one\nline two')
    core.addPath('/opt/from-core')
    core.setSecret('core-secret-value')
    core.info('secret core-secret-value debug ' + core.isDebug())
    core.warning('careful', {file: 'main.go', startLine: 3, endLine: 3, startColumn: 5, title: 'Title'})
    await core.group('Folded', async () => core.info('inside'))
    await core.summary.addHeading('Done').addTable([[{data: 'a', header: true}], ['b']]).write()
    core.debug('details')
  } else {
    core.info('post with ' + core.getState('begun'))
  }
}
main().catch(e => core.setFailed(e.message))
`

// TestActionsCore runs the real @actions/core of npm.
func TestActionsCore(t *testing.T) {
	w := newWorld(t)
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not installed")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "install", "--no-audit", "--no-fund", "--silent", "@actions/core@1.11.1")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("npm cannot install @actions/core: %v: %s", err, out)
	}
	files := map[string]string{
		"index.js": coreScript,
		"action.yml": `inputs:
  who to greet: {required: true}
  loud: {default: false}
  many: {default: "a\nb"}
outputs: {greeting: {}, object: {}}
runs: {using: node20, main: index.js, post: index.js}
`}
	err = filepath.WalkDir(filepath.Join(dir, "node_modules"), func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(file) != ".js" && filepath.Ext(file) != ".json" {
			return err
		}
		content, err := os.ReadFile(file)
		rel, _ := filepath.Rel(dir, file)
		files[rel] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.publish("acme/core", files)
	o := w.run(w.plan(nil, head+`      - id: core
        uses: acme/core@v1
        with: {who to greet: Bob}
      - run: echo "${{ steps.core.outputs.greeting }} ${{ fromJSON(steps.core.outputs.object).a[1] }} [$EXPORTED] ${PATH%%:*}"
      - id: fails
        uses: acme/core@v1
        continue-on-error: true
      - run: echo "missing input ${{ steps.fails.outcome }}"
`))
	if o.Conclusion != schedule.Success {
		t.Fatalf("%+v\n%s", o.Failure, o.log())
	}
	o.wants("input Bob false a|b\n", "secret *** debug false\n", "##[group]Folded\ninside\n##[endgroup]\n", "world 2 [line one\nline two] /opt/from-core\n",
		`post with {"at":"main"}`, "Input required and not supplied: who to greet", "missing input failure\n")
	if len(o.annotations) < 1 || o.annotations[0].Title != "Title" || o.annotations[0].Line != 3 || o.annotations[0].EndLine != 3 || o.annotations[0].Column != 5 {
		t.Errorf("%+v", o.annotations)
	}
	if o.summary != "<h1>Done</h1>\n<table><tr><th>a</th></tr><tr><td>b</td></tr></table>\n" {
		t.Errorf("summary %q", o.summary)
	}
}
