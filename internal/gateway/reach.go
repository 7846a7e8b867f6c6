package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
)

// errRefused says that a listener's users may not reach an address.
var errRefused = errors.New("this address is not reached from here")

func statusOf(err error) int {
	if errors.Is(err, errRefused) {
		return http.StatusForbidden
	}
	return http.StatusBadGateway
}

// dial connects to an address that the listener's users may reach. Names are
// resolved here and each address is asked about before it is connected to, so
// that no name leads where its address may not.
func (d *door) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.opts.Reaches == nil || d.upstream(address) {
		return d.g.dial(ctx, network, address)
	}
	dialer := net.Dialer{Timeout: d.g.cfg.DialTimeout, Control: func(_, resolved string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(resolved)
		if err != nil {
			return err
		}
		return d.mayReach(at)
	}}
	return dialer.DialContext(ctx, network, address)
}

func (d *door) mayReach(at netip.AddrPort) error {
	at = netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
	if err := d.opts.Reaches(at); err != nil {
		return fmt.Errorf("%w: %s: %w", errRefused, at, err)
	}
	return nil
}

// upstream reports whether an address is that of the upstream proxy.
func (d *door) upstream(address string) bool {
	for _, scheme := range []string{"http", "https"} {
		via, err := d.g.via(&url.URL{Scheme: scheme, Host: "host.invalid"})
		if err != nil || via == nil {
			continue
		}
		port := via.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[via.Scheme]
		}
		if net.JoinHostPort(via.Hostname(), port) == address {
			return true
		}
	}
	return false
}

// mayName refuses what an upstream proxy would have to be asked for, as far as
// it says by itself where it leads.
func (d *door) mayName(u *url.URL) error {
	if d.opts.Reaches == nil {
		return nil
	}
	host := u.Hostname()
	if isLoopback(host) {
		host = "127.0.0.1"
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return nil // a name: its addresses are looked at when it is resolved here
	}
	port, err := net.LookupPort("tcp", u.Port())
	if u.Port() == "" || err != nil {
		port = 0
	}
	return d.mayReach(netip.AddrPortFrom(addr, uint16(port)))
}
