package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// nothing is a command without effect that says why.
func nothing(text string) func(context.Context, *call) (int, error) {
	return func(_ context.Context, c *call) (int, error) {
		_, err := fmt.Fprintln(c.Stdout, text)
		return 0, err
	}
}

func commands() map[string]command {
	platform, quiet := shim.F("--platform"), shim.B("--quiet", "-q")
	builder := shim.Flags{shim.F("--name"), shim.B("--use"), shim.F("--driver"), shim.F("--driver-opt"), shim.B("--bootstrap"), shim.F("--platform"), shim.F("--config", "--buildkitd-config"),
		shim.F("--buildkitd-flags"), shim.B("--append"), shim.B("--default"), shim.B("--global"), shim.F("--builder"), shim.B("--force", "-f"), shim.B("--all-inactive"), shim.B("--keep-state")}
	list := shim.Flags{shim.B("--all", "-a"), quiet, shim.F("--format"), shim.F("--filter", "-f"), shim.B("--no-trunc"), shim.B("--digests")}
	cmds := map[string]command{
		"build":                     {buildFlags, false, build},
		"buildx create":             {builder, false, nothing("lockstep")},
		"buildx use":                {builder, false, nothing("lockstep is the builder")},
		"buildx rm":                 {builder, false, nothing("lockstep stays: it is the only builder")},
		"buildx inspect":            {builder, false, nothing("Name:   lockstep\nDriver: remote\n\nNodes:\nName:      lockstep\nStatus:    running\nPlatforms: linux/amd64")},
		"buildx ls":                 {builder, false, nothing("NAME/NODE    DRIVER/ENDPOINT   STATUS    PLATFORMS\nlockstep*    remote            running   linux/amd64")},
		"buildx version":            {nil, false, nothing("github.com/docker/buildx lockstep")},
		"buildx imagetools inspect": {shim.Flags{shim.B("--raw"), shim.F("--format"), shim.F("--builder")}, false, imagetools},
		"push":                      {shim.Flags{shim.B("--all-tags", "-a"), quiet, platform}, false, simple("push")},
		"pull":                      {shim.Flags{shim.B("--all-tags", "-a"), quiet, platform}, false, simple("pull")},
		"tag":                       {nil, false, simple("tag")},
		"login":                     {shim.Flags{shim.F("--username", "-u"), shim.F("--password", "-p"), shim.B("--password-stdin")}, false, login},
		"logout":                    {nil, false, logout},
		"images":                    {list, false, listing("images")},
		"inspect":                   {shim.Flags{shim.F("--format", "-f"), shim.F("--type")}, false, inspect},
		"ps":                        {list, false, listing("ps")},
		"rm":                        {shim.Flags{shim.B("--force", "-f"), shim.B("--volumes", "-v")}, false, simple("rm")},
		"rmi":                       {shim.Flags{shim.B("--force", "-f"), shim.B("--no-prune")}, false, simple("rmi")},
		"stop":                      {shim.Flags{shim.F("--time", "-t")}, false, simple("stop")},
		"logs":                      {shim.Flags{shim.B("--follow", "-f"), shim.F("--tail", "-n")}, false, simple("logs")},
		"save":                      {shim.Flags{shim.F("--output", "-o"), platform}, false, save},
		"load":                      {shim.Flags{shim.F("--input", "-i"), quiet, platform}, false, load},
		"run":                       {runFlags, true, runContainer},
		"version":                   {shim.Flags{shim.F("--format", "-f")}, false, nothing("Client: emulated by lockstep\n Version: 28.0.0\n API version: 1.48\n\nServer: the job's image engine (BuildKit)")},
		"info":                      {shim.Flags{shim.F("--format", "-f")}, false, nothing("Server: the job's image engine, emulated by lockstep\n Builder: BuildKit\n OSType: linux")},
	}
	for alias, name := range map[string]string{"buildx build": "build", "buildx b": "build", "image build": "build", "builder build": "build", "image push": "push", "image pull": "pull", "image tag": "tag",
		"image ls": "images", "image list": "images", "image inspect": "inspect", "image rm": "rmi", "image save": "save", "image load": "load", "container run": "run",
		"container ls": "ps", "container ps": "ps", "container rm": "rm", "container stop": "stop", "container logs": "logs", "container inspect": "inspect"} {
		cmds[alias] = cmds[name]
	}
	return cmds
}

func listing(verb string) func(context.Context, *call) (int, error) {
	return func(ctx context.Context, c *call) (int, error) {
		if c.Has("format") || c.Has("filter") {
			return 0, shim.Usagef("docker %s: --format and --filter are not emulated", verb)
		}
		platform := ""
		if c.On("quiet") {
			platform = "quiet"
		}
		f, err := c.ask(ctx, verb, Request{Refs: c.Rest, All: c.On("all"), Platform: platform}, nil)
		return f.Exit, err
	}
}

func inspect(ctx context.Context, c *call) (int, error) {
	f, err := c.ask(ctx, "inspect", Request{Refs: c.Rest, Platform: c.Get("format")}, nil)
	return f.Exit, err
}

func imagetools(ctx context.Context, c *call) (int, error) {
	f, err := c.ask(ctx, "manifest", Request{Refs: c.Rest, All: c.On("raw"), Platform: c.Get("format")}, nil)
	return f.Exit, err
}

func save(ctx context.Context, c *call) (code int, err error) {
	file := c.Get("output")
	if file == "" {
		f, err := c.ask(ctx, "save", Request{Refs: c.Rest}, nil)
		return f.Exit, err
	}
	out, err := os.Create(c.Path(file))
	if err != nil {
		return 0, err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			_ = os.Remove(out.Name())
		}
	}()
	process := *c.Process
	process.Stdout = out
	to := *c
	to.Process = &process
	f, err := to.ask(ctx, "save", Request{Refs: c.Rest}, nil)
	return f.Exit, err
}

func load(ctx context.Context, c *call) (code int, err error) {
	var from io.Reader = c.Stdin
	if name := c.Get("input"); name != "" {
		file, err := os.Open(c.Path(name))
		if err != nil {
			return 0, err
		}
		defer func() { _ = file.Close() }()
		from = file
	}
	f, err := c.ask(ctx, "load", Request{}, from)
	return f.Exit, err
}

var runFlags = shim.Flags{shim.B("--detach", "-d"), shim.B("--interactive", "-i"), shim.B("--tty", "-t"), shim.B("--rm"), shim.F("--env", "-e"), shim.F("--env-file"), shim.F("--volume", "-v"),
	shim.F("--mount"), shim.F("--workdir", "-w"), shim.F("--user", "-u"), shim.F("--name"), shim.F("--hostname", "-h"), shim.F("--entrypoint"), shim.F("--publish", "-p"), shim.F("--label", "-l"),
	shim.F("--network", "--net"), shim.F("--platform"), shim.F("--pull"), shim.B("--privileged"), shim.B("--read-only"), shim.F("--memory", "-m"), shim.F("--cpus"), shim.F("--add-host"), shim.B("--init"), shim.B("--quiet", "-q")}

func runContainer(ctx context.Context, c *call) (int, error) {
	if len(c.Rest) == 0 {
		return 0, shim.Usagef("docker run needs an image")
	}
	if c.Has("mount") {
		return 0, shim.Usagef("docker run: --mount is not emulated: use --volume")
	}
	r := &Run{Image: c.Rest[0], Command: c.Rest[1:], Workdir: c.Get("workdir"), User: c.Get("user"), Name: c.Get("name"), Hostname: c.Get("hostname"), Volumes: c.All("volume"), Ports: c.All("publish"),
		Network: c.Get("network"), Detach: c.On("detach"), Stdin: c.On("interactive"), Remove: c.On("rm"), Privileged: c.On("privileged"), ReadOnly: c.On("read-only"),
		Pull: c.Get("pull"), Memory: c.Get("memory"), CPUs: c.Get("cpus"), AddHosts: c.All("add-host"), Labels: map[string]string{}}
	if c.Has("entrypoint") {
		e := c.Get("entrypoint")
		r.Entrypoint = &e
	}
	var err error
	if r.Labels, err = c.assignments(c.All("label")); err != nil {
		return 0, err
	}
	if r.Env, err = c.variables(c.All("env"), c.All("env-file")); err != nil {
		return 0, err
	}
	var stdin io.Reader
	if r.Stdin {
		stdin = c.Stdin
	}
	f, err := c.ask(ctx, "run", Request{Run: r, Platform: c.Get("platform")}, stdin)
	return f.Exit, err
}
