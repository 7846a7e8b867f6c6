//go:build linux && !lockstep_nocluster

// Hyperkube is every Kubernetes program of the node in one file: etcd, the
// four control-plane programs, kubelet, kube-proxy and CoreDNS. Which one runs is decided by
// the name it is started under (argv[0]), or by its first argument.
//
// It is a program of its own, carried inside lockstep, for two reasons: the
// packages below spend tens of milliseconds and megabytes on
// initialisation that no lockstep command should pay, and relinking them would
// make the development loop of everything else slow.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// programs maps a program's name to its entry, which does not return until
// the program ends.
func programs() map[string]func(args []string) int {
	command := func(build func() *cobra.Command) func([]string) int {
		return func(args []string) int {
			os.Args = args
			return cli.Run(build())
		}
	}
	return map[string]func([]string) int{
		"etcd":                    func(args []string) int { etcdmain.Main(args); return 0 },
		"kube-apiserver":          command(func() *cobra.Command { return apiserver.NewAPIServerCommand() }),
		"kube-controller-manager": command(controllermanager.NewControllerManagerCommand),
		"kube-scheduler":          command(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
		"kube-proxy":              command(proxy.NewProxyCommand),
		"kubelet": command(func() *cobra.Command {
			return kubelet.NewKubeletCommand(context.Background())
		}),
		"coredns": coredns,
	}
}

// coredns runs CoreDNS with only the plugins that the cluster's Corefile uses,
// in the order in which they see a query.
func coredns(args []string) int {
	dnsserver.Directives = []string{
		"errors", "health", "ready", "cache", "template", "kubernetes", "loop", "forward",
	}
	os.Args = args
	coremain.Run()
	return 0
}

func main() {
	all := programs()
	args := slices.Clone(os.Args)
	args[0] = filepath.Base(args[0])
	if _, ok := all[args[0]]; !ok && len(args) > 1 {
		args = args[1:]
	}
	run, ok := all[args[0]]
	if !ok {
		var names []string
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "hyperkube: no program named %q; it holds %s\n", args[0], strings.Join(names, ", "))
		os.Exit(2)
	}
	os.Exit(run(args))
}
