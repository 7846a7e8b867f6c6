package trace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Bounds of one trace: deeper or wider chains of causes are cut there.
const (
	maxDepth   = 8
	maxCommits = 64
	maxEvents  = 10_000 // by commit
)

// ErrUnknown says that the journal has no event of the commit.
var ErrUnknown = errors.New("no event of this commit")

// AmbiguousError says that a prefix fits several commits.
type AmbiguousError struct {
	Prefix  string
	Commits []string // some of them
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%s fits several commits: %s", e.Prefix, strings.Join(e.Commits, ", "))
}

// Load reads the trace that commit (a full id or a prefix of at least 4
// digits) belongs to, from the commit that started the chain: a commit pushed
// by a run is shown below the commit of that run. Errors: [ErrUnknown],
// [*AmbiguousError], or the journal's.
func Load(ctx context.Context, r journal.Reader, commit string) (Trace, error) {
	return LoadAt(ctx, r, commit, time.Now())
}

// LoadAt is Load with the clock that open spans are measured by.
func LoadAt(ctx context.Context, r journal.Reader, commit string, now time.Time) (Trace, error) {
	full, err := Resolve(ctx, r, commit)
	if err != nil {
		return Trace{}, err
	}
	root, events := full, map[string][]journal.Event{}
	for range maxDepth {
		if events[root], err = eventsOf(ctx, r, root); err != nil {
			return Trace{}, err
		}
		cause := causeOf(events[root])
		if _, seen := events[cause]; cause == "" || seen {
			break
		}
		above, err := eventsOf(ctx, r, cause)
		if err != nil {
			return Trace{}, err
		}
		if len(above) == 0 { // the journal no longer knows it
			break
		}
		root, events[cause] = cause, above
	}
	if err := effects(ctx, r, root, events, maxDepth); err != nil {
		return Trace{}, err
	}
	var all []journal.Event
	for _, list := range events {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b journal.Event) int { return int(a.ID - b.ID) })
	for _, t := range Build(all, now) {
		if !t.contains(full) {
			continue
		}
		ends, err := replaced(ctx, r, t)
		if err != nil || len(ends) == 0 {
			return t, err
		}
		for _, t := range Build(append(all, ends...), now) {
			if t.contains(full) {
				return t, nil
			}
		}
	}
	return Trace{}, fmt.Errorf("trace %s: %w", commit, ErrUnknown)
}

// Recent reads the traces of the newest pushes, newest first, at most limit.
// before is the event ID to continue from (0 starts at the newest); next is
// the one for the following page, 0 at the end.
func Recent(ctx context.Context, r journal.Reader, repo string, before int64, limit int, now time.Time) (list []Trace, next int64, err error) {
	pushes, err := r.Events(ctx, journal.Query{Repo: repo, Stages: []journal.Stage{journal.StagePush}, Before: before, Limit: limit, Newest: true})
	if err != nil {
		return nil, 0, err
	}
	if len(pushes) == limit && limit > 0 {
		next = pushes[0].ID
	}
	shown := map[string]bool{}
	for _, p := range slices.Backward(pushes) {
		if p.Commit == "" || shown[p.Commit] {
			continue
		}
		t, err := LoadAt(ctx, r, p.Commit, now)
		if err != nil {
			return nil, 0, err
		}
		if shown[t.Commit] {
			continue // a write-back: its cause is there
		}
		t.each(func(c *Trace) { shown[c.Commit] = true })
		list = append(list, t)
	}
	return list, next, nil
}

// Resolve finds the one commit of the journal that a prefix fits.
func Resolve(ctx context.Context, r journal.Reader, prefix string) (string, error) {
	prefix = strings.ToLower(prefix)
	if len(prefix) < 4 || len(prefix) > 64 || strings.Trim(prefix, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%q is no commit: a commit is 4 to 64 hexadecimal digits: %w", prefix, ErrUnknown)
	}
	// The pushes name few events by commit; all events are the net.
	for _, q := range []journal.Query{{Commit: prefix, Stages: []journal.Stage{journal.StagePush}}, {Commit: prefix}} {
		events, err := r.Events(ctx, q)
		if err != nil {
			return "", err
		}
		var found []string
		for _, e := range events {
			if e.Commit == prefix {
				return prefix, nil
			}
			if !slices.Contains(found, e.Commit) && len(found) < 5 {
				found = append(found, e.Commit)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return "", &AmbiguousError{prefix, found}
		}
	}
	return "", fmt.Errorf("trace %s: %w", prefix, ErrUnknown)
}

func eventsOf(ctx context.Context, r journal.Reader, commit string) ([]journal.Event, error) {
	events, err := r.Events(ctx, journal.Query{Commit: commit, Limit: maxEvents, Newest: true})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(events, func(e journal.Event) bool { return e.Commit != commit }), nil
}

// effects adds the events of every commit that commit caused.
func effects(ctx context.Context, r journal.Reader, commit string, events map[string][]journal.Event, depth int) error {
	if depth == 0 {
		return nil
	}
	pushes, err := r.Events(ctx, journal.Query{Cause: commit, Stages: []journal.Stage{journal.StagePush}, Limit: maxCommits})
	if err != nil {
		return err
	}
	for _, p := range pushes {
		if p.Commit == "" || p.Commit == commit || len(events) >= maxCommits {
			continue
		}
		if _, seen := events[p.Commit]; !seen {
			if events[p.Commit], err = eventsOf(ctx, r, p.Commit); err != nil {
				return err
			}
		}
		if err := effects(ctx, r, p.Commit, events, depth-1); err != nil {
			return err
		}
	}
	return nil
}

func (t *Trace) contains(commit string) bool {
	found := false
	t.each(func(c *Trace) { found = found || c.Commit == commit })
	return found
}

// each calls f for the trace and everything below it, causes first.
func (t *Trace) each(f func(*Trace)) {
	f(t)
	for i := range t.Children {
		t.Children[i].each(f)
	}
}
