package execute

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

// socketsDir is where a job finds the sockets that are served to it.
const socketsDir = ownDir + "/sockets"

// Socket is a service that each job reaches at a unix socket of its own, for
// example the engine behind the docker program.
type Socket struct {
	Name string // of the file
	Env  string // variable of every step with the path of the socket
	// New makes the service of one job. close is called when the job ends; both
	// results may be nil.
	New func(SocketJob) (handler http.Handler, close func(), err error)
}

// SocketJob is the job that a Socket serves.
type SocketJob struct {
	Plan *Plan
	Dir  string // empty folder on this machine; removed with the job
	// Box is the job's sandbox. It may be called from the first request on.
	Box func() *sandbox.Session
}

// serveSockets starts the services of the job, before its sandbox.
func (j *job) serveSockets() error {
	for _, s := range j.Sockets {
		if err := j.serveSocket(s); err != nil {
			return fmt.Errorf("serve %s to the job: %w", s.Name, err)
		}
	}
	return nil
}

func (j *job) serveSocket(s Socket) error {
	scratch := filepath.Join(j.layout.scratch, s.Name)
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	handler, closeHandler, err := s.New(SocketJob{Plan: j.plan, Dir: scratch, Box: j.started.Load})
	if err != nil {
		return err
	}
	if closeHandler != nil {
		j.closers = append(j.closers, closeHandler)
	}
	if handler == nil {
		return nil
	}
	listener, err := listenUnix(j.layout.sockets, s.Name)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			_ = listener.Close()
		}
	}()
	j.closers = append(j.closers, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		<-done
	})
	return nil
}

// listenUnix listens in a folder whose path may be too long for a socket's.
func listenUnix(dir, name string) (net.Listener, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }()
	address := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name)
	listener, err := net.Listen("unix", address)
	if err != nil {
		return nil, err
	}
	if u, ok := listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the folder goes with the job
	}
	// The root of an untrusted job is nobody outside; the folder is the job's.
	return listener, os.Chmod(filepath.Join(dir, name), 0o666)
}

// socketEnv tells steps where the sockets are.
func (j *job) socketEnv() map[string]string {
	env := map[string]string{}
	for _, s := range j.Sockets {
		if s.Env != "" {
			env[s.Env] = socketsDir + "/" + s.Name
		}
	}
	return env
}
