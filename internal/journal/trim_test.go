package journal

import (
	"path/filepath"
	"testing"
)

func TestTrimKeepsTheNewestEvents(t *testing.T) {
	j, err := Open(t.Context(), filepath.Join(t.TempDir(), "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	j.keep = 300
	// The events before the trim go in at once: it is the last append that counts.
	if _, err := j.db.ExecContext(t.Context(), `with recursive n(i) as (select 1 union all select i+1 from n where i < 999)
		insert into event (time, repo, commit_id, stage, subject, status, cause, body)
		select i, '', '', 'push', 'main', 'info', '', '{"stage":"push","status":"info","subject":"main"}' from n`); err != nil {
		t.Fatal(err)
	}
	last, err := j.Append(t.Context(), Event{Stage: StagePush, Subject: "main", Status: StatusInfo})
	if err != nil || last != trimEvery {
		t.Fatalf("last event is %d, %v", last, err)
	}
	events, err := j.Events(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 300 || events[0].ID != last-299 || events[299].ID != last {
		t.Errorf("kept %d events from %d to %d, want the newest 300", len(events), events[0].ID, events[len(events)-1].ID)
	}
	next, err := j.Append(t.Context(), Event{Stage: StagePush, Subject: "main", Status: StatusInfo})
	if err != nil || next != last+1 {
		t.Errorf("next event is %d, %v; ids must only grow", next, err)
	}
}
