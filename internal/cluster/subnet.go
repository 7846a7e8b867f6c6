package cluster

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The range of S in 10.S.0.0/16: high numbers, which few sites use.
const firstSubnet, lastSubnet = 200, 250

// PickSubnet returns the platform's 10.S.0.0/16. It chooses one that overlaps
// no address and no route of this machine, and keeps it in the file
// <stateDir>/subnet, for cluster addresses in etcd depend on it.
func PickSubnet(stateDir string) (netip.Prefix, error) {
	file := filepath.Join(stateDir, "subnet")
	body, err := os.ReadFile(file)
	if err == nil {
		kept, err := netip.ParsePrefix(strings.TrimSpace(string(body)))
		if err != nil || kept.Bits() != 16 || !kept.Addr().Is4() {
			return netip.Prefix{}, fmt.Errorf("%s holds %q, which is not a 10.S.0.0/16; restore it, or delete the state folder to begin anew", file, body)
		}
		return kept, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return netip.Prefix{}, fmt.Errorf("pick subnet: %w", err)
	}
	used, err := usedPrefixes("")
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("pick subnet: %w", err)
	}
	picked, err := freeSubnet(used, stateDir)
	if err != nil {
		return netip.Prefix{}, err
	}
	return picked, writeFile(file, []byte(picked.String()+"\n"), 0o600)
}

// freeSubnet begins its search at a place that depends on seed, so that two
// platforms that pick at the same moment rarely pick the same.
func freeSubnet(used []usedPrefix, seed string) (netip.Prefix, error) {
	const count = lastSubnet - firstSubnet + 1
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(seed)) // never fails
	for i := range uint32(count) {
		s := byte(firstSubnet + (hash.Sum32()%count+i)%count)
		candidate := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, s, 0, 0}), 16)
		if overlapping(candidate, used) == nil {
			return candidate, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("pick subnet: every 10.S.0.0/16 with S from %d to %d overlaps a route of this machine (see `ip route`); remove one", firstSubnet, lastSubnet)
}

// usedPrefix is a range that somebody on this machine routes or holds.
type usedPrefix struct {
	prefix netip.Prefix
	by     string // for people: "route via eth0"
}

// overlapping returns the first range that overlaps p, or nil.
func overlapping(p netip.Prefix, used []usedPrefix) *usedPrefix {
	for _, u := range used {
		if u.prefix.Overlaps(p) {
			return &u
		}
	}
	return nil
}

// usedPrefixes lists the ranges of all addresses and routes of the host but
// the default route and those of the link named except.
func usedPrefixes(except string) ([]usedPrefix, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	names := map[int]string{}
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	var used []usedPrefix
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.IPNet.String()); err == nil && names[a.LinkIndex] != except {
			used = append(used, usedPrefix{p.Masked(), "address " + a.IPNet.String() + " of " + names[a.LinkIndex]})
		}
	}
	// Every table: VPN clients keep their routes out of the main one.
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || names[r.LinkIndex] == except {
			continue
		}
		// Short prefixes such as 0.0.0.0/1 are a VPN's way to say "default".
		if p, err := netip.ParsePrefix(r.Dst.String()); err == nil && p.Bits() > 7 {
			used = append(used, usedPrefix{p.Masked(), "route " + r.Dst.String() + " via " + names[r.LinkIndex]})
		}
	}
	return used, nil
}
