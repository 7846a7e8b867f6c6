// Package cron evaluates the five-field schedules of workflows.
//
// Input: an expression such as "*/15 8-18 * * MON-FRI" and a moment. Output:
// the next moment it names, in UTC or in a time zone.
//
// Invariants: pure; whole minutes; when both the day of the month and the day of
// the week are restricted, one of them has to fit (POSIX). A time that a change
// of the clock skips is due when the clock has changed; one that happens twice
// is due once, unless the hour is "*".
//
// Start reading at [Parse], then [Schedule.Next].
package cron

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // time zones also where the machine has none
)

// maxDays is how far Next looks ahead: past every leap day.
const maxDays = 8*366 + 1

// Schedule is a parsed expression.
type Schedule struct {
	minutes, hours, days, months, weekdays uint64 // a bit each
	anyHour, anyDay, anyWeekday            bool
}

// field is what one of the five may hold.
type field struct {
	name     string
	min, max int
	names    []string // of min, min+1, …
}

var fields = [5]field{
	{"minute", 0, 59, nil}, {"hour", 0, 23, nil}, {"day of the month", 1, 31, nil},
	{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{"day of the week", 0, 6, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

// Parse reads an expression. The error says which field is wrong.
func Parse(expr string) (Schedule, error) {
	parts := strings.Fields(expr)
	if len(parts) != len(fields) {
		return Schedule{}, fmt.Errorf("%q has %d fields; five are needed: minute, hour, day of the month, month, day of the week", expr, len(parts))
	}
	var sets [5]uint64
	for i, f := range fields {
		var err error
		if sets[i], err = f.parse(parts[i]); err != nil {
			return Schedule{}, err
		}
	}
	return Schedule{
		minutes: sets[0], hours: sets[1], days: sets[2], months: sets[3], weekdays: sets[4],
		anyHour: parts[1] == "*", anyDay: strings.HasPrefix(parts[2], "*"), anyWeekday: strings.HasPrefix(parts[4], "*"),
	}, nil
}

func (f field) parse(text string) (set uint64, err error) {
	for item := range strings.SplitSeq(text, ",") {
		low, high, step, err := f.item(item)
		if err != nil {
			return 0, fmt.Errorf("%s %q: %w", f.name, text, err)
		}
		for n := low; n <= high; n += step {
			set |= 1 << n
		}
	}
	return set, nil
}

// item reads *, n, a-b and these with /step.
func (f field) item(text string) (low, high, step int, err error) {
	span, every, stepped := strings.Cut(text, "/")
	from, to, isRange := strings.Cut(span, "-")
	low, high, step = f.min, f.max, 1
	if span != "*" {
		if low, err = f.number(from); err != nil {
			return 0, 0, 0, err
		}
		switch {
		case isRange:
			if high, err = f.number(to); err != nil {
				return 0, 0, 0, err
			}
		case !stepped:
			high = low
		}
	}
	if stepped {
		if step, err = strconv.Atoi(every); err != nil || step < 1 || step > f.max || every[0] == '+' {
			return 0, 0, 0, fmt.Errorf("%q is not a step from 1 to %d", every, f.max)
		}
	}
	if high < low {
		return 0, 0, 0, fmt.Errorf("%d comes after %d", low, high)
	}
	return low, high, step, nil
}

func (f field) number(text string) (int, error) {
	for i, name := range f.names {
		if strings.EqualFold(text, name) {
			return f.min + i, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.min || n > f.max || text[0] == '+' || text[0] == '-' {
		return 0, fmt.Errorf("%q is not from %d to %d", text, f.min, f.max)
	}
	return n, nil
}

// Shortest is the shortest time between two moments of the schedule within one
// hour.
func (s Schedule) Shortest() time.Duration {
	shortest, last := 60, -1
	for m := range 60 {
		if s.minutes&(1<<m) == 0 {
			continue
		}
		if last >= 0 {
			shortest = min(shortest, m-last)
		}
		last = m
	}
	return time.Duration(shortest) * time.Minute
}

// Next is the first moment after t, in the given zone (nil is UTC). The zero
// time means never: the 30th of February.
func (s Schedule) Next(t time.Time, zone *time.Location) time.Time {
	if zone == nil {
		zone = time.UTC
	}
	year, month, day := t.In(zone).Date()
	for n := range maxDays {
		date := time.Date(year, month, day+n, 12, 0, 0, 0, time.UTC)
		if !s.matches(date) {
			continue
		}
		if found := s.onDay(date, zone, t); !found.IsZero() {
			return found
		}
	}
	return time.Time{}
}

func (s Schedule) matches(date time.Time) bool {
	day, weekday := s.days&(1<<date.Day()) != 0, s.weekdays&(1<<int(date.Weekday())) != 0
	switch {
	case s.months&(1<<int(date.Month())) == 0:
		return false
	case s.anyDay || s.anyWeekday:
		return day && weekday
	}
	return day || weekday
}

// onDay is the earliest moment of one day that is after t.
func (s Schedule) onDay(date time.Time, zone *time.Location, t time.Time) (first time.Time) {
	for hours := s.hours; hours != 0; hours &= hours - 1 {
		hour := bits.TrailingZeros64(hours)
		for minutes := s.minutes; minutes != 0; minutes &= minutes - 1 {
			for _, at := range moments(date, hour, bits.TrailingZeros64(minutes), zone, s.anyHour) {
				if at.After(t) && (first.IsZero() || at.Before(first)) {
					first = at
				}
			}
		}
	}
	return first
}

// moments are when a clock of the zone shows the given time: usually one.
func moments(date time.Time, hour, minute int, zone *time.Location, twice bool) []time.Time {
	at := time.Date(date.Year(), date.Month(), date.Day(), hour, minute, 0, 0, zone)
	begin, end := at.ZoneBounds()
	if at.Hour() != hour || at.Minute() != minute { // the clock skips it
		if begin.IsZero() || !end.IsZero() && end.Sub(at) < at.Sub(begin) {
			return []time.Time{end}
		}
		return []time.Time{begin}
	}
	found := []time.Time{at}
	same := func(other time.Time) {
		_, a := at.Zone()
		_, b := other.Zone()
		again := at.Add(time.Duration(a-b) * time.Second)
		if _, c := again.Zone(); c != b || a == b {
			return
		}
		if again.Before(at) {
			found = []time.Time{again, at}
		} else {
			found = append(found, again)
		}
	}
	if !begin.IsZero() {
		same(begin.Add(-time.Second))
	}
	if !end.IsZero() {
		same(end)
	}
	if !twice {
		found = found[:1]
	}
	return found
}

// Zone finds a time zone by its IANA name; "" is UTC.
func Zone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || strings.EqualFold(name, "local") {
		return nil, fmt.Errorf("time zone %q is not known; IANA names such as \"Europe/London\" are", name)
	}
	return zone, nil
}
