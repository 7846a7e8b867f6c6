// Package bench measures the whole loop with the real binary: how long a
// platform takes to start, a push to become ready, and what an idle platform
// costs. Run it with `make bench`; it needs root and bin/lockstep.
package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// platform is one platform that only this benchmark knows.
type platform struct {
	b     *testing.B
	bin   string
	dir   string
	state string
}

func newPlatform(b *testing.B) *platform {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("containers need root")
	}
	bin, err := filepath.Abs("../../bin/lockstep")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		b.Fatalf("%v: build it with `make build`", err)
	}
	// A short path: the node's sockets lie below it.
	dir, err := os.MkdirTemp("/tmp", "lsb")
	if err != nil {
		b.Fatal(err)
	}
	p := &platform{b: b, bin: bin, dir: dir, state: filepath.Join(dir, "s")}
	b.Cleanup(func() {
		_, _ = p.try("down", "--purge")
		_ = os.RemoveAll(dir)
	})
	return p
}

func (p *platform) try(args ...string) ([]byte, error) {
	cmd := exec.Command(p.bin, append(args, "--name", "bench", "--state-dir", p.state)...)
	return p.exec(cmd)
}

func (p *platform) exec(cmd *exec.Cmd) ([]byte, error) {
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(p.dir, "kubeconfig"), "HOME="+p.dir, "NO_COLOR=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return out, nil
}

func (p *platform) lockstep(args ...string) []byte {
	p.b.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.b.Fatal(err)
	}
	return out
}

func (p *platform) git(dir string, args ...string) string {
	p.b.Helper()
	out, err := p.exec(exec.Command("git", append([]string{"-C", dir, "-c", "user.name=Bench", "-c", "user.email=bench@example.com"}, args...)...))
	if err != nil {
		p.b.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// trace is what the figures need of `trace -o json`.
type trace struct {
	State   string  `json:"state"`
	Now     string  `json:"now"`
	TotalMs float64 `json:"totalMs"`
	Spent   []struct {
		Stage string  `json:"stage"`
		Ms    float64 `json:"ms"`
	} `json:"spent"`
}

func (p *platform) trace(commit string) trace {
	p.b.Helper()
	var t trace
	if err := json.Unmarshal(p.lockstep("trace", commit, "-o", "json"), &t); err != nil {
		p.b.Fatal(err)
	}
	return t
}

// change edits the greeting, pushes, and returns the trace once it is ready.
func (p *platform) change(shop string, n int) trace {
	p.b.Helper()
	p.git(shop, "pull", "--quiet", "--rebase")
	file := filepath.Join(shop, "main.go")
	source, err := os.ReadFile(file)
	if err != nil {
		p.b.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(source), `const greeting = "`)
	_, rest, _ = strings.Cut(rest, `"`)
	source = fmt.Appendf(nil, "%sconst greeting = \"Greeting number %d at %d\"%s", head, n, time.Now().UnixNano(), rest)
	if err := os.WriteFile(file, source, 0o644); err != nil {
		p.b.Fatal(err)
	}
	p.git(shop, "commit", "--quiet", "--all", "--message", fmt.Sprintf("Greeting %d", n))
	commit := p.git(shop, "rev-parse", "HEAD")
	p.git(shop, "push", "--quiet")
	p.lockstep("trace", commit, "--follow", "--timeout", "3m")
	t := p.trace(commit)
	if t.State != "ready" {
		p.b.Fatalf("the change is %s: %s", t.State, t.Now)
	}
	return t
}

// BenchmarkLoop walks once through the loop and reports its figures.
func BenchmarkLoop(b *testing.B) {
	p := newPlatform(b)
	shop := filepath.Join(p.dir, "shop")
	report := func(name string, seconds float64) { b.ReportMetric(seconds, name) }

	begin := time.Now()
	p.lockstep("up")
	report("up-cold-s", time.Since(begin).Seconds())

	begin = time.Now()
	p.lockstep("up", "--example", "storefront", "--example-dir", shop)
	report("first-push-to-ready-s", time.Since(begin).Seconds())

	const changes = 3
	var total float64
	spent := map[string]float64{}
	for n := range changes {
		t := p.change(shop, n)
		total += t.TotalMs / 1000 / changes
		for _, s := range t.Spent {
			stage := s.Stage
			if stage == "" {
				stage = "between"
			}
			spent[stage] += s.Ms / 1000 / changes
		}
	}
	report("change-to-ready-s", total)
	for stage, seconds := range spent {
		report("change-in-"+stage+"-s", seconds)
	}

	p.lockstep("down")
	begin = time.Now()
	p.lockstep("up")
	report("up-warm-s", time.Since(begin).Seconds())

	time.Sleep(20 * time.Second) // pods settle; then idle is measured
	const window = 20 * time.Second
	before := p.usage()
	time.Sleep(window)
	after := p.usage()
	b.ReportMetric(float64(after.proportional)/(1<<20), "idle-pss-MiB")
	b.ReportMetric(float64(after.resident)/(1<<20), "idle-rss-MiB")
	b.ReportMetric(100*(after.cpu-before.cpu).Seconds()/window.Seconds(), "idle-core-%")
	if info, err := os.Stat(p.bin); err == nil {
		b.ReportMetric(float64(info.Size())/(1<<20), "binary-MiB")
	}
	b.ReportMetric(0, "ns/op") // one walk is not an operation
}

// usage sums up the platform's processes: those that name one of its folders.
type usage struct {
	resident     int64 // bytes, pages that several processes share counted in each
	proportional int64 // bytes, shared pages divided among them
	cpu          time.Duration
}

func (p *platform) usage() usage {
	p.b.Helper()
	const ticks = 100 // per second, USER_HZ on every Linux
	var u usage
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if !bytes.Contains(cmdline, []byte(p.state)) && !bytes.Contains(cmdline, []byte("/run/lockstep/bench/")) {
			continue
		}
		rollup, _ := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
		for line := range strings.Lines(string(rollup)) {
			u.resident += kibibytes(line, "Rss:") << 10
			u.proportional += kibibytes(line, "Pss:") << 10
		}
		stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 12 {
			user, _ := strconv.ParseInt(fields[11], 10, 64)
			system, _ := strconv.ParseInt(fields[12], 10, 64)
			u.cpu += time.Duration(user+system) * time.Second / ticks
		}
	}
	if u.resident == 0 {
		p.b.Fatal("found no process of the platform")
	}
	return u
}

// kibibytes reads a line such as "Pss:   1234 kB"; 0 for any other.
func kibibytes(line, field string) int64 {
	value, ok := strings.CutPrefix(line, field)
	if !ok {
		return 0
	}
	n, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
	return n
}
