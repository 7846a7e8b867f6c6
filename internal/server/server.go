// Package server is the window into a platform: an HTTP API, live events and
// the status page.
//
// Input: the journal and narrow interfaces to the parts ([Deps]). Output: two
// doors with the same routes. The control socket ([Server.Run]) is for the
// platform's owner and has full rights; its file has mode 0600. The loopback
// door ([Server.Handler]) is what browsers and other users of the machine
// reach: it shows, but changes nothing without the bearer token, reads no file
// of this machine for anybody, and refuses foreign Host and Origin headers.
//
// Invariants: no answer holds the value of a secret; every body, list and
// stream is bounded; an error is a problem+json that says what, why and what
// to try. Start reading at [Deps], then routes in routes.go.
package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Config is what a server is started with.
type Config struct {
	// Socket is the path of the control socket. Its folder must exist.
	Socket string
	// Token is the bearer token for changes through the loopback door. Without
	// one the loopback door only shows.
	Token string
	// MaxStreams bounds the open event and log streams; 0 means 64.
	MaxStreams int
	// Heartbeat is how often a silent stream says that it lives; 0 means 15 s.
	Heartbeat time.Duration
	// Coalesce is how long events are gathered before they are sent; 0 means
	// 250 ms.
	Coalesce time.Duration
	// Page is the status page. Nil serves none.
	Page fs.FS
}

// maxSocketPath is what Linux allows in a socket address (107 bytes), less the
// name that the socket has before it is moved to its place.
const maxSocketPath = 107 - len(".s1234567890/s") + len("lockstep.sock")

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.Socket == "":
		return errors.New("server: the control socket needs a path")
	case len(c.Socket) > maxSocketPath:
		return fmt.Errorf("server: the path of the control socket has %d characters, the system allows %d: %s; choose a shorter state folder",
			len(c.Socket), maxSocketPath, c.Socket)
	case c.Token != "" && len(c.Token) < 16:
		return errors.New("server: a token of fewer than 16 characters can be guessed")
	case c.MaxStreams < 0 || c.Heartbeat < 0 || c.Coalesce < 0:
		return errors.New("server: MaxStreams, Heartbeat and Coalesce cannot be negative")
	}
	return nil
}

// Deps are the parts that the server shows. A nil part answers 501 and says so.
type Deps struct {
	Log     *slog.Logger
	Journal journal.Reader
	// Platform describes the platform as it is now.
	Platform   func() Platform
	Apps       Apps
	Runs       Runs
	Components Components
	Secrets    Secrets
	Images     Images
	// Shutdown asks the platform to end. It returns at once.
	Shutdown func()
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Server serves one platform.
type Server struct {
	config  Config
	deps    Deps
	streams chan struct{} // one token for each open stream
	ready   chan struct{}
	closing chan struct{} // closed when streams must end
	owner   http.Handler  // routes of the control socket
	shown   http.Handler  // routes of the loopback door
}

// New checks the configuration. It opens nothing.
func New(config Config, deps Deps) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil || deps.Journal == nil || deps.Platform == nil {
		return nil, errors.New("server: Deps needs Log, Journal and Platform")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if config.MaxStreams == 0 {
		config.MaxStreams = 64
	}
	if config.Heartbeat == 0 {
		config.Heartbeat = 15 * time.Second
	}
	if config.Coalesce == 0 {
		config.Coalesce = 250 * time.Millisecond
	}
	s := &Server{config: config, deps: deps, streams: make(chan struct{}, config.MaxStreams),
		ready: make(chan struct{}), closing: make(chan struct{})}
	s.owner, s.shown = s.mux(s.importImage), s.mux(refuseImport)
	return s, nil
}

// Handler is the loopback door: for the front door to mount.
func (s *Server) Handler() http.Handler { return s.guard(s.shown) }

// ControlHandler is the door of the owner. It trusts whoever reaches it, so it
// belongs on a socket that only the owner can open.
func (s *Server) ControlHandler() http.Handler { return s.owner }

// Ready is closed when the control socket answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves the control socket until ctx ends, then ends open streams and
// lets requests finish for up to 5 s.
func (s *Server) Run(ctx context.Context) error {
	listener, err := listenPrivate(s.config.Socket)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(s.config.Socket) }()
	web := &http.Server{
		Handler: s.ControlHandler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelDebug),
	}
	close(s.ready)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the control socket: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-gctx.Done()
		close(s.closing)
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := web.Shutdown(stop); err != nil {
			_ = web.Close() // what did not end in time is cut
		}
		return nil
	})
	return group.Wait()
}

// listenPrivate listens on a unix socket that nobody but the owner could open
// at any moment. A socket file that nobody serves is replaced.
func listenPrivate(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen on %s: a platform of this name already answers there; end it with `lockstep down`, or choose another --name", path)
	}
	private, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(private) }()
	temporary := filepath.Join(private, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temporary, 0o600), os.Rename(temporary, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), listener.Close())
	}
	return listener, nil
}
