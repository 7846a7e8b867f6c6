package platform

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/cluster"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// kubernetesVersion is the version that the carried programs are built from;
// go.mod pins it.
const kubernetesVersion = "1.37.2"

// describe tells the server how the platform is.
func (s *system) describe() server.Platform {
	p := server.Platform{
		Name: s.cfg.Name, Version: s.cfg.Version, State: "ready", Started: s.started, KubeContext: s.cfg.Context(),
		URLs: map[string]string{
			"page": s.cfg.URL("localhost"), "forge": s.cfg.URL("github.localhost"), "registry": "localhost:" + portOf(s.cfg),
		},
	}
	if s.cfg.Kubeconfig != "" {
		p.KubeContext = ""
	}
	for _, step := range s.steps.snapshot() {
		p.Steps = append(p.Steps, server.Step{Name: step.Name, Started: step.Started, Ended: step.Ended, Note: step.Note, Error: step.Err})
	}
	if !s.ready.Load() {
		p.State = "starting"
		return p
	}
	if node := s.node.cluster(); node != nil {
		for _, c := range node.Components() {
			if c.State == cluster.StateBackOff {
				p.State, p.Message = "degraded", fmt.Sprintf("%s is started again: %s", c.Name, brief(c.Reason))
				p.Hint = "lockstep logs " + c.Name
			}
		}
	}
	return p
}

// components shows the platform's parts and their logs.
type components struct{ s *system }

// List implements server.Components.
func (c components) List(context.Context) ([]server.Component, error) {
	list := []server.Component{{Name: "lockstep", State: "running", PID: os.Getpid(), Since: c.s.started}}
	if node := c.s.node.cluster(); node != nil {
		for _, part := range node.Components() {
			list = append(list, server.Component{Name: part.Name, State: componentState(part.State), PID: part.PID,
				Restarts: part.Restarts, Since: part.Since, Reason: brief(part.Reason), Hint: logHint(part.Reason, part.Name)})
		}
	}
	if builder := c.s.node.builder(); builder != nil {
		part := server.Component{Name: "buildkitd", State: "stopped", Reason: "starts with the next build"}
		if pid := builder.PID(); pid != 0 {
			part.State, part.PID, part.Reason = "running", pid, ""
		}
		list = append(list, part)
	}
	return list, nil
}

// brief is the start of a reason: the log has the rest.
func brief(reason string) string {
	const limit = 160
	line, _, _ := strings.Cut(reason, "\n")
	if len(line) > limit {
		line = strings.ToValidUTF8(line[:limit], "") + "…"
	}
	return line
}

func logHint(reason, name string) string {
	if reason == "" {
		return ""
	}
	return "lockstep logs " + name
}

func componentState(s cluster.State) string {
	switch s {
	case cluster.StateWaiting:
		return "starting"
	case cluster.StateBackOff:
		return "restarting"
	default:
		return string(s)
	}
}

// Log implements server.Components.
func (c components) Log(ctx context.Context, name string, o server.LogOptions) (io.ReadCloser, error) {
	path := ""
	switch name {
	case "lockstep":
		path = c.s.cfg.LogFile()
	case "buildkitd":
		path = c.s.cfg.path("image", "buildkitd.log")
	default:
		if node := c.s.node.cluster(); node != nil {
			parts := node.Components()
			if i := slices.IndexFunc(parts, func(p cluster.Component) bool { return p.Name == name }); i >= 0 {
				path = parts[i].Log
			}
		}
	}
	if path == "" {
		return nil, fmt.Errorf("component %s: %w", name, server.ErrNotFound)
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	if err := seekTail(f, o.Tail); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !o.Follow {
		return f, nil
	}
	return &follower{ctx: ctx, file: f}, nil
}

// seekTail places the file before its last n lines; 0 means all.
func seekTail(f *os.File, n int) error {
	if n <= 0 {
		return nil
	}
	const window = 1 << 20 // lines further back are not looked for
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	from := max(0, size-window)
	var starts []int64
	lines := bufio.NewReader(io.NewSectionReader(f, from, size-from))
	for at := from; ; {
		line, err := lines.ReadString('\n')
		if line != "" {
			starts = append(starts, at)
		}
		at += int64(len(line))
		if err != nil {
			break
		}
	}
	if len(starts) > 0 {
		from = starts[max(0, len(starts)-n)]
	}
	_, err = f.Seek(from, io.SeekStart)
	return err
}

// follower reads a growing file until its context ends.
type follower struct {
	ctx  context.Context
	file *os.File
}

// Read implements io.Reader. At the end of the file it waits for more.
func (f *follower) Read(p []byte) (int, error) {
	for {
		n, err := f.file.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		select {
		case <-f.ctx.Done():
			return 0, io.EOF
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// Close implements io.Closer.
func (f *follower) Close() error { return f.file.Close() }
