package platform

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-gitops/lockstep/internal/server"
)

func TestSeekTail(t *testing.T) {
	long := strings.Repeat("x", 2<<20)
	for name, tc := range map[string]struct {
		content string
		tail    int
		want    string
	}{
		"all":             {"a\nb\n", 0, "a\nb\n"},
		"negative":        {"a\nb\n", -1, "a\nb\n"},
		"last":            {"a\nb\n", 1, "b\n"},
		"more than it is": {"a\nb\n", 9, "a\nb\n"},
		"no line break":   {"a\nb", 1, "b"},
		"empty lines":     {"a\n\n\n", 2, "\n\n"},
		"empty":           {"", 3, ""},
		"after long":      {long + "\nend\n", 1, "end\n"},
		"only the window": {long, 1, long[:1<<20]},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			if err := seekTail(f, tc.tail); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(f)
			if err != nil || string(got) != tc.want {
				t.Errorf("%d bytes %.20q, %v, want %d bytes %.20q", len(got), got, err, len(tc.want), tc.want)
			}
		})
	}
}

func TestFollowerReadsWhatIsWrittenLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	log := &follower{ctx: ctx, file: f}
	defer func() { _ = log.Close() }()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(log); s.Scan(); {
			lines <- s.Text()
		}
	}()
	for _, line := range []string{"first", "second"} {
		if _, err := w.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
		if got := <-lines; got != line {
			t.Errorf("%q, want %q", got, line)
		}
	}
	cancel()
	if line, open := <-lines; open {
		t.Errorf("%q after the end", line)
	}
}

// newSystem is a platform as far as it is known before it starts.
func newSystem(t *testing.T) *system {
	t.Helper()
	cfg := newConfig(t)
	cfg.Port, cfg.Version = 8080, "v0"
	return &system{cfg: cfg, started: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), steps: &steps{now: time.Now}}
}

func TestDescribe(t *testing.T) {
	s := newSystem(t)
	s.steps.begin("programs")("", nil)
	s.steps.begin("network")
	p := s.describe()
	if p.State != "starting" || p.KubeContext != "lockstep-unit" || len(p.Steps) != 2 || p.Steps[0].Ended.IsZero() || !p.Steps[1].Ended.IsZero() {
		t.Errorf("%+v", p)
	}
	want := map[string]string{"page": "http://localhost:8080", "forge": "http://github.localhost:8080", "registry": "localhost:8080"}
	if diff := cmp.Diff(want, p.URLs); diff != "" {
		t.Error(diff)
	}
	s.ready.Store(true)
	s.cfg.Kubeconfig = "/somebody/else's"
	if p := s.describe(); p.State != "ready" || p.KubeContext != "" {
		t.Errorf("%+v", p)
	}
}

func TestComponentLogs(t *testing.T) {
	s := newSystem(t)
	c := components{s}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "lockstep" || list[0].PID != os.Getpid() {
		t.Errorf("%+v, %v", list, err)
	}
	read := func(name string, o server.LogOptions) (string, error) {
		r, err := c.Log(t.Context(), name, o)
		if err != nil {
			return "", err
		}
		defer func() { _ = r.Close() }()
		data, err := io.ReadAll(r)
		return string(data), err
	}
	if got, err := read("lockstep", server.LogOptions{}); got != "" || err != nil {
		t.Errorf("nothing is written yet: %q, %v", got, err)
	}
	if err := os.WriteFile(s.cfg.LogFile(), []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := read("lockstep", server.LogOptions{Tail: 1}); got != "b\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"nobody", "", "../../etc/passwd"} {
		if _, err := read(name, server.LogOptions{}); !errors.Is(err, server.ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
