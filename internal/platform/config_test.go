package platform

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newConfig is a platform in a folder of the test.
func newConfig(t *testing.T) Config {
	t.Helper()
	cfg := Config{Name: "unit", StateDir: t.TempDir()}
	if err := os.MkdirAll(cfg.path("logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestValidate(t *testing.T) {
	valid := Config{Name: "lockstep", StateDir: "/state", Port: 8080}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string // "" when it is valid
	}{
		"usual":            {func(*Config) {}, ""},
		"one letter":       {func(c *Config) { c.Name = "a" }, ""},
		"twenty letters":   {func(c *Config) { c.Name = strings.Repeat("a", 20) }, ""},
		"port to choose":   {func(c *Config) { c.Port = 0 }, ""},
		"twenty-one":       {func(c *Config) { c.Name = strings.Repeat("a", 21) }, "1 to 20"},
		"no name":          {func(c *Config) { c.Name = "" }, "platform name"},
		"capitals":         {func(c *Config) { c.Name = "Shop" }, `"Shop"`},
		"way out":          {func(c *Config) { c.Name = ".." }, "platform name"},
		"slash":            {func(c *Config) { c.Name = "a/b" }, "platform name"},
		"dash at the end":  {func(c *Config) { c.Name = "a-" }, "no '-' at the ends"},
		"newline":          {func(c *Config) { c.Name = "a\n" }, "platform name"},
		"no folder":        {func(c *Config) { c.StateDir = "" }, "absolute path"},
		"relative folder":  {func(c *Config) { c.StateDir = "state" }, `"state"`},
		"negative port":    {func(c *Config) { c.Port = -1 }, "port -1"},
		"port that is big": {func(c *Config) { c.Port = 65536 }, "65536"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := valid
			tc.change(&cfg)
			err := cfg.Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%+v: %v, want %q", cfg, err, tc.want)
			}
		})
	}
}

func TestNamesOfAPlatform(t *testing.T) {
	for _, tc := range []struct {
		cfg                 Config
		context, url, proxy string
	}{
		{Config{Name: "lockstep", Port: 80}, "lockstep", "http://github.localhost", "http://127.0.0.1:80"},
		{Config{Name: "second", Port: 8081}, "lockstep-second", "http://github.localhost:8081", "http://127.0.0.1:8081"},
	} {
		got := []string{tc.cfg.Context(), tc.cfg.URL("github.localhost"), tc.cfg.Proxy()}
		if diff := cmp.Diff([]string{tc.context, tc.url, tc.proxy}, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestRememberedFillsWhatIsOpen(t *testing.T) {
	cfg := newConfig(t)
	got, err := cfg.Remembered()
	if diff := cmp.Diff(cfg, got); err != nil || diff != "" {
		t.Fatalf("first start: %v\n%s", err, diff)
	}
	first := cfg
	first.Port, first.Kubeconfig, first.UserKubeconfig = 8090, "/etc/kube", "/home/ada/.kube/config"
	if err := first.remember(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(cfg.path("platform.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	got, err = cfg.Remembered()
	if err != nil || got.Port != 8090 || got.Kubeconfig != "/etc/kube" || got.UserKubeconfig != "/home/ada/.kube/config" {
		t.Errorf("second start: %+v, %v", got, err)
	}
	cfg.Port, cfg.Kubeconfig = 9000, "/other"
	if got, err := cfg.Remembered(); err != nil || got.Port != 9000 || got.Kubeconfig != "/other" {
		t.Errorf("what is asked for counts: %+v, %v", got, err)
	}

	if err := os.WriteFile(cfg.path("platform.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Remembered(); err == nil || !strings.Contains(err.Error(), cfg.path("platform.json")) {
		t.Errorf("damaged settings: %v, want the file's name", err)
	}
}

func TestChoosePort(t *testing.T) {
	cfg := newConfig(t)
	taken, l, err := cfg.choosePort()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if taken.Port == 0 || l.Addr().String() != net.JoinHostPort("127.0.0.1", portOf(taken)) {
		t.Errorf("chose %d, listens on %s", taken.Port, l.Addr())
	}

	// The port that was chosen before is held now: another one is found.
	other, m, err := cfg.choosePort()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if other.Port == taken.Port {
		t.Errorf("both have %d", other.Port)
	}

	// Asked for by its number it is an error that names it.
	_, n, err := taken.choosePort()
	var wrong *PortError
	if n != nil || !errors.As(err, &wrong) || wrong.Port != taken.Port || !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("taken port: %v, %v", n, err)
	}
	for _, want := range []string{net.JoinHostPort("127.0.0.1", portOf(taken)), "ss -ltnp", "--port N"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}
