package platform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/cluster"
	"github.com/lockstep-gitops/lockstep/internal/image"
)

// Down ends the platform, with or without a live supervisor, and leaves nothing
// of it on the machine but its state. A platform that does not run is no error.
// note is told what is being done.
func Down(ctx context.Context, cfg Config, note func(string)) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if _, err := os.Stat(cfg.Dir()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	cfg, err := cfg.Remembered()
	if err != nil {
		return err
	}
	if pid := Supervisor(cfg); pid != 0 {
		note(fmt.Sprintf("the supervisor (process %d) stops its parts", pid))
		if err := stopSupervisor(ctx, pid); err != nil {
			return err
		}
	}
	// What a supervisor that was killed could not do; nothing to do otherwise.
	var errs []error
	if cfg.Kubeconfig == "" {
		note("processes, mounts, interfaces")
		subnet, err := cluster.PickSubnet(cfg.path("cluster"))
		if err == nil {
			err = cluster.Down(ctx, clusterConfig(cfg, subnet))
		}
		errs = append(errs, err)
	}
	errs = append(errs, image.Sweep(cfg.path("image")))
	if cfg.UserKubeconfig != "" && cfg.Kubeconfig == "" {
		errs = append(errs, removeContext(ctx, cfg))
	}
	return errors.Join(errs...)
}

// stopSupervisor asks the supervisor to end and waits for it, as long as ctx
// allows.
func stopSupervisor(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop the supervisor (process %d): %w", pid, err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the supervisor (process %d) did not end in time; look into its log, then `kill -9 %d` and run `lockstep down` again", pid, pid)
		}
	}
}

// Purge removes the platform's state after Down.
func Purge(cfg Config) error { return purge(cfg) }
