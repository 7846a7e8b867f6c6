package project

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// window is one compiled sync window. Its schedule runs on wall-clock time in
// its zone: a window from 2:00 to 4:00 shows these hours on the clock on every
// day, also where daylight saving begins or ends.
type window struct {
	kind         string // allow or deny
	text         string // for people
	schedule     cron.Schedule
	duration     time.Duration
	zone         *time.Location
	applications []matcher
	namespaces   []matcher
	clusters     []matcher
	all          bool // andOperator
	manual       bool
	overrun      bool
}

// Target is an Application as sync windows select it.
type Target struct {
	Application string // its name, without namespace
	Namespace   string // of its destination
	Cluster     Cluster
}

// maxWindow bounds the length of a window.
const maxWindow = 366 * 24 * time.Hour

func (c *compiler) window(i int, from *v1alpha1.SyncWindow) *window {
	at := fmt.Sprintf("syncWindows[%d].", i)
	w := &window{
		kind: from.Kind, all: from.AndOperator, manual: from.ManualSync, overrun: from.SyncOverrun, zone: time.UTC,
		applications: c.globs(at+"applications", from.Applications), namespaces: c.globs(at+"namespaces", from.Namespaces), clusters: c.globs(at+"clusters", from.Clusters),
	}
	var err error
	if from.Kind != "allow" && from.Kind != "deny" {
		c.bad(at+"kind", "%q is neither allow nor deny", from.Kind)
	}
	if w.schedule, err = parseCron(from.Schedule); err != nil {
		c.bad(at+"schedule", "%q is not a cron schedule of five fields: %w", from.Schedule, err)
	}
	if w.duration, err = time.ParseDuration(from.Duration); err != nil || w.duration <= 0 || w.duration > maxWindow {
		c.bad(at+"duration", `%q is not a duration such as "1h30m" of at most a year`, from.Duration)
	}
	if from.TimeZone != "" {
		if w.zone, err = time.LoadLocation(from.TimeZone); err != nil {
			c.bad(at+"timeZone", `%q is not a time zone such as "Europe/Amsterdam"`, from.TimeZone)
			w.zone = time.UTC
		}
	}
	if len(from.Applications)+len(from.Namespaces)+len(from.Clusters) == 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("spec.syncWindows[%d] selects no applications, namespaces or clusters and has no effect", i))
	}
	w.text = fmt.Sprintf("%s window %q for %s", from.Kind, from.Schedule, from.Duration)
	if from.TimeZone != "" {
		w.text += " in " + from.TimeZone
	}
	if from.Description != "" {
		w.text += " (" + from.Description + ")"
	}
	return w
}

// parseCron parses five fields, or a word such as @daily. Time zones have a
// field of their own, so TZ= is refused.
func parseCron(s string) (schedule cron.Schedule, err error) {
	if len(s) > maxPattern || strings.Contains(s, "=") || strings.HasPrefix(strings.TrimSpace(s), "@") {
		return nil, fmt.Errorf("write minute, hour, day of month, month and day of week; the zone has the field timeZone")
	}
	defer func() { // the parser indexes without looking
		if recover() != nil {
			err = fmt.Errorf("malformed")
		}
	}()
	return cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(s)
}

// selects reports whether the window is for an Application. Lists that are
// empty do not count; the others are joined by or, with andOperator by and.
func (w *window) selects(t Target) bool {
	any := func(list []matcher, values ...string) bool {
		return slices.ContainsFunc(list, func(m matcher) bool {
			return slices.ContainsFunc(values, func(v string) bool { return v != "" && m.match(v) })
		})
	}
	set, hit := 0, 0
	for _, s := range []struct {
		list   []matcher
		values []string
	}{
		{w.applications, []string{t.Application}}, {w.namespaces, []string{t.Namespace}}, {w.clusters, []string{t.Cluster.Name, t.Cluster.Server}},
	} {
		if len(s.list) == 0 {
			continue
		}
		set++
		if any(s.list, s.values...) {
			hit++
		}
	}
	if w.all {
		return set > 0 && hit == set
	}
	return hit > 0
}

// wall is the clock on the wall in a zone, as a time on a line without jumps.
func wall(t time.Time, zone *time.Location) time.Time {
	t = t.In(zone)
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// active reports whether the window is open.
func (w *window) active(now time.Time) bool {
	on := wall(now, w.zone)
	start := w.schedule.Next(on.Add(-w.duration)) // the first that has not ended
	return !start.IsZero() && !start.After(on)
}

// edge is the next time at which the window may open or close. Each look at the
// schedule counts against left.
func (w *window) edge(now time.Time, left *int) time.Time {
	on := wall(now, w.zone)
	var next time.Time
	*left--
	start := w.schedule.Next(on)
	for _, at := range []time.Time{start, w.end(on, left)} {
		if at.IsZero() || !at.After(on) {
			continue
		}
		real := time.Date(at.Year(), at.Month(), at.Day(), at.Hour(), at.Minute(), at.Second(), at.Nanosecond(), w.zone)
		if !real.After(now) { // an hour that comes twice
			real = now.Add(at.Sub(on))
		}
		if next.IsZero() || real.Before(next) {
			next = real
		}
	}
	// The clock is put forward or back: look again then.
	if _, change := now.In(w.zone).ZoneBounds(); !change.IsZero() && (next.IsZero() || change.Before(next)) {
		next = change
	}
	return next
}

// end is when the window that is open closes, zero when none is. Starts that
// fall into an open window prolong it, as far as left goes.
func (w *window) end(on time.Time, left *int) time.Time {
	*left--
	start := w.schedule.Next(on.Add(-w.duration))
	if start.IsZero() || start.After(on) {
		return time.Time{}
	}
	end := start.Add(w.duration)
	for ; *left > 0; *left-- {
		next := w.schedule.Next(start)
		if next.IsZero() || next.After(end) {
			break
		}
		start, end = next, next.Add(w.duration)
	}
	return end
}
