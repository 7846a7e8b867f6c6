package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nodeLink is the node's end of the veth pair, inside the namespace.
const nodeLink = "eth0"

// SetupNetwork makes the platform's network namespace, the veth pair and the
// route to it, so that 10.S.0.1 can be listened on. It mends what is there
// already: call it as often as you like. It needs root.
func SetupNetwork(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return err
	}
	used, err := usedPrefixes(cfg.linkName())
	if err != nil {
		return fmt.Errorf("set up network: %w", err)
	}
	if u := overlapping(cfg.Subnet, used); u != nil {
		return fmt.Errorf("set up network: %s overlaps %s of this platform; remove it, or bring this platform down and delete its state folder %s so that another range is picked", u.by, cfg.Subnet, cfg.StateDir)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ns, err := ensureNetNS(cfg.NetNS())
	if err != nil {
		return fmt.Errorf("set up network namespace %s: %w", cfg.NetNS(), err)
	}
	defer ns.Close()
	if err := ensureHostLink(cfg, ns); err != nil {
		return fmt.Errorf("set up network link %s: %w", cfg.linkName(), err)
	}
	if err := ensureNodeLink(cfg, ns); err != nil {
		return fmt.Errorf("set up network inside %s: %w", cfg.NetNS(), err)
	}
	return nil
}

// ensureNetNS opens the namespace at path, making it when it is not there.
func ensureNetNS(path string) (netns.NsHandle, error) {
	if isNetNS(path) {
		return netns.GetFromPath(path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return -1, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444) // the mount point
	if err != nil {
		return -1, err
	}
	if err := f.Close(); err != nil {
		return -1, err
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread is in the new namespace and ends here.
		runtime.LockOSThread()
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("make network namespace: %w (is this root with CAP_SYS_ADMIN?)", err)
			}
			if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount network namespace: %w", err)
			}
			return setSysctls()
		}()
	}()
	if err := <-result; err != nil {
		return -1, err
	}
	return netns.GetFromPath(path)
}

// setSysctls prepares the namespace of the calling thread: /proc/sys/net
// shows the namespace of whoever opens it.
func setSysctls() error {
	for file, value := range map[string]string{
		"net/ipv4/ip_forward":                  "1",
		"net/ipv4/conf/all/forwarding":         "1",
		"net/ipv4/conf/all/rp_filter":          "0",
		"net/ipv4/conf/default/rp_filter":      "0",
		"net/ipv4/ip_local_port_range":         "32768 60999",
		"net/ipv6/conf/all/disable_ipv6":       "1",
		"net/ipv6/conf/default/disable_ipv6":   "1",
		"net/ipv4/ip_unprivileged_port_start":  "0",
		"net/netfilter/nf_conntrack_tcp_loose": "1",
	} {
		err := os.WriteFile(filepath.Join("/proc/sys", file), []byte(value), 0o644)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set %s: %w", file, err)
		}
	}
	return nil
}

func isNetNS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// ensureHostLink makes the pair and gives the host's end its address and the
// route to everything of the platform.
func ensureHostLink(cfg Config, ns netns.NsHandle) error {
	link, err := hostLink(cfg, ns)
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(cfg.HostAddr(), 24))}); err != nil {
		return fmt.Errorf("add address: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: ipNet(cfg.Subnet),
		Gw: cfg.NodeAddr().AsSlice(), Src: cfg.HostAddr().AsSlice(), Flags: int(netlink.FLAG_ONLINK),
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("add route %s: %w", cfg.Subnet, err)
	}
	return nil
}

// hostLink returns the host's end of a pair whose other end is in ns.
func hostLink(cfg Config, ns netns.NsHandle) (netlink.Link, error) {
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	link, err := netlink.LinkByName(cfg.linkName())
	if err == nil && !ownLink(cfg, link) {
		return nil, fmt.Errorf("it belongs to %q; bring that platform down, or delete the file %s/subnet of this one while it is new", link.Attrs().Alias, cfg.StateDir)
	}
	_, peerErr := inside.LinkByName(nodeLink)
	if err == nil && peerErr == nil {
		return link, nil
	}
	if err == nil { // its peer is in a namespace that is no more
		if err := netlink.LinkDel(link); err != nil {
			return nil, fmt.Errorf("remove stale link: %w", err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = cfg.linkName()
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: nodeLink, PeerNamespace: netlink.NsFd(ns)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make veth pair: %w", err)
	}
	if err := netlink.LinkSetAlias(veth, cfg.linkAlias()); err != nil {
		return nil, errors.Join(fmt.Errorf("mark as ours: %w", err), netlink.LinkDel(veth))
	}
	return netlink.LinkByName(cfg.linkName())
}

func ensureNodeLink(cfg Config, ns netns.NsHandle) error {
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return err
	}
	link, err := inside.LinkByName(nodeLink)
	if err != nil {
		return err
	}
	for _, l := range []netlink.Link{lo, link} {
		if err := inside.LinkSetUp(l); err != nil {
			return fmt.Errorf("set up %s: %w", l.Attrs().Name, err)
		}
	}
	if err := inside.AddrReplace(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(cfg.NodeAddr(), 24))}); err != nil {
		return fmt.Errorf("add address: %w", err)
	}
	if err := inside.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: cfg.HostAddr().AsSlice()}); err != nil {
		return fmt.Errorf("add default route: %w", err)
	}
	return nil
}

// removeNetwork deletes the pair and the namespace; what is gone is no error.
// Deleting the namespace removes every interface, route and nft rule in it.
func removeNetwork(cfg Config) error {
	var errs []error
	if link, err := netlink.LinkByName(cfg.linkName()); err == nil && ownLink(cfg, link) {
		// The kernel removes the pair by itself, soon after the last process and
		// mount of the namespace: it may be faster.
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove link %s: %w", cfg.linkName(), err))
		}
	}
	path := cfg.NetNS()
	for isNetNS(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", path, err))
			break
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("remove network namespace: %w", err))
	}
	return errors.Join(errs...)
}

// linkAlias marks the host's end as this platform's, for another platform
// might use the same subnet.
func (c Config) linkAlias() string { return "lockstep-" + c.Name }

func ownLink(cfg Config, link netlink.Link) bool { return link.Attrs().Alias == cfg.linkAlias() }

// netNSInode identifies the namespace in /proc/<pid>/ns/net; "" when there is none.
func netNSInode(path string) string {
	var st unix.Stat_t
	if !isNetNS(path) || unix.Stat(path, &st) != nil {
		return ""
	}
	return "net:[" + strconv.FormatUint(st.Ino, 10) + "]"
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
