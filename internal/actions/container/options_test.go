package container

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestParseRun(t *testing.T) {
	got, err := ParseRun(strings.Fields("--rm -it -e A=1 -e GIVEN -eMISSING -p 80:8080 -v /a:/b:ro --mount type=bind,src=/c,dst=/d,readonly --mount type=tmpfs,dst=/t "+
		"--name db --network net --network-alias x -u 1:2 -w /w --entrypoint /e --health-cmd true --health-interval 10s --health-retries=5 -m 512m --cpus 1.5 "+
		"--pids-limit 100 --init --add-host a:1.2.3.4 --stop-timeout 3 alpine:3 sh -c -x"), []string{"GIVEN=from outside"})
	if err != nil {
		t.Fatal(err)
	}
	want := Spec{
		Name: "db", Image: "alpine:3", Entrypoint: []string{"/e"}, Args: []string{"sh", "-c", "-x"}, Env: []string{"A=1", "GIVEN=from outside"}, Dir: "/w", User: "1:2",
		Aliases: []string{"x"}, Hosts: []string{"a:1.2.3.4"}, Volumes: []string{"/a:/b:ro", "/c:/d:ro", "/t"}, Ports: []string{"80:8080"}, Network: "net",
		Health: &Health{Test: []string{"CMD-SHELL", "true"}, Interval: 10 * time.Second, Retries: 5}, StopGrace: 3 * time.Second,
	}
	want.Limits.Memory, want.Limits.CPU, want.Limits.PIDs = 512<<20, 150, 100
	if !reflect.DeepEqual(got.Spec, want) {
		t.Errorf("got  %+v\nwant %+v", got.Spec, want)
	}
	if !got.Remove || !got.Interactive || got.Detach || len(got.Notes) == 0 {
		t.Errorf("%+v", got)
	}
	for args, want := range map[string]string{
		"":                                  "no image",
		"--privileged alpine":               "--privileged is not supported",
		"--device /dev/kvm alpine":          "--device is not supported",
		"--cap-add SYS_ADMIN alpine":        "SYS_ADMIN",
		"--frobnicate alpine":               "frobnicate",
		"-p 1-5:1-5 alpine":                 "ranges",
		"-p 53:53/udp alpine":               "only tcp",
		"-v a/b:/x alpine":                  "absolute path or a name",
		"-v ..:/x alpine":                   "absolute path or a name",
		"-v /a:/ alpine":                    "not the root",
		"-v /a:rel alpine":                  "absolute",
		"-m lots alpine":                    "size",
		"--mount type=npipe,dst=/x alpine":  "npipe",
		"--network none alpine":             "none",
		"--health-interval soon alpine":     "soon",
		"--gpus all alpine":                 "--gpus",
		"--env-file x alpine":               "--env-file",
		"--mount type=bind,src=a,dst=/x im": "absolute",
	} {
		if _, err := ParseRun(strings.Fields(args), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	if _, err := ParseOptions(strings.Fields("--health-cmd true --cpus 1 --cap-add CAP_CHOWN --privileged=false")); err != nil {
		t.Error(err)
	}
	if _, err := ParseOptions([]string{"alpine"}); err == nil {
		t.Error("an image was taken as an option")
	}
}

func TestParsePort(t *testing.T) {
	for text, want := range map[string]port{"80": {"", 0, 80}, "8080:80": {"", 8080, 80}, "127.0.0.1:8080:80/tcp": {"127.0.0.1", 8080, 80}, "127.0.0.1::80": {"127.0.0.1", 0, 80}} {
		if got, err := parsePort(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "0", "65536", "a:1", "1:2:3", "1:2:3:4", "[::1]:1:2", "-1", ":"} {
		if got, err := parsePort(bad); err == nil {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}

func TestProgramOfAnImage(t *testing.T) {
	image := v1.Config{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}, Env: []string{"PATH=/own", "A=image"}, WorkingDir: "rel", User: "app", StopSignal: "SIGQUIT",
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "check"}}}
	for _, c := range []struct {
		spec Spec
		want []string
	}{
		{Spec{}, []string{"/entry", "cmd"}},
		{Spec{Args: []string{"x"}}, []string{"/entry", "x"}},
		{Spec{Entrypoint: []string{"/other"}}, []string{"/other"}},
		{Spec{Entrypoint: []string{}, Args: []string{"sh"}}, []string{"sh"}},
	} {
		p, err := c.spec.program(image)
		if err != nil || !slices.Equal(p.args, c.want) || p.dir != "/rel" || p.user != "app" || p.signal != 3 || p.health == nil {
			t.Errorf("%+v: %+v, %v", c.spec, p, err)
		}
	}
	p, err := Spec{Env: []string{"A=mine", "B=2"}, Health: &Health{Test: []string{"NONE"}}}.program(image)
	if err != nil || !slices.Equal(p.env, []string{"PATH=/own", "A=mine", "B=2"}) || p.health != nil {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []Spec{{Dir: "rel"}, {StopSignal: "SIGNOTHING"}} {
		if _, err := bad.program(image); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if _, err := (Spec{}).program(v1.Config{}); err == nil {
		t.Error("an image without a command was taken")
	}
	if p, err := (Spec{Idle: true}).program(v1.Config{}); err != nil || p.dir != "/" {
		t.Errorf("idle: %+v, %v", p, err)
	}
}

func FuzzParseRun(f *testing.F) {
	for _, s := range []string{"-p 80:8080 alpine sh", "--mount type=bind,src=/a,dst=/b x", "-v /a:/b:ro,z img", "--health-cmd=true --memory 1g i", "-e A --cpus 0.5 i"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseRun(strings.Fields(s), []string{"A=1"})
		if err != nil {
			return
		}
		if c.Spec.Image == "" || c.Spec.Limits.Memory < 0 || c.Spec.Limits.CPU < 0 {
			t.Errorf("%q gave %+v", s, c.Spec)
		}
		for _, v := range c.Spec.Volumes {
			if source, target, _, err := parseVolume(v); err != nil || !strings.HasPrefix(target, "/") || target == "/" || strings.HasPrefix(source, ".") && strings.Contains(source, "/") {
				t.Errorf("%q gave the volume %q", s, v)
			}
		}
	})
}
