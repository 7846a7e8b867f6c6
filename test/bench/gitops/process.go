//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// process is this program started again for one of its parts. It cannot
// outlive its parent.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// part starts this program as one of its parts. The options go to it as JSON
// in its first argument.
func part(ctx context.Context, name string, options any, args ...string) (process, io.Reader, error) {
	data, err := json.Marshal(options)
	if err != nil {
		return process{}, nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return process{}, nil, err
	}
	cmd := exec.CommandContext(ctx, exe, append([]string{string(data)}, args...)...)
	cmd.Env = append(os.Environ(), partVariable+"="+name)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	p := process{cmd: cmd}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return p, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return p, nil, err
	}
	return p, out, cmd.Start()
}

// stop lets the part end by itself and waits for it.
func (p process) stop() error {
	_ = p.stdin.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("end of a part: %w", err)
	}
	return nil
}

// startEngine starts the engine in a process of its own.
func startEngine(ctx context.Context, o engineOptions) (*child, error) {
	p, out, err := part(ctx, "engine", o)
	if err != nil {
		return nil, err
	}
	return &child{process: p, out: bufio.NewReader(out)}, nil
}

// limitOptions are what the child process "limit" is started with.
type limitOptions struct {
	Access   access
	Parallel int
}

// bareLoop runs the child process "limit" on files of objects.
func bareLoop(ctx context.Context, o limitOptions, files ...string) ([]loopResult, error) {
	p, out, err := part(ctx, "limit", o, files...)
	if err != nil {
		return nil, err
	}
	var results []loopResult
	dec := json.NewDecoder(out)
	for range files {
		var r loopResult
		if err := dec.Decode(&r); err != nil {
			_ = p.stop()
			return nil, fmt.Errorf("the bare loop failed: %w", err)
		}
		results = append(results, r)
	}
	return results, p.stop()
}
