//go:build linux

// Command gitops measures the GitOps engine on a monorepo of N applications
// against a bare control plane, beside the limit: a bare client-go loop that
// applies the same objects. `make bench-gitops N=1000` runs it.
//
// Input: flags, and LOCKSTEP_HYPERKUBE, a program that holds etcd,
// kube-apiserver and kube-controller-manager. Output: a table on standard
// error and one JSON object, [report], as the last line of standard output.
//
// The engine and the bare loop are processes of their own (this program again,
// see [part]), so that their CPU time and memory are theirs alone. The engine's
// include git's.
//
// Start reading at [run], then [bench.measure].
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
)

// partVariable makes the program one of its parts.
const partVariable = "LOCKSTEP_BENCH_PART"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Getenv(partVariable), os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-gitops failed:", err)
		os.Exit(1)
	}
}

// dispatch runs the part that name says, or the benchmark.
func dispatch(ctx context.Context, name string, args []string) error {
	switch name {
	case "engine":
		var o engineOptions
		if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
			return err
		}
		return runEngine(ctx, o, os.Stdin, os.Stdout)
	case "limit":
		var o limitOptions
		if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
			return err
		}
		return runLimit(ctx, o.Access, o.Parallel, args[1:], os.Stdout)
	}
	return run(ctx, args, os.Stdout, os.Stderr)
}

// phases in the order in which they run.
var phases = []string{"limit", "cold", "idle", "noop", "one", "all", "drift", "restart"}

// options of a run.
type options struct {
	n, perNamespace, reps, parallel int
	shape, program                  string
	phases                          []string
	idle, limit                     time.Duration
	profiles                        map[string]string // phase → file
	heap                            string
	controllers                     []string
	verbose                         bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{profiles: map[string]string{}}
	set := flag.NewFlagSet("bench-gitops", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.IntVar(&o.n, "n", 1000, "applications, at most 100000")
	set.IntVar(&o.perNamespace, "per-namespace", 50, "applications in each namespace")
	set.StringVar(&o.shape, "shape", "mixed", "directory, kustomize, helm, several with commas, or mixed for all three")
	only := set.String("phases", "", "only these of "+strings.Join(phases, ",")+" (cold always runs)")
	set.IntVar(&o.reps, "reps", 25, "repetitions of one-app commits and of drift")
	set.IntVar(&o.parallel, "parallel", 32, "requests at a time, of the engine and of the bare loop")
	set.DurationVar(&o.idle, "idle", 0, "how long to watch the idle engine; 20s, or 5s for at most 100 applications")
	set.DurationVar(&o.limit, "timeout", 20*time.Minute, "limit of each phase")
	set.StringVar(&o.heap, "memprofile", "", "write a heap profile of the idle engine to this file")
	set.BoolVar(&o.verbose, "v", false, "show the engine's log")
	controllers := set.String("controllers", "deployment-controller,replicaset-controller", "controllers that run besides garbage collection and namespaces")
	set.Func("profile", "`phase=file`: write a CPU profile of the engine in a phase; may be repeated", func(s string) error {
		phase, file, ok := strings.Cut(s, "=")
		if !ok || !slices.Contains(phases[1:], phase) {
			return fmt.Errorf("want phase=file with a phase of %s", strings.Join(phases[1:], ", "))
		}
		file, err := filepath.Abs(file)
		o.profiles[phase] = file
		return err
	})
	if err := set.Parse(args); err != nil {
		return o, err
	}
	o.phases = phases
	if *only != "" {
		o.phases = append(strings.Split(*only, ","), "cold")
	}
	if *controllers != "" {
		o.controllers = strings.Split(*controllers, ",")
	}
	if o.shape == "mixed" {
		o.shape = "directory,kustomize,helm"
	}
	if o.idle == 0 {
		o.idle = 20 * time.Second
		if o.n <= 100 {
			o.idle = 5 * time.Second
		}
	}
	o.program = os.Getenv(plane.Variable)
	return o, o.check()
}

func (o options) check() error {
	switch {
	case o.n < 1 || o.n > 100_000 || o.perNamespace < 1 || o.reps < 1 || o.parallel < 1:
		return errors.New("-n must be 1 to 100000, -per-namespace, -reps and -parallel at least 1")
	case o.program == "":
		return fmt.Errorf("%s must name the program with etcd and kube-apiserver (bin/payload/hyperkube after make bundle)", plane.Variable)
	}
	for _, s := range strings.Split(o.shape, ",") {
		if !slices.Contains([]string{"directory", "kustomize", "helm"}, s) {
			return fmt.Errorf("-shape: there is no shape %q", s)
		}
	}
	for _, p := range o.phases {
		if !slices.Contains(phases, p) {
			return fmt.Errorf("-phases: there is no phase %q", p)
		}
	}
	return nil
}

// run measures and prints.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-gitops-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{options: o, dir: dir, progress: stderr}
	b.report.N, b.report.Shape, b.report.Parallel = o.n, o.shape, o.parallel
	failure := b.measure(ctx)
	if ctx.Err() != nil {
		failure = errors.New("interrupted")
	}
	if failure != nil {
		b.report.Error = failure.Error()
	}
	b.report.table(stderr)
	return errors.Join(failure, json.NewEncoder(stdout).Encode(b.report))
}
