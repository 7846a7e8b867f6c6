package cluster

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/process"
)

// dnsReadyPort is where CoreDNS says that it has read the cluster's Services.
const dnsReadyPort = 8181

// corefile is CoreDNS's configuration: one block for the cluster's own zones,
// one for all other names. Within a block the plugins see a query in the
// order of hyperkube's list, not of this file.
func (c Config) corefile() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by Lockstep at each start.\ncluster.local %s {\n\terrors\n\tready %s:%d\n", c.reverseZone(), c.NodeAddr(), dnsReadyPort)
	fmt.Fprintf(&b, "\tkubernetes {\n\t\tkubeconfig %q lockstep\n\t\tpods insecure\n\t\tttl 5\n\t}\n}\n", c.layout().kubeconfig("coredns"))
	b.WriteString(". {\n\terrors\n\tcache 30\n")
	// Exact names come before the wildcards that also cover them.
	names := slices.SortedFunc(maps.Keys(c.DNS), func(a, b string) int {
		if d := strings.Count(b, ".") - strings.Count(a, "."); d != 0 {
			return d
		}
		return strings.Compare(b, a) // "*" sorts before letters, so it comes last
	})
	for _, name := range names {
		fixedAnswer(&b, name, c.DNS[name].String())
	}
	if c.DNSUpstream != "" {
		fmt.Fprintf(&b, "\tforward . %s\n", c.DNSUpstream)
	} else { // an answer at once: after a refusal clients would try again
		b.WriteString("\ttemplate ANY ANY . {\n\t\trcode NXDOMAIN\n\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// fixedAnswer answers A queries for the name; other types exist but are empty.
func fixedAnswer(b *strings.Builder, name, addr string) {
	zone, wild := strings.CutPrefix(name, "*.")
	match := "^" + regexp.QuoteMeta(zone) + "[.]$"
	if wild {
		match = "[.]" + regexp.QuoteMeta(zone) + "[.]$"
	}
	match = strings.ReplaceAll(match, `\.`, "[.]")
	fmt.Fprintf(b, "\ttemplate IN A %s {\n\t\tmatch %q\n\t\tanswer \"{{ .Name }} 60 IN A %s\"\n\t\tfallthrough\n\t}\n", zone, match, addr)
	fmt.Fprintf(b, "\ttemplate IN ANY %s {\n\t\tmatch %q\n\t\trcode NOERROR\n\t\tfallthrough\n\t}\n", zone, match)
}

// reverseZone is the in-addr.arpa zone of the platform's subnet.
func (c Config) reverseZone() string {
	a := c.Subnet.Addr().As4()
	return fmt.Sprintf("%d.%d.in-addr.arpa", a[1], a[0])
}

func (c Config) coredns() process.Spec {
	return c.spec("coredns", "60MiB", "-conf", c.layout().config("Corefile"), "-dns.port", "53", "-quiet")
}
