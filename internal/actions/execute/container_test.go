package execute

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
)

// recorder is Containers without images: it writes down what it is asked, and
// runs programs in the job's sandbox.
type recorder struct {
	pulled  []string
	run     []ContainerSpec
	started []ContainerSpec
	stopped []string
	sick    string
	builds  []builtin.BuildRequest
}

func (r *recorder) Pull(_ context.Context, image string, login builtin.Credential, out io.Writer) (string, error) {
	r.pulled = append(r.pulled, strings.TrimRight(image+" "+login.Username+" "+login.Password, " "))
	_, _ = fmt.Fprintln(out, "pulling", image, login.Password)
	return "sha256:x", nil
}

func (r *recorder) Run(_ context.Context, _ *sandbox.Session, c ContainerSpec, out io.Writer) (sandbox.Exit, error) {
	r.run = append(r.run, c)
	_, _ = fmt.Fprintln(out, "::notice::from the container")
	return sandbox.Exit{}, nil
}

func (r *recorder) Start(_ context.Context, box *sandbox.Session, c ContainerSpec, _ io.Writer) (Container, error) {
	r.started = append(r.started, c)
	return &recorded{r, c, box}, nil
}

func (r *recorder) Build(_ context.Context, b builtin.BuildRequest, _ io.Writer) (builtin.BuildResult, error) {
	r.builds = append(r.builds, b)
	return builtin.BuildResult{}, nil
}

type recorded struct {
	r    *recorder
	spec ContainerSpec
	box  *sandbox.Session
}

func (c *recorded) ID() string               { return "id-" + c.spec.Name }
func (c *recorded) Ports() map[string]string { return map[string]string{"5432": "15432"} }
func (c *recorded) Healthy(context.Context) error {
	if c.r.sick == c.spec.Name {
		return fmt.Errorf("unhealthy: no answer")
	}
	return nil
}
func (c *recorded) Exec(ctx context.Context, cmd sandbox.Command) (sandbox.Exit, error) {
	cmd.Env = append(cmd.Env, "IN_CONTAINER="+c.spec.Image)
	if !slices.ContainsFunc(cmd.Env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) {
		cmd.Env = append(cmd.Env, "PATH=/usr/bin:/bin")
	}
	return c.box.Exec(ctx, cmd)
}
func (c *recorded) Stop(context.Context) error {
	c.r.stopped = append(c.r.stopped, c.spec.Name)
	return nil
}

func TestServicesAndTheJobsContainer(t *testing.T) {
	w := newWorld(t)
	r := &recorder{}
	w.runner.Containers = r
	o := w.run(w.plan(nil, `on: push
jobs:
  a:
    runs-on: x
    container:
      image: ghcr.io/acme/tools:${{ vars.COLOR }}
      credentials: {username: bob, password: "${{ secrets.PASSWORD }}"}
      env: {FROM_CONTAINER: "${{ github.actor }}"}
      options: --cpus 1 --name "a b"
    services:
      db:
        image: postgres:16
        env: {POSTGRES_PASSWORD: "${{ secrets.PASSWORD }}"}
        ports: ["5432", "8080:80/tcp"]
        options: >-
          --health-cmd pg_isready
    steps:
      - run: echo "in $IN_CONTAINER port ${{ job.services.db.ports['5432'] }} of ${{ job.services.db.id }}, container ${{ job.container.id }} $0" | sed 's/work.*//'
      - run: echo "PATH=$PATH"
`))
	if o.Conclusion != schedule.Success {
		t.Fatalf("%+v\n%s", o.Failure, o.log())
	}
	o.wants("in ghcr.io/acme/tools:blue port 15432 of id-db, container id-job /home/runner/", "PATH=/usr/bin:/bin\n", "shell: sh -e {0}", "pulling ghcr.io/acme/tools:blue ***")
	if diff := cmp.Diff([]string{"postgres:16", "ghcr.io/acme/tools:blue bob hunter2-hunter2"}, r.pulled); diff != "" {
		t.Error(diff)
	}
	db, job := r.started[0], r.started[1]
	if db.Name != "db" || !slices.Equal(db.Ports, []string{"5432", "8080:80/tcp"}) || !slices.Equal(db.Env, []string{"POSTGRES_PASSWORD=hunter2-hunter2"}) || !slices.Equal(db.Options, []string{"--health-cmd", "pg_isready"}) {
		t.Errorf("service %+v", db)
	}
	if !job.Idle || !slices.Equal(job.Env, []string{"FROM_CONTAINER=ann"}) || !slices.Equal(job.Options, []string{"--cpus", "1", "--name", "a b"}) {
		t.Errorf("container %+v", job)
	}
	if !slices.Equal(r.stopped, []string{"job", "db"}) {
		t.Errorf("stopped %q", r.stopped)
	}

	r.sick = "db"
	o = w.run(w.plan(nil, "on: push\njobs:\n  a:\n    runs-on: x\n    services:\n      db:\n        image: postgres:16\n    steps:\n      - run: echo not reached\n"))
	if f := o.Failure; o.Conclusion != schedule.Failure || f.Message != "service db: unhealthy: no answer" || f.Line != 6 || strings.Contains(o.log(), "not reached") {
		t.Errorf("%+v\n%s", f, o.log())
	}
	o = w.run(w.plan(nil, "on: push\njobs:\n  a:\n    runs-on: x\n    services:\n      db:\n        image: postgres:16\n        ports: [\"99999\"]\n    steps:\n      - run: echo\n"))
	if f := o.Failure; f == nil || !strings.Contains(f.Message, `port "99999" is not of the form`) {
		t.Errorf("%+v", f)
	}
}

func TestDockerActions(t *testing.T) {
	w := newWorld(t)
	r := &recorder{}
	w.runner.Containers, w.runner.Builder = r, r
	w.publish("acme/box", map[string]string{"Dockerfile": "FROM scratch\n", "action.yml": `inputs:
  my name: {default: "${{ github.actor }}"}
runs:
  using: docker
  image: Dockerfile
  args: ["--name", "${{ inputs['my name'] }}"]
  env: {EXTRA: "e-${{ inputs['my name'] }}"}
  post-entrypoint: /cleanup.sh
`})
	o := w.run(w.plan(nil, head+`      - id: box
        uses: acme/box@v1
        env: {OWN: "1"}
      - uses: docker://alpine:3.20
        with: {entrypoint: /bin/sh, args: -c "echo 'a b'"}
`))
	if o.Conclusion != schedule.Success {
		t.Fatalf("%+v\n%s", o.Failure, o.log())
	}
	if len(r.builds) != 1 || r.builds[0].Dockerfile != "Dockerfile" || !strings.HasSuffix(r.builds[0].ContextDir, "/actions/acme/box/v1") || !r.builds[0].Load {
		t.Errorf("builds %+v", r.builds)
	}
	if len(r.run) != 3 {
		t.Fatalf("%d containers", len(r.run))
	}
	box, alpine, post := r.run[0], r.run[1], r.run[2]
	for _, want := range []string{"INPUT_MY_NAME=ann", "EXTRA=e-ann", "OWN=1", "HOME=/github/home", "GITHUB_WORKSPACE=/github/workspace", "GITHUB_EVENT_PATH=/github/workflow/event.json", "GITHUB_ACTION_REPOSITORY=acme/box", "RUNNER_TEMP=/github/runner_temp"} {
		if !slices.Contains(box.Env, want) {
			t.Errorf("the environment lacks %s", want)
		}
	}
	if slices.ContainsFunc(box.Env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) || !slices.ContainsFunc(box.Env, func(kv string) bool { return strings.HasPrefix(kv, "GITHUB_OUTPUT=/github/file_commands/") }) {
		t.Errorf("environment %q", box.Env)
	}
	if !slices.Equal(box.Args, []string{"--name", "ann"}) || box.Image != r.builds[0].Tags[0] || box.Dir != "/github/workspace" {
		t.Errorf("%+v", box)
	}
	if alpine.Image != "alpine:3.20" || alpine.Entrypoint != "/bin/sh" || !slices.Equal(alpine.Args, []string{"-c", "echo 'a b'"}) {
		t.Errorf("%+v", alpine)
	}
	if post.Entrypoint != "/cleanup.sh" || post.Image != box.Image {
		t.Errorf("%+v", post)
	}
	if len(o.annotations) != 3 {
		t.Errorf("annotations %+v", o.annotations)
	}
}
