package trace

import (
	"context"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

func (p placed) loop() bool { return p.order >= slices.Index(Stages, journal.StageRender) }

// superseded reports whether a later attempt at the same thing makes this one
// history: the same subject again, a newer run of the workflow, or newer work
// on the application, be it at a commit that this one caused.
func (p placed) superseded(all []placed) bool {
	g := group(p.stage, p.Span)
	for _, o := range all {
		newer := o.Start.After(p.Start) || o.Start.Equal(p.Start) && o.Attempt > p.Attempt && o.Subject == p.Subject
		if !newer || o.Status == journal.StatusInfo || g != group(o.stage, o.Span) {
			continue
		}
		switch {
		case p.loop() && o.loop():
			// The same stage again, or a loop that began anew before this
			// stage; what succeeded stays until its own stage says otherwise.
			if o.stage == p.stage || o.order < p.order && p.Status != journal.StatusSucceeded {
				return true
			}
		case o.stage != p.stage || o.commit != p.commit:
		case key(o.Subject, o.Data) == key(p.Subject, p.Data):
			return true
		case p.stage == journal.StageRun && o.Data[journal.DataRun] != p.Data[journal.DataRun]:
			return true
		}
	}
	return false
}

// tolerated reports whether a failure does not count: what it is a part of
// goes on or ended well. An image is a part of the workflow runs around it.
func (p placed) tolerated(all []placed) bool {
	for _, o := range all {
		if p.stage == journal.StageImage && o.commit == p.commit && o.stage == journal.StageRun && !strings.Contains(o.Subject, "/") &&
			!o.Start.After(p.Start) && (o.Open() || o.Status == journal.StatusSucceeded && !o.End.Before(p.End)) {
			return true
		}
		if o.commit == p.commit && o.stage == p.stage && within(p.Span, o.Span) &&
			(o.Open() || o.Status == journal.StatusSucceeded) && !o.superseded(all) {
			return true
		}
	}
	return false
}

// skips is why applications did not take the commit, in their own words.
func skips(all []placed) string {
	var why []string
	for _, p := range all {
		if p.loop() && p.Status == journal.StatusSkipped && p.Message != "" && len(why) < 3 {
			why = append(why, p.Subject+": "+p.Message)
		}
	}
	return strings.Join(why, "; ")
}

// yield ends the open spans of the loop whose application went on with a
// commit that this one caused: nobody will end them.
func (t *Trace) yield() {
	var below []placed
	for i := range t.Children {
		below = append(below, t.Children[i].placed(1)...)
	}
	for l := range t.Lanes {
		for i := range t.Lanes[l].Spans {
			s := &t.Lanes[l].Spans[i]
			p := placed{Span: *s, stage: t.Lanes[l].Stage, order: slices.Index(Stages, t.Lanes[l].Stage)}
			if !s.Open() || !p.loop() {
				continue
			}
			for _, o := range below {
				if o.loop() && o.order <= p.order && group(o.stage, o.Span) == group(p.stage, p.Span) && o.Start.After(s.Start) {
					s.Status, s.End, s.Message = journal.StatusCancelled, o.Start, tookOver(o.commit)
					s.Duration = Duration(s.End.Sub(s.Start))
					break
				}
			}
		}
	}
}

func tookOver(commit string) string { return "commit " + Short(commit) + " took its place" }

// replaced makes the events that end open spans of the loop whose application
// went on with a commit outside of the tree.
func replaced(ctx context.Context, r journal.Reader, t Trace) ([]journal.Event, error) {
	var ends []journal.Event
	for _, p := range t.placed(0) {
		if !p.Open() || !p.loop() {
			continue
		}
		later, err := r.Events(ctx, journal.Query{After: t.LastID, Subject: p.Subject, Limit: 1,
			Stages: []journal.Stage{journal.StagePlan, journal.StageApply, journal.StageReady}})
		if err != nil {
			return nil, err
		}
		for _, e := range later {
			if e.Commit != "" && e.Commit != p.commit {
				ends = append(ends, journal.Event{ID: t.LastID, Time: e.Time, Repo: t.Repo, Commit: p.commit, Stage: p.stage, Subject: p.Subject,
					Status: journal.StatusCancelled, Message: tookOver(e.Commit)})
			}
		}
	}
	return ends, nil
}
