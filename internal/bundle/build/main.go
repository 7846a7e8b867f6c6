// Build makes the payload of Lockstep: it compiles the node's programs from
// this module's dependencies and writes them, compressed, to
// internal/bundle/payload. Run it from anywhere within the module:
//
//	go run ./internal/bundle/build
//
// The first time takes about ten minutes on two cores. Later runs cost what
// changed: Go's build cache holds the rest, and a program is compressed again
// only when its content differs from the index.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/bundle"
)

func main() {
	out := flag.String("o", "", "folder for the uncompressed programs (default <module>/bin/payload)")
	trim := flag.Bool("trimpath", false, "remove file system paths from the programs, as for a release")
	plain := flag.Bool("plain", false, "only build the programs, do not compress them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *trim, *plain); err != nil {
		fmt.Fprintln(os.Stderr, "bundle/build:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, trim, plain bool) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	if err := checkTools(ctx); err != nil {
		return err
	}
	if out == "" {
		out = filepath.Join(root, "bin", "payload")
	}
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	versions, err := moduleVersions(ctx, root)
	if err != nil {
		return err
	}
	for _, r := range recipes(versions) {
		begin := time.Now()
		quiet := keepTelling(strings.Join(r.programs(), " "))
		err := r.build(ctx, root, out, trim)
		quiet()
		if err != nil {
			return err
		}
		fmt.Printf("built  %-62s %6.1fs\n", strings.Join(r.programs(), " "), time.Since(begin).Seconds())
	}
	if plain {
		return nil
	}
	return pack(out, filepath.Join(root, "internal", "bundle", "payload"), bundle.Programs())
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if file == "" || file == os.DevNull {
		return "", fmt.Errorf("find module: no go.mod here or above; run it inside the Lockstep checkout")
	}
	return filepath.Dir(file), nil
}

// checkTools says which Debian packages are missing for runc, the only
// program that needs a C compiler.
func checkTools(ctx context.Context) error {
	var missing []string
	if _, err := exec.LookPath("gcc"); err != nil {
		missing = append(missing, "gcc", "libc6-dev")
	}
	if _, err := exec.LookPath("pkg-config"); err != nil {
		missing = append(missing, "pkg-config", "libseccomp-dev")
	} else if exec.CommandContext(ctx, "pkg-config", "--exists", "libseccomp").Run() != nil {
		missing = append(missing, "libseccomp-dev")
	}
	if len(missing) > 0 {
		return fmt.Errorf("runc needs packages that are not installed; try: apt-get install -y %s", strings.Join(missing, " "))
	}
	return nil
}

// keepTelling says now and then that a long build is still going on. Short ones
// pass in silence.
func keepTelling(what string) (stop func()) {
	done, begin := make(chan struct{}), time.Now()
	go func() {
		wait := 5 * time.Second
		for {
			select {
			case <-done:
				return
			case <-time.After(wait):
				fmt.Printf("build  %s: %s so far; the first time takes minutes, Kubernetes most of them\n", what, time.Since(begin).Round(time.Second))
				wait = time.Minute
			}
		}
	}()
	return func() { close(done) }
}
