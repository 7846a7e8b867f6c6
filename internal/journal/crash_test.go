package journal_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

const crashEnv = "LOCKSTEP_JOURNAL_CRASH_FILE"

// TestWriterForCrash is not a test of its own: it is the process that
// TestAcknowledgedEventsSurviveKill kills.
func TestWriterForCrash(t *testing.T) {
	path := os.Getenv(crashEnv)
	if path == "" {
		t.Skip("runs only as the child of TestAcknowledgedEventsSurviveKill")
	}
	j := open(t, path)
	for {
		id, err := j.Append(t.Context(), journal.Event{Stage: journal.StageRun, Subject: "crash", Status: journal.StatusInfo})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("acked %d\n", id)
	}
}

func TestAcknowledgedEventsSurviveKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWriterForCrash$")
		cmd.Env = append(os.Environ(), crashEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var acked int64
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); {
			if _, err := fmt.Sscanf(lines.Text(), "acked %d", &acked); err == nil {
				n++
			}
			if n == 25 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				n++ // what is still in the pipe was acknowledged, too
			}
		}
		_ = cmd.Wait() // killed: the error is expected
		if acked < 25 {
			t.Fatalf("round %d: the writer ended early, after event %d", round, acked)
		}
		j, err := journal.Open(t.Context(), path)
		if err != nil {
			t.Fatalf("round %d: open after kill: %v", round, err)
		}
		last, err := j.Last(t.Context())
		if err != nil || last < acked {
			t.Errorf("round %d: last event is %d (%v), but %d was acknowledged", round, last, err, acked)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
