package cron

import (
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestNext(t *testing.T) {
	for _, c := range []struct{ expr, zone, after, want string }{
		{"*/15 * * * *", "", "2026-03-01T10:07:30Z", "2026-03-01T10:15:00Z"},
		{"*/15 * * * *", "", "2026-03-01T10:15:00Z", "2026-03-01T10:30:00Z"},
		{"20/15 * * * *", "", "2026-03-01T10:51:00Z", "2026-03-01T11:20:00Z"},
		{"0 0 * * *", "", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"},
		{"30 5,17 * * *", "", "2026-03-01T06:00:00Z", "2026-03-01T17:30:00Z"},
		{"0 0 29 2 *", "", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"0 0 30 2 *", "", "2026-03-01T00:00:00Z", ""},
		{"0 9 * * MON-fri", "", "2026-11-20T09:00:00Z", "2026-11-23T09:00:00Z"},
		{"0 9 * * 1-5/2", "", "2026-11-23T09:00:00Z", "2026-11-25T09:00:00Z"},
		{"0 0 13 * 5", "", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"}, // the 13th or a Friday
		{"0 0 13 * *", "", "2026-11-01T00:00:00Z", "2026-11-13T00:00:00Z"},
		{"0 0 */2 * 5", "", "2026-11-01T00:00:00Z", "2026-11-13T00:00:00Z"}, // a day that starts with * has to fit too
		{"0 0 1 JAN,jul *", "", "2026-02-01T00:00:00Z", "2026-07-01T00:00:00Z"},
		{"0 9 * * *", "Europe/Berlin", "2026-01-01T00:00:00Z", "2026-01-01T08:00:00Z"},
		{"0 9 * * *", "America/New_York", "2026-07-01T13:00:00Z", "2026-07-02T13:00:00Z"},
		// The clock skips 02:00 to 03:00 in Berlin on 2026-03-29, and shows it twice on 2026-10-25.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		{"30 * * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"},
		{"30 * * * *", "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"},
	} {
		s, err := Parse(c.expr)
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		zone, err := Zone(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		after, err := time.Parse(time.RFC3339, c.after)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if next := s.Next(after, zone); !next.IsZero() {
			got = next.UTC().Format(time.RFC3339)
		}
		if got != c.want {
			t.Errorf("%s %s after %s: got %s, want %s", c.expr, c.zone, c.after, got, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for expr, want := range map[string]string{
		"":              `"" has 0 fields; five are needed: minute, hour, day of the month, month, day of the week`,
		"* * * *":       `"* * * *" has 4 fields; five are needed: minute, hour, day of the month, month, day of the week`,
		"60 * * * *":    `minute "60": "60" is not from 0 to 59`,
		"* 24 * * *":    `hour "24": "24" is not from 0 to 23`,
		"* * 0 * *":     `day of the month "0": "0" is not from 1 to 31`,
		"* * * 13 *":    `month "13": "13" is not from 1 to 12`,
		"* * * * 7":     `day of the week "7": "7" is not from 0 to 6`,
		"* * * foo *":   `month "foo": "foo" is not from 1 to 12`,
		"30-10 * * * *": `minute "30-10": 30 comes after 10`,
		"*/0 * * * *":   `minute "*/0": "0" is not a step from 1 to 59`,
		"*/ * * * *":    `minute "*/": "" is not a step from 1 to 59`,
		"1,, * * * *":   `minute "1,,": "" is not from 0 to 59`,
		"1-2-3 * * * *": `minute "1-2-3": "2-3" is not from 0 to 59`,
		"-1 * * * *":    `minute "-1": "" is not from 0 to 59`,
		"+1 * * * *":    `minute "+1": "+1" is not from 0 to 59`,
		"* * L * *":     `day of the month "L": "L" is not from 1 to 31`,
		"@daily":        `"@daily" has 1 fields; five are needed: minute, hour, day of the month, month, day of the week`,
	} {
		if _, err := Parse(expr); err == nil || err.Error() != want {
			t.Errorf("%q\n got %v\nwant %s", expr, err, want)
		}
	}
}

func TestShortest(t *testing.T) {
	for expr, want := range map[string]time.Duration{"* * * * *": time.Minute, "*/5 * * * *": 5 * time.Minute, "0 * * * *": time.Hour, "0,3 1 * * *": 3 * time.Minute} {
		if s, err := Parse(expr); err != nil || s.Shortest() != want {
			t.Errorf("%s: %v, %v", expr, s.Shortest(), err)
		}
	}
}

// Next gives a moment after t that fits, and none between is passed over.
func TestNextIsTheFirstThatFits(t *testing.T) {
	part := func(name string, f field) *rapid.Generator[string] {
		return rapid.Custom(func(rt *rapid.T) string {
			if rapid.Bool().Draw(rt, name) {
				return "*"
			}
			return strconv.Itoa(rapid.IntRange(f.min, min(f.max, 28)).Draw(rt, name+"n"))
		})
	}
	rapid.Check(t, func(rt *rapid.T) {
		expr := ""
		for _, f := range fields {
			expr += part(f.name, f).Draw(rt, f.name) + " "
		}
		s, err := Parse(expr)
		if err != nil {
			rt.Fatal(err)
		}
		after := time.Unix(rapid.Int64Range(1.7e9, 1.9e9).Draw(rt, "after"), 0).UTC()
		next := s.Next(after, nil)
		fits := func(at time.Time) bool {
			return s.minutes&(1<<at.Minute()) != 0 && s.hours&(1<<at.Hour()) != 0 && s.matches(at)
		}
		if !next.After(after) || next.Second() != 0 || !fits(next) {
			rt.Fatalf("%s after %s: %s", expr, after, next)
		}
		for at := after.Truncate(time.Minute).Add(time.Minute); at.Before(next) && at.Before(after.Add(48*time.Hour)); at = at.Add(time.Minute) {
			if fits(at) {
				rt.Fatalf("%s after %s: %s, but %s fits too", expr, after, next, at)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"* * * * *", "*/5 1-2 1,2 JAN MON-FRI/2", "0 0 31 2 *", "99999999999999999999 * * * *", "a b c d e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		s, err := Parse(expr)
		if err != nil {
			return
		}
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		if next := s.Next(at, nil); !next.IsZero() && !next.After(at) {
			t.Fatalf("%q: %s", expr, next)
		}
	})
}
