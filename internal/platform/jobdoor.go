package platform

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/gateway"
)

// The door of workflow jobs is a listener of its own: jobs have a network of
// their own, and what is relayed out of it ends here. It serves what GitHub and
// Azure serve, and tunnels to everywhere but this machine.

// jobDoorOptions says what jobs reach.
func jobDoorOptions(jobEnv map[string]string) gateway.Options {
	allowed := literals(jobEnv)
	return gateway.Options{Proxy: true, Tunnel: true, Serves: servesJobs, Reaches: func(at netip.AddrPort) error {
		if slices.Contains(allowed, at) {
			return nil
		}
		return outside(at.Addr(), net.InterfaceAddrs)
	}}
}

// servesJobs leaves out the names of Lockstep itself: a job is nobody there.
func servesJobs(host string) bool {
	return host != "localhost" && host != "lockstep.localhost" && net.ParseIP(host) == nil
}

// outside refuses the addresses of this machine.
func outside(addr netip.Addr, interfaces func() ([]net.Addr, error)) error {
	switch {
	case addr.IsLoopback(), addr.IsUnspecified():
		return errors.New("jobs do not reach services of this machine; `services:` run beside the job")
	case addr.IsLinkLocalUnicast(), addr.IsMulticast():
		return errors.New("jobs do not reach link-local addresses")
	}
	own, err := interfaces()
	if err != nil {
		return fmt.Errorf("list this machine's addresses: %w", err)
	}
	for _, a := range own {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr() == addr {
			return errors.New("jobs do not reach services of this machine; `services:` run beside the job")
		}
	}
	return nil
}

// literals are the addresses that variables of jobs name, such as a module
// proxy on this machine.
func literals(env map[string]string) (out []netip.AddrPort) {
	for _, value := range env {
		for text := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == '|' }) {
			u, err := url.Parse(strings.TrimSpace(text))
			if err != nil || u.Host == "" {
				continue
			}
			port := u.Port()
			if port == "" {
				port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
			}
			if at, err := netip.ParseAddrPort(net.JoinHostPort(u.Hostname(), port)); err == nil {
				out = append(out, at)
			}
		}
	}
	return out
}
