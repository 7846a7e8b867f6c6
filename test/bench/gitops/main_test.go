//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
)

// TestMain lets the test's program be the parts, too.
func TestMain(m *testing.M) {
	if name := os.Getenv(partVariable); name != "" {
		if err := dispatch(context.Background(), name, os.Args[1:]); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSmallRun(t *testing.T) {
	if os.Getenv(plane.Variable) == "" {
		t.Skip(plane.Variable + " does not name a program with etcd and kube-apiserver")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	if err := run(ctx, []string{"-n", "20", "-reps", "4", "-idle", "1s", "-timeout", "1m"}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	t.Log(stderr.String())
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatalf("the last line is not JSON: %v\n%s", err, &stdout)
	}
	for _, path := range []string{
		"n", "limit cold_s", "limit all_s", "cold wall_s", "cold cpu_s", "cold writes", "cold ratio_to_limit", "commit_one median_ms", "commit_one p95_ms",
		"commit_one cpu_s", "commit_one requests", "commit_one reps", "commit_all wall_s", "commit_all ratio_to_limit", "drift median_ms", "drift reps",
		"idle rss_mib", "idle pss_mib", "idle seconds", "restart in_sync_s",
	} {
		var at any = got
		for _, key := range strings.Fields(path) {
			m, _ := at.(map[string]any)
			at = m[key]
		}
		if number, ok := at.(float64); !ok || number <= 0 {
			t.Errorf("%s is %v, want a number above 0", path, at)
		}
	}
	if objects := got["objects"]; objects != 100.0 {
		t.Errorf("objects is %v", objects)
	}
	if others := got["commit_one"].(map[string]any)["requests_for_other_apps"]; others != 0.0 {
		t.Errorf("commits of one application made %v requests for others", others)
	}
}

func TestBadFlags(t *testing.T) {
	t.Setenv(plane.Variable, "/bin/true")
	for _, args := range []string{"-n 0", "-shape cue", "-phases warm", "-profile cold", "-profile limit=x", "-reps 0"} {
		if _, err := parse(strings.Fields(args), &bytes.Buffer{}); err == nil {
			t.Errorf("%s is taken", args)
		}
	}
	t.Setenv(plane.Variable, "")
	if _, err := parse(nil, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "hyperkube") {
		t.Errorf("without a program: %v", err)
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3, 10, 9, 8, 7, 6}
	for q, want := range map[float64]float64{0: 1, 0.5: 6, 0.95: 10, 1: 10} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("quantile of nothing")
	}
}
