package platform

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/lockstep-gitops/lockstep/internal/bundle"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/cluster"
)

// check refuses a start that cannot end well, before anything is written down
// that a later start would have to live with.
func (c Config) check() error {
	if c.Kubeconfig != "" {
		if _, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
			return &output.Error{What: "the kubeconfig " + c.Kubeconfig + " cannot be used", Why: err.Error(),
				Try: "lockstep up --kubeconfig FILE, with a file that `kubectl --kubeconfig FILE get nodes` accepts", Err: err}
		}
		return nil
	}
	for _, f := range preflight(c) {
		if f.Fatal {
			return &output.Error{What: "this machine cannot run a node: " + f.What, Why: f.Why, Try: f.Fix}
		}
	}
	return nil
}

// preflight is what the machine has against a node of this platform.
func preflight(cfg Config) []cluster.Finding {
	found := cluster.Preflight(clusterConfig(cfg, likelySubnet(cfg)))
	// The node's programs are unpacked later; what counts is that they are here.
	return slices.DeleteFunc(found, func(f cluster.Finding) bool {
		return f.Why == bundle.ErrNoPayload.Error() && bundle.Carried() == nil
	})
}

// likelySubnet is the platform's range, or for a new platform one that it could
// get. Nothing is written into the platform's folder.
func likelySubnet(cfg Config) netip.Prefix {
	any := netip.MustParsePrefix("10.200.0.0/16")
	dir := cfg.path("cluster")
	if _, err := os.Stat(filepath.Join(dir, "subnet")); err != nil {
		temp, err := os.MkdirTemp("", "lockstep-doctor-")
		if err != nil {
			return any // a full disk, say, of which others tell
		}
		defer func() { _ = os.RemoveAll(temp) }()
		dir = temp
	}
	subnet, err := cluster.PickSubnet(dir)
	if err != nil {
		return any
	}
	return subnet
}

// explain turns the ends of a platform that a person can mend into the form of
// the commands' errors: what, why, what to try.
func explain(cfg Config, err error) error {
	var taken *PortError
	var running *RunningError
	switch {
	case errors.As(err, &taken):
		return &output.Error{What: fmt.Sprintf("the front door cannot listen on 127.0.0.1:%d", taken.Port), Why: taken.Err.Error(),
			Try: fmt.Sprintf("`ss -ltnp 'sport = :%d'` names who holds it; `lockstep up --port N` takes another port", taken.Port), Err: err}
	case errors.As(err, &running):
		return &output.Error{What: fmt.Sprintf("platform %s is running already", running.Name), Why: fmt.Sprintf("process %d holds its lock", running.PID),
			Try: "`lockstep status` shows it, `lockstep down` ends it", Err: err}
	case errors.Is(err, syscall.ENOSPC):
		return &output.Error{What: "the disk is full", Why: err.Error(), Try: "free some space for " + cfg.StateDir + " (`df -h " + cfg.StateDir + "`), then lockstep up", Err: err}
	}
	return err
}
