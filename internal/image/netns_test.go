package image_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/image"
)

// TestBuildInNetworkNamespace: BuildKit and its steps run in the node's network
// and reach the registries at the host's end of the link.
func TestBuildInNetworkNamespace(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and the program ip")
	}
	ip := func(format string, args ...any) {
		t.Helper()
		line := strings.Fields(fmt.Sprintf(format, args...))
		if out, err := exec.CommandContext(t.Context(), "ip", line...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(line, " "), err, out)
		}
	}
	// Unique among concurrent runs: the process id chooses names and addresses.
	pid := os.Getpid()
	ns, link := fmt.Sprintf("lsimg%d", pid), fmt.Sprintf("lsi%d", pid)
	subnet := fmt.Sprintf("198.18.%d", pid%250)
	ip("netns add %s", ns)
	t.Cleanup(func() {
		// Not t.Context: it has ended by now. The link goes with the namespace.
		if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
			t.Errorf("ip netns del: %v\n%s", err, out)
		}
	})
	ip("link add %s type veth peer name eth0 netns %s", link, ns)
	ip("addr add %s.1/30 dev %s", subnet, link)
	ip("link set %s up", link)
	ip("-n %s addr add %s.2/30 dev eth0", ns, subnet)
	ip("-n %s link set eth0 up", ns)
	ip("-n %s link set lo up", ns)

	w := newWorldAt(t, subnet+".1")
	w.seed(t, "")
	b, stop := w.builder(t, func(c *image.Config) { c.NetNS = "/run/netns/" + ns })
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM busybox AS a\nRUN ip -o addr > /addr\nFROM scratch\nCOPY --from=a /addr /\n"})
	var out bytes.Buffer
	if _, err := b.Build(t.Context(), image.Request{ContextDir: dir, Tags: []string{acr + "/ns:1"}, Push: true, Credentials: ci}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if got := files(t, w.pull(t, acr+"/ns:1"))["addr"]; !strings.Contains(got, subnet+".2/30") {
		t.Errorf("the step saw the addresses\n%s", got)
	}
	stop() // before the namespace goes
}
