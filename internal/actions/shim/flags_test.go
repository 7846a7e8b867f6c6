package shim

import (
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	flags := Flags{F("--name", "-n"), B("--yes", "-y"), B("--interactive", "-i"), B("--tty", "-t"), M("--ids"), F("--env", "-e")}
	for _, c := range []struct{ args, want string }{
		{"-n a x", "name=a rest=x"}, {"--name=a=b", "name=a=b rest="}, {"-na x", "name=a rest=x"}, {"-it x", "interactive=true tty=true rest=x"},
		{"--ids a b --yes c", "ids=a,b yes=true rest=c"}, {"--yes=false", "yes=false rest="}, {"-e A=1 -e B=2", "env=A=1,B=2 rest="}, {"-- -n x", "rest=-n,x"}, {"-", "rest=-"},
	} {
		p, err := flags.Parse(strings.Fields(c.args), false)
		var got []string
		for _, k := range []string{"name", "ids", "env", "interactive", "tty", "yes"} {
			if p.Has(k) {
				got = append(got, k+"="+strings.Join(p.All(k), ","))
			}
		}
		got = append(got, "rest="+strings.Join(p.Rest, ","))
		if s := strings.Join(got, " "); err != nil || s != c.want {
			t.Errorf("%s: %s %v, want %s", c.args, s, err, c.want)
		}
	}
	for _, bad := range []string{"--unknown", "--name", "-x"} {
		if _, err := flags.Parse(strings.Fields(bad), false); Code(err) != ExitUnknown {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if p, err := flags.Parse([]string{"-i", "img", "-n", "x"}, true); err != nil || strings.Join(p.Rest, " ") != "img -n x" {
		t.Errorf("stop: %v %v", p.Rest, err)
	}
}

func FuzzFlags(f *testing.F) {
	f.Add("-it --name=a -- b")
	flags := Flags{F("--name", "-n"), B("-i"), B("-t"), M("--ids")}
	f.Fuzz(func(t *testing.T, line string) {
		if _, err := flags.Parse(strings.Split(line, " "), len(line)%2 == 0); err != nil && Code(err) != ExitUnknown {
			t.Error(err)
		}
	})
}

func TestAnnounceOnce(t *testing.T) {
	var out strings.Builder
	p := &Process{Env: []string{"RUNNER_TEMP=" + t.TempDir()}, Stderr: &out}
	p.Announce("az")
	p.Announce("az")
	if out.String() != "az: emulated by lockstep\n" {
		t.Errorf("%q", out.String())
	}
}
