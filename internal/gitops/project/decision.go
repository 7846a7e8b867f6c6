package project

import (
	"slices"
	"strings"
	"time"
)

// Decision says whether an Application may sync at a time.
type Decision struct {
	Automated bool
	Manual    bool
	Why       string // what forbids an automated sync, "" when nothing does
	// Until is when to ask again: when the decision changes, or earlier where
	// windows follow each other closely. It is zero when nothing changes within
	// a year.
	Until time.Time
}

// maxLooks bounds how far Windows looks ahead, in looks at a schedule. Each
// takes some microseconds.
const maxLooks = 300

// Windows decides whether the Application may start a sync now. Without
// windows that select it, it may. An open deny window forbids; where allow
// windows select it, one of them must be open. A manual sync is permitted
// where every window that forbids has manualSync.
func (p *Project) Windows(now time.Time, t Target) Decision {
	ws := p.selected(t)
	d := decide(ws, now)
	if len(ws) == 0 {
		return d
	}
	horizon := now.AddDate(1, 0, 0)
	at := now
	for left := maxLooks; left > 0; {
		var next time.Time
		for _, w := range ws {
			if e := w.edge(at, &left); !e.IsZero() && (next.IsZero() || e.Before(next)) {
				next = e
			}
		}
		if next.IsZero() || next.After(horizon) {
			d.Until = time.Time{}
			break
		}
		at, d.Until = next, next
		if then := decide(ws, at); then.Automated != d.Automated || then.Manual != d.Manual {
			break
		}
	}
	return d
}

// Continues decides whether a sync that started at a time may go on now. It
// may while it could start now; otherwise only when it was permitted at its
// start and every window that forbids it now has syncOverrun.
func (p *Project) Continues(now, started time.Time, t Target, manual bool) Decision {
	d := p.Windows(now, t)
	ws := p.selected(t)
	permitted := func(d Decision) bool { return d.Automated || manual && d.Manual }
	if permitted(d) || !permitted(decide(ws, started)) {
		return d
	}
	if slices.ContainsFunc(forbidding(ws, now), func(w *window) bool { return !w.overrun }) {
		return d
	}
	d.Automated, d.Manual, d.Why = true, true, ""
	return d
}

func (p *Project) selected(t Target) []*window {
	var out []*window
	for _, w := range p.windows {
		if w.selects(t) {
			out = append(out, w)
		}
	}
	return out
}

func decide(ws []*window, now time.Time) Decision {
	against := forbidding(ws, now)
	if len(against) == 0 {
		return Decision{Automated: true, Manual: true}
	}
	d := Decision{Manual: true}
	var texts []string
	for _, w := range against {
		d.Manual = d.Manual && w.manual
		texts = append(texts, w.text)
	}
	if against[0].kind == "deny" {
		d.Why = "denied by the " + strings.Join(texts, ", the ")
	} else {
		d.Why = "outside of the " + strings.Join(texts, " and the ")
	}
	return d
}

// forbidding are the open deny windows, or else the allow windows when none of
// them is open.
func forbidding(ws []*window, now time.Time) []*window {
	var denies, allows []*window
	open := false
	for _, w := range ws {
		active := w.active(now)
		switch {
		case w.kind == "deny" && active:
			denies = append(denies, w)
		case w.kind == "allow":
			allows = append(allows, w)
			open = open || active
		}
	}
	if len(denies) > 0 {
		return denies
	}
	if open {
		return nil
	}
	return allows
}
