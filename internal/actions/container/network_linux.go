package container

import (
	"fmt"
	"net"
	"os"

	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// The network of the containers of one job, within the job's own network, so
// that it is the same for every job.
const (
	bridgeName    = "lockstep0"
	bridgeAddress = "172.18.0.1/16"
)

// addressOf is the address of the n-th container, from 0.
func addressOf(n int) string { return fmt.Sprintf("172.18.%d.%d", (n+2)>>8, (n+2)&0xff) }

// makeBridge gives the job's network a bridge.
func makeBridge(job *sandbox.Session) error {
	err := inNetworkOf(job, func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := h.LinkAdd(bridge); err != nil {
			return err
		}
		address, err := netlink.ParseAddr(bridgeAddress)
		if err != nil {
			return err
		}
		if err := h.AddrAdd(bridge, address); err != nil {
			return err
		}
		return h.LinkSetUp(bridge)
	})
	if err != nil {
		return fmt.Errorf("make the network of the job's containers: %w", err)
	}
	return nil
}

// plug connects a container with the bridge of its job.
func plug(job, c *sandbox.Session, n int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.PID()))
	if err != nil {
		return fmt.Errorf("connect the container: %w", err)
	}
	defer func() { _ = ns.Close() }()
	outer := fmt.Sprintf("c%d", n)
	err = inNetworkOf(job, func(h *netlink.Handle) error {
		bridge, err := h.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = outer, bridge.Attrs().Index
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
		if err := h.LinkAdd(pair); err != nil {
			return err
		}
		return h.LinkSetUp(pair)
	})
	if err == nil {
		err = inNetworkOf(c, func(h *netlink.Handle) error {
			link, err := h.LinkByName("eth0")
			if err != nil {
				return err
			}
			address, err := netlink.ParseAddr(addressOf(n) + "/16")
			if err != nil {
				return err
			}
			if err := h.AddrAdd(link, address); err != nil {
				return err
			}
			if err := h.LinkSetUp(link); err != nil {
				return err
			}
			return h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IPv4(172, 18, 0, 1)})
		})
	}
	if err != nil {
		return fmt.Errorf("connect the container: %w", err)
	}
	return nil
}

// inNetworkOf calls f with a handle to the network of a sandbox.
func inNetworkOf(s *sandbox.Session, f func(*netlink.Handle) error) error {
	ns, err := netns.GetFromPid(s.PID())
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}
