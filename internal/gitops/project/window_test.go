package project

import (
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

var shop = Target{Application: "shop", Namespace: "web", Cluster: local}

func at(t *testing.T, s string) time.Time {
	t.Helper()
	got, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWindows(t *testing.T) {
	const (
		night   = `{kind: deny, schedule: "0 22 * * *", duration: 8h, applications: ["*"]}`
		office  = `{kind: allow, schedule: "0 9 * * 1-5", duration: 8h, applications: ["*"]}`
		officeM = `{kind: allow, schedule: "0 9 * * 1-5", duration: 8h, applications: ["*"], manualSync: true}`
		nightM  = `{kind: deny, schedule: "0 22 * * *", duration: 8h, applications: ["*"], manualSync: true}`
		other   = `{kind: deny, schedule: "* * * * *", duration: 1h, applications: [other]}`
	)
	for _, c := range []struct {
		name, windows, now string
		automated, manual  bool
		until, why         string
	}{
		{"none", ``, "2026-03-10T12:00:00Z", true, true, "", ""},
		{"of others", other, "2026-03-10T12:00:00Z", true, true, "", ""},
		{"before a denial", night, "2026-03-10T21:59:59Z", true, true, "2026-03-10T22:00:00Z", ""},
		{"begin of a denial", night, "2026-03-10T22:00:00Z", false, false, "2026-03-11T06:00:00Z", `denied by the deny window "0 22 * * *" for 8h`},
		{"in a denial, past midnight", night, "2026-03-11T03:00:00Z", false, false, "2026-03-11T06:00:00Z", "denied"},
		{"end of a denial", night, "2026-03-11T06:00:00Z", true, true, "2026-03-11T22:00:00Z", ""},
		{"in a denial, by hand", nightM, "2026-03-11T03:00:00Z", false, true, "2026-03-11T06:00:00Z", "denied"},
		{"one of two denials by hand", night + "," + nightM, "2026-03-11T03:00:00Z", false, false, "2026-03-11T06:00:00Z", "denied"},
		{"allowed", office, "2026-03-10T12:00:00Z", true, true, "2026-03-10T17:00:00Z", ""},
		{"not allowed at the weekend", office, "2026-03-14T12:00:00Z", false, false, "2026-03-16T09:00:00Z", `outside of the allow window "0 9 * * 1-5" for 8h`},
		{"not allowed, by hand", officeM, "2026-03-14T12:00:00Z", false, true, "2026-03-16T09:00:00Z", "outside"},
		{"one of two allows by hand", office + "," + officeM, "2026-03-14T12:00:00Z", false, false, "2026-03-16T09:00:00Z", "outside"},
		{"denial wins over an allow", `{kind: deny, schedule: "0 12 * * *", duration: 1h, applications: ["*"]},` + office, "2026-03-10T12:30:00Z", false, false, "2026-03-10T13:00:00Z", "denied"},
		{"windows that follow each other", `{kind: deny, schedule: "0 * * * *", duration: 1h, applications: ["*"]}`, "2026-03-10T12:30:00Z", false, false, "later", "denied"},
		{"day of the month", `{kind: deny, schedule: "0 0 1 * *", duration: 24h, applications: ["*"]}`, "2026-03-01T23:00:00Z", false, false, "2026-03-02T00:00:00Z", "denied"},
		{"zone", `{kind: deny, schedule: "0 22 * * *", duration: 1h, timeZone: America/New_York, applications: ["*"]}`, "2026-01-11T03:30:00Z", false, false, "2026-01-11T04:00:00Z", "in America/New_York"},
		{"by namespace", `{kind: deny, schedule: "* * * * *", duration: 1h, namespaces: [we*]}`, "2026-03-10T12:00:00Z", false, false, "later", "denied"},
		{"by cluster name", `{kind: deny, schedule: "* * * * *", duration: 1h, clusters: [in-*]}`, "2026-03-10T12:00:00Z", false, false, "later", "denied"},
		{"by server", `{kind: deny, schedule: "* * * * *", duration: 1h, clusters: ["https://kubernetes*"]}`, "2026-03-10T12:00:00Z", false, false, "later", "denied"},
		{"or", `{kind: deny, schedule: "* * * * *", duration: 1h, applications: [other], namespaces: [web]}`, "2026-03-10T12:00:00Z", false, false, "later", "denied"},
		{"and", `{kind: deny, schedule: "* * * * *", duration: 1h, applications: [other], namespaces: [web], andOperator: true}`, "2026-03-10T12:00:00Z", true, true, "", ""},
		{"and, both", `{kind: deny, schedule: "* * * * *", duration: 1h, applications: [sh*], namespaces: [web], andOperator: true}`, "2026-03-10T12:00:00Z", false, false, "later", "denied"},
		{"selects nothing", `{kind: deny, schedule: "* * * * *", duration: 1h}`, "2026-03-10T12:00:00Z", true, true, "", ""},
		{"never", `{kind: deny, schedule: "0 0 30 2 *", duration: 1h, applications: ["*"]}`, "2026-03-10T12:00:00Z", true, true, "", ""},
	} {
		d := compile(t, "syncWindows: ["+c.windows+"]").Windows(at(t, c.now), shop)
		until := ""
		if !d.Until.IsZero() {
			until = d.Until.UTC().Format(time.RFC3339)
		}
		if c.until == "later" && d.Until.After(at(t, c.now)) { // always closed: ask again some time
			until = "later"
		}
		if d.Automated != c.automated || d.Manual != c.manual || until != c.until || !strings.Contains(d.Why, c.why) || d.Automated != (d.Why == "") {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

// TestWindowsAndDaylightSaving: the clock on the wall counts. In Amsterdam it
// goes from 2:00 to 3:00 on 29 March 2026 (at 1:00 UTC), and from 3:00 back to
// 2:00 on 25 October (at 1:00 UTC).
func TestWindowsAndDaylightSaving(t *testing.T) {
	for _, c := range []struct {
		name, schedule, duration string
		closed                   []string
		open                     []string
	}{
		{"a night in winter and in summer", "0 22 * * *", "8h",
			[]string{"2026-01-10T21:00:00Z", "2026-01-11T04:59:00Z", "2026-07-10T20:00:00Z", "2026-07-11T03:59:00Z"},
			[]string{"2026-01-10T20:59:00Z", "2026-01-11T05:00:00Z", "2026-07-10T19:59:00Z", "2026-07-11T04:00:00Z"}},
		{"over the hour that is missing", "0 22 * * *", "8h",
			[]string{"2026-03-28T21:00:00Z", "2026-03-29T03:59:00Z"}, // to 6:00 on the wall
			[]string{"2026-03-29T04:00:00Z"}},
		{"over the hour that comes twice", "0 22 * * *", "8h",
			[]string{"2026-10-24T20:00:00Z", "2026-10-25T04:59:00Z"},
			[]string{"2026-10-25T05:00:00Z"}},
		{"beginning in the hour that is missing", "30 2 * * *", "1h",
			[]string{"2026-03-29T01:00:00Z", "2026-03-29T01:29:00Z"}, // 3:00 to 3:30 on the wall
			[]string{"2026-03-29T00:59:00Z", "2026-03-29T01:30:00Z"}},
		{"in the hour that comes twice", "0 2 * * *", "30m",
			[]string{"2026-10-25T00:00:00Z", "2026-10-25T00:29:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:29:00Z"},
			[]string{"2026-10-24T23:59:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"}},
	} {
		p := compile(t, `syncWindows: [{kind: deny, timeZone: Europe/Amsterdam, applications: ["*"], schedule: "`+c.schedule+`", duration: `+c.duration+`}]`)
		for _, s := range c.closed {
			if d := p.Windows(at(t, s), shop); d.Automated || d.Until.IsZero() || !d.Until.After(at(t, s)) {
				t.Errorf("%s: %s: %+v", c.name, s, d)
			}
		}
		for _, s := range c.open {
			if d := p.Windows(at(t, s), shop); !d.Automated {
				t.Errorf("%s: %s: %+v", c.name, s, d)
			}
		}
	}
}

// TestUntilIsExact walks through months of windows: the decision changes at
// Until and not before.
func TestUntilIsExact(t *testing.T) {
	p := compile(t, `syncWindows: [
{kind: deny, timeZone: Europe/Amsterdam, applications: ["*"], schedule: "30 2 * * *", duration: 45m},
{kind: allow, timeZone: America/New_York, applications: ["*"], schedule: "15 1 * * 0,3", duration: 30h}]`)
	now, end := at(t, "2026-01-01T00:00:00Z"), at(t, "2026-05-01T00:00:00Z")
	for n := 0; now.Before(end); n++ {
		d := p.Windows(now, shop)
		if d.Until.IsZero() || n > 3000 {
			t.Fatalf("at %s: %+v after %d changes", now, d, n)
		}
		if then := p.Windows(d.Until, shop); then.Automated == d.Automated { // these windows never come so closely
			t.Fatalf("nothing changes at %s", d.Until)
		}
		for s := now; s.Before(d.Until); s = s.Add(37 * time.Minute) {
			if p.Windows(s, shop).Automated != d.Automated {
				t.Fatalf("it changes at %s, before %s", s, d.Until)
			}
		}
		now = d.Until
	}
}

func TestOverrun(t *testing.T) {
	deny := func(overrun string) string {
		return `{kind: deny, schedule: "0 12 * * *", duration: 1h, applications: ["*"], syncOverrun: ` + overrun + `}`
	}
	allow := func(overrun string) string {
		return `{kind: allow, schedule: "0 9 * * *", duration: 3h, applications: ["*"], syncOverrun: ` + overrun + `}`
	}
	for _, c := range []struct {
		name, windows, started, now string
		want                        bool
	}{
		{"nothing, then deny with overrun", deny("true"), "11:50", "12:10", true},
		{"nothing, then deny without", deny("false"), "11:50", "12:10", false},
		{"allow with, deny with", allow("true") + "," + deny("true"), "11:50", "12:10", true},
		{"allow with, deny without", allow("true") + "," + deny("false"), "11:50", "12:10", false},
		{"allow without, deny with", allow("false") + "," + deny("true"), "11:50", "12:10", true},
		{"allow with, ended", allow("true"), "11:50", "12:10", true},
		{"allow without, ended", allow("false"), "11:50", "12:10", false},
		{"two allows with, ended", allow("true") + "," + allow("true"), "11:50", "12:10", true},
		{"two allows, one without", allow("true") + "," + allow("false"), "11:50", "12:10", false},
		{"was not permitted at its start", deny("true"), "12:05", "12:10", false},
		{"permitted anyway", deny("false"), "11:50", "13:10", true},
	} {
		p := compile(t, "syncWindows: ["+c.windows+"]")
		day := "2026-03-10T"
		if got := p.Continues(at(t, day+c.now+":00Z"), at(t, day+c.started+":00Z"), shop, false); got.Automated != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func FuzzWindow(f *testing.F) {
	f.Add("0 22 * * *", "8h", "Europe/Amsterdam", int64(1_770_000_000))
	f.Add("*/5 0-3,7 1 */2 1-5", "90m", "", int64(1_743_210_000))
	f.Add("@every 1h", "1h", "Local", int64(0))
	f.Add("TZ= 1 1 1 1 1", "1h", "UTC", int64(0))
	f.Add("0 0 29 2 ?", "8784h", "Asia/Kathmandu", int64(1_900_000_000))
	f.Fuzz(func(t *testing.T, schedule, duration, zone string, unix int64) {
		from := parse(t, `{}`)
		from.Spec.SyncWindows = append(from.Spec.SyncWindows, denyWindow(schedule, duration, zone))
		p, err := Compile(from)
		if err != nil {
			return
		}
		now := time.Unix(unix%(1<<33), 0)
		d := p.Windows(now, shop)
		if !d.Until.IsZero() && !d.Until.After(now) {
			t.Errorf("%q %q %q at %s: %+v", schedule, duration, zone, now, d)
		}
	})
}

func denyWindow(schedule, duration, zone string) v1alpha1.SyncWindow {
	return v1alpha1.SyncWindow{Kind: "deny", Schedule: schedule, Duration: duration, TimeZone: zone, Applications: []string{"*"}}
}
