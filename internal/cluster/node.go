package cluster

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/process"
)

// lowestOOMScore is what kubelet and kube-proxy give themselves where they may.
const lowestOOMScore = -999

// kubeletConfig is kubelet's configuration file.
func (c Config) kubeletConfig(restrictOOM bool) ([]byte, error) {
	l := c.layout()
	oom := lowestOOMScore
	if restrictOOM {
		oom = 0
	}
	runtime := "unix://" + l.containerdSocket()
	return yaml.Marshal(map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address":      c.NodeAddr().String(),
		"readOnlyPort": 0, "healthzPort": 0,
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": l.pki(clusterCA + ".crt")},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"tlsCertFile":              l.pki("kubelet-server.crt"),
		"tlsPrivateKeyFile":        l.pki("kubelet-server.key"),
		"rotateCertificates":       false,
		"containerRuntimeEndpoint": runtime, "imageServiceEndpoint": runtime,
		"cgroupDriver": "cgroupfs", "cgroupRoot": c.CgroupRoot(), "failCgroupV1": false,
		"enforceNodeAllocatable": []string{}, "failSwapOn": false, "oomScoreAdj": oom,
		"clusterDNS": []string{c.NodeAddr().String()}, "clusterDomain": "cluster.local",
		"resolvConf":      l.config("resolv.conf"),
		"podLogsDir":      l.podLogs(),
		"volumePluginDir": filepath.Join(l.kubelet(), "volumeplugins"),
		// Pods are not moved off the only node there is: evict late, and clean
		// up images before.
		"evictionHard": map[string]string{
			"memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%",
		},
		"imageGCHighThresholdPercent": 95, "imageGCLowThresholdPercent": 90,
		"serializeImagePulls": false, "maxParallelImagePulls": 5, "registryPullQPS": 0,
		// One user, one local registry: an image that is here may be used.
		"imagePullCredentialsVerificationPolicy": "NeverVerify",
		"eventRecordQPS":                         0, "kubeAPIQPS": 200, "kubeAPIBurst": 400,
		"enableProfilingHandler": false,
		"logging":                map[string]any{"verbosity": 0},
	})
}

func (c Config) kubelet() process.Spec {
	l := c.layout()
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(c.NodeLabels)) {
		labels = append(labels, k+"="+c.NodeLabels[k])
	}
	return c.spec("kubelet", "200MiB",
		"--config="+l.config("kubelet.yaml"), "--kubeconfig="+l.kubeconfig("kubelet"),
		"--root-dir="+l.kubelet(), "--cert-dir="+filepath.Join(l.kubelet(), "pki"),
		"--hostname-override="+c.NodeName, "--node-ip="+c.NodeAddr().String(),
		"--node-labels="+strings.Join(labels, ","),
		"--housekeeping-interval=30s",
	)
}

// proxyConfig is kube-proxy's configuration file.
func (c Config) proxyConfig(restrictOOM bool) ([]byte, error) {
	oom := lowestOOMScore
	if restrictOOM {
		oom = 0
	}
	return yaml.Marshal(map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"bindAddress": c.NodeAddr().String(), "hostnameOverride": c.NodeName,
		"healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
		"clientConnection": map[string]any{"kubeconfig": c.layout().kubeconfig("kube-proxy")},
		"clusterCIDR":      c.PodRange().String(), "detectLocalMode": "ClusterCIDR",
		"mode": "nftables", "nftables": map[string]any{"minSyncPeriod": "100ms", "syncPeriod": "1h"},
		// These limits belong to the whole machine: not ours to change.
		"conntrack":   map[string]any{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
		"oomScoreAdj": oom,
	})
}

func (c Config) proxy() process.Spec {
	return c.spec("kube-proxy", "100MiB", "--config="+c.layout().config("kube-proxy.yaml"))
}

// writeNode writes everything that kubelet, kube-proxy and CoreDNS read.
func (c Config) writeNode() error {
	l := c.layout()
	restrict, err := lacksCapability(capSysResource)
	if err != nil {
		return err
	}
	kubelet, err := c.kubeletConfig(restrict)
	if err != nil {
		return fmt.Errorf("kubelet configuration: %w", err)
	}
	proxy, err := c.proxyConfig(restrict)
	if err != nil {
		return fmt.Errorf("kube-proxy configuration: %w", err)
	}
	for _, dir := range []string{l.kubelet(), l.podLogs(), l.containerdState(), l.shimSockets()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	resolv := "# Written by Lockstep. Pods with dnsPolicy Default ask cluster DNS too.\nnameserver " + c.NodeAddr().String() + "\n"
	for name, body := range map[string][]byte{
		"kubelet.yaml": kubelet, "kube-proxy.yaml": proxy,
		"resolv.conf": []byte(resolv), "Corefile": []byte(c.corefile()),
	} {
		if err := writeFile(l.config(name), body, 0o644); err != nil {
			return err
		}
	}
	return nil
}
