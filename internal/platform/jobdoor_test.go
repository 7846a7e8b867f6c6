package platform

import (
	"net"
	"net/netip"
	"testing"
)

func TestJobsReachEverythingButThisMachine(t *testing.T) {
	own := func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.ParseIP("10.7.0.1"), Mask: net.CIDRMask(16, 32)}}, nil
	}
	for address, want := range map[string]bool{
		"127.0.0.1": false, "::1": false, "0.0.0.0": false, "169.254.169.254": false, "224.0.0.1": false, "fe80::1": false,
		"10.7.0.1": false, "10.7.0.2": true, "93.184.216.34": true,
	} {
		if err := outside(netip.MustParseAddr(address), own); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
	options := jobDoorOptions(map[string]string{"GOPROXY": "http://127.0.0.1:3000,direct", "GOSUMDB": "off"})
	if err := options.Reaches(netip.MustParseAddrPort("127.0.0.1:3000")); err != nil {
		t.Errorf("the module proxy of this machine: %v", err)
	}
	if options.Reaches(netip.MustParseAddrPort("127.0.0.1:3001")) == nil {
		t.Error("another service of this machine is reached")
	}
	for host, want := range map[string]bool{"github.localhost": true, "shop.azurecr.io": true, "localhost": false, "127.0.0.1": false} {
		if options.Serves(host) != want {
			t.Errorf("serves %s: %v", host, !want)
		}
	}
}
