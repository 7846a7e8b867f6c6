package platform

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOneSupervisor(t *testing.T) {
	cfg := newConfig(t)
	if pid := Supervisor(cfg); pid != 0 {
		t.Errorf("nobody ever ran, but %d does", pid)
	}
	release, err := lock(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if pid := Supervisor(cfg); pid != os.Getpid() {
		t.Errorf("supervisor %d, want %d", pid, os.Getpid())
	}
	var running *RunningError
	if _, err := lock(cfg); !errors.As(err, &running) || running.PID != os.Getpid() || running.Name != cfg.Name {
		t.Errorf("second lock: %v", err)
	}
	release()
	if pid := Supervisor(cfg); pid != 0 {
		t.Errorf("released, but %d holds it", pid)
	}
	// What a killed supervisor wrote means nothing.
	if err := os.WriteFile(cfg.path("lock"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pid := Supervisor(cfg); pid != 0 {
		t.Errorf("nobody holds it, but %d does", pid)
	}
	cfg.Name = "none"
	if _, err := lock(cfg); err == nil {
		t.Error("no error without a folder")
	}
}

// Whoever asks who runs does not stop a supervisor from starting.
func TestAskingDoesNotLock(t *testing.T) {
	cfg := newConfig(t)
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				Supervisor(cfg)
			}
		}
	})
	for range 200 {
		release, err := lock(cfg)
		if err != nil {
			t.Error(err)
			break
		}
		release()
	}
	close(stop)
	asking.Wait()
}

func TestSteps(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	s := &steps{now: func() time.Time { now = now.Add(time.Second); return now }}
	first := s.begin("first")
	second := s.begin("second")
	s.note("second", "waits")
	s.note("nobody", "nothing")
	before := s.snapshot()
	first("done", nil)
	second("", errors.New("broke"))
	s.note("first", "too late")

	at := func(seconds int) time.Time {
		return time.Date(2026, 11, 23, 12, 0, seconds, 0, time.UTC)
	}
	if diff := cmp.Diff([]Step{{Name: "first", Started: at(1)}, {Name: "second", Started: at(2), Note: "waits"}}, before); diff != "" {
		t.Error(diff)
	}
	want := []Step{{Name: "first", Started: at(1), Ended: at(3), Note: "done"}, {Name: "second", Started: at(2), Ended: at(4), Err: "broke"}}
	if diff := cmp.Diff(want, s.snapshot()); diff != "" {
		t.Error(diff)
	}
}
