package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// inNetwork calls f on a thread that is in the network namespace ns. Sockets
// that f makes stay in that network. f must not start goroutines that do.
func inNetwork(ns *os.File, f func() error) error {
	return onThread(func() (clean bool, err error) {
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return true, fmt.Errorf("open own network: %w", err)
		}
		defer func() { _ = home.Close() }()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return true, fmt.Errorf("enter the job's network: %w", err)
		}
		err = f()
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil, err
	})
}

// prepareNetwork brings loopback up and allows what Docker allows: low ports
// and ping without capabilities.
func prepareNetwork() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	for file, value := range map[string]string{"ip_unprivileged_port_start": "0", "ping_group_range": "0 2147483647"} {
		// Older kernels lack them, and nothing but convenience is lost.
		_ = os.WriteFile("/proc/sys/net/ipv4/"+file, []byte(value), 0o644)
	}
	return nil
}

// maxRelayed bounds the connections of one sandbox that are relayed at once.
const maxRelayed = 512

// relays are the open ways out of one sandbox.
type relays struct {
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	slots  chan struct{}
	mu     sync.Mutex
	closed bool
	open   []net.Listener
}

func newRelays() *relays {
	ctx, cancel := context.WithCancel(context.Background())
	return &relays{ctx: ctx, cancel: cancel, slots: make(chan struct{}, maxRelayed)}
}

// serve connects what comes in at l to what dial gives, until close.
func (r *relays) serve(l net.Listener, dial func(context.Context) (net.Conn, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = l.Close()
		return
	}
	r.open = append(r.open, l)
	r.work.Go(func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) || r.ctx.Err() != nil {
				if err == nil {
					_ = conn.Close()
				}
				return
			}
			if err != nil { // too many open files, most likely
				select {
				case <-r.ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
				continue
			}
			select {
			case r.slots <- struct{}{}:
				r.work.Go(func() {
					defer func() { <-r.slots }()
					relay(r.ctx, conn, dial)
				})
			case <-r.ctx.Done():
				_ = conn.Close()
			}
		}
	})
}

func (r *relays) close() {
	r.cancel()
	r.mu.Lock()
	r.closed = true
	for _, l := range r.open {
		_ = l.Close()
	}
	r.mu.Unlock()
	r.work.Wait()
}

// dialTimeout bounds how long a connection out may take to open.
const dialTimeout = 10 * time.Second

// relay copies both ways until both directions have ended.
func relay(ctx context.Context, in net.Conn, dial func(context.Context) (net.Conn, error)) {
	defer func() { _ = in.Close() }()
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	out, err := dial(dialing)
	cancel()
	if err != nil {
		return // the client sees its connection end
	}
	defer func() { _ = out.Close() }()
	stop := context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })
	defer stop()
	var both sync.WaitGroup
	one := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite()
			return
		}
		_, _ = to.Close(), from.Close()
	}
	both.Go(func() { one(out, in) })
	one(in, out)
	both.Wait()
}

// dialOutside connects to a relay's target.
func dialOutside(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	if strings.HasPrefix(address, "/") {
		return d.DialContext(ctx, "unix", address)
	}
	return d.DialContext(ctx, "tcp", address)
}

// InNetwork calls f on a thread that is in the network of the sandbox: what it
// makes stays there. f must not start goroutines that rely on it.
func (s *Session) InNetwork(f func() error) error {
	if s.network == nil {
		return f()
	}
	return inNetwork(s.network, f)
}

// OwnNetwork reports whether the sandbox has a network that is not the machine's.
func (s *Session) OwnNetwork() bool { return s.network != nil }

// Publish makes target ("address:port"), as the sandbox reaches it, reachable
// inside at listen, until the sandbox ends. Without an address it is reached at
// every one, 127.0.0.1 and ::1 too; port 0 picks a free one. It returns where it
// listens.
func (s *Session) Publish(ctx context.Context, listen, target string) (string, error) {
	var l net.Listener
	var config net.ListenConfig
	err := s.InNetwork(func() (err error) {
		l, err = config.Listen(ctx, "tcp", listen)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("publish %s: %w", listen, err)
	}
	s.relays.serve(l, func(ctx context.Context) (conn net.Conn, err error) {
		err = s.InNetwork(func() (err error) {
			var d net.Dialer
			conn, err = d.DialContext(ctx, "tcp4", target) // one address: no goroutine
			return err
		})
		return conn, err
	})
	return l.Addr().String(), nil
}
