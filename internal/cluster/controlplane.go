package cluster

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/process"
)

// Ports of the node, all inside its own network namespace.
const etcdURL = "https://127.0.0.1:2379"

// childPath is where children find programs of the distribution: nft, mount.
const childPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// unneededControllers are those of the controller manager that do nothing on
// one node without a cloud.
var unneededControllers = []string{
	"node-ipam-controller", "device-taint-eviction-controller", "podcertificaterequest-cleaner-controller",
	"resourceclaim-controller", "resourcepoolstatusrequest-controller", "storage-version-migrator-controller",
	"storageversion-garbage-collector-controller", "volumeattributesclass-protection-controller", "ttl-controller",
	"service-cidr-controller", "persistentvolume-expander-controller", "podgroup-protection-controller",
	"kube-apiserver-serving-clustertrustbundle-publisher-controller", "legacy-serviceaccount-token-cleaner-controller",
}

// spec is what every child has in common. limit is the heap size in bytes
// (as GOMEMLIMIT writes it) towards which its garbage collector works.
func (c Config) spec(name, limit string, args ...string) process.Spec {
	l := c.layout()
	return process.Spec{
		Name: name, Path: c.Programs.Hyperkube, Args: append([]string{name}, args...),
		Env: []string{
			"PATH=" + c.Programs.Dir + ":" + childPath, "HOME=" + c.StateDir,
			"GOGC=60", "GOMEMLIMIT=" + limit,
		},
		Dir: c.StateDir, NetNS: c.NetNS(), Log: l.log(name), PIDFile: l.pidFile(name),
		StopTimeout: 5 * time.Second,
	}
}

func (c Config) etcd() process.Spec {
	l := c.layout()
	s := c.spec("etcd", "200MiB",
		"--name=lockstep",
		"--data-dir="+l.etcd(),
		"--listen-client-urls="+etcdURL,
		"--advertise-client-urls="+etcdURL,
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=lockstep=http://127.0.0.1:2380",
		"--client-cert-auth",
		"--trusted-ca-file="+l.pki(etcdCA+".crt"),
		"--cert-file="+l.pki("etcd-server.crt"),
		"--key-file="+l.pki("etcd-server.key"),
		// One member needs neither quick heartbeats nor a long log for followers.
		"--heartbeat-interval=500", "--election-timeout=5000",
		"--snapshot-count=5000", "--snapshot-catchup-entries=500",
		"--log-level=warn",
	)
	s.StopTimeout = 10 * time.Second
	return s
}

func (c Config) apiserver() process.Spec {
	l := c.layout()
	node := c.NodeAddr().String()
	issuer := c.ServiceAccountIssuer
	return c.spec("kube-apiserver", "500MiB",
		"--advertise-address="+node, "--bind-address="+node, "--secure-port=6443",
		"--tls-cert-file="+l.pki("apiserver.crt"), "--tls-private-key-file="+l.pki("apiserver.key"),
		"--client-ca-file="+l.pki(clusterCA+".crt"),
		"--etcd-servers="+etcdURL, "--etcd-cafile="+l.pki(etcdCA+".crt"),
		"--etcd-certfile="+l.pki("etcd-client.crt"), "--etcd-keyfile="+l.pki("etcd-client.key"),
		"--etcd-count-metric-poll-period=0", "--etcd-db-metric-poll-interval=0",
		"--kubelet-certificate-authority="+l.pki(clusterCA+".crt"),
		"--kubelet-client-certificate="+l.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key="+l.pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file="+l.pki(proxyCA+".crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file="+l.pki("front-proxy-client.crt"),
		"--proxy-client-key-file="+l.pki("front-proxy-client.key"),
		"--service-account-issuer="+issuer,
		"--service-account-jwks-uri="+strings.TrimSuffix(issuer, "/")+"/openid/v1/jwks",
		"--service-account-key-file="+l.pki(serviceAccountKey),
		"--service-account-signing-key-file="+l.pki(serviceAccountKey),
		"--api-audiences=https://kubernetes.default.svc.cluster.local,"+issuer,
		"--service-cluster-ip-range="+c.ServiceRange().String(),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--max-requests-inflight=200", "--max-mutating-requests-inflight=100",
		"--profiling=false",
		"--shutdown-delay-duration=0",
	)
}

func (c Config) controllerManager() process.Spec {
	l := c.layout()
	kubeconfig := l.kubeconfig("kube-controller-manager")
	controllers := "*,-" + strings.Join(unneededControllers, ",-")
	return c.spec("kube-controller-manager", "200MiB",
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false",
		"--controllers="+controllers,
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+l.pki(serviceAccountKey),
		"--root-ca-file="+l.pki(clusterCA+".crt"),
		"--cluster-signing-cert-file="+l.pki(clusterCA+".crt"), "--cluster-signing-key-file="+l.pki(clusterCA+".key"),
		"--flex-volume-plugin-dir="+filepath.Join(l.kubelet(), "volumeplugins"),
		"--kube-api-qps=200", "--kube-api-burst=400",
	)
}

func (c Config) scheduler() process.Spec {
	kubeconfig := c.layout().kubeconfig("kube-scheduler")
	return c.spec("kube-scheduler", "120MiB",
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false",
		"--kube-api-qps=200", "--kube-api-burst=400",
	)
}

func (c Config) containerd() process.Spec {
	l := c.layout()
	s := c.spec("containerd", "150MiB", "--config", l.config("containerd.toml"), "--log-level", "warn")
	s.Path = c.Programs.Containerd
	return s
}
