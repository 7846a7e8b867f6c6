// Package registry runs the official conformance suite of the OCI distribution
// specification against internal/registry over a real socket.
//
// The suite is built from its module, which go.mod pins. The gate is no failure
// outside referrers and sha512, which Distribution does not have.
package registry

import (
	"context"
	"encoding/xml"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/registry"
)

// anyone lets every user do everything with the password "secret".
type anyone struct{}

func (anyone) Login(_ context.Context, _, user, password string) (registry.Principal, error) {
	if password != "secret" {
		return registry.Principal{}, registry.ErrBadCredentials
	}
	return registry.Principal{Name: user}, nil
}

func (anyone) Allowed(context.Context, registry.Principal, string, string, string) bool { return true }

// junit is the part of the suite's report that is read here.
type junit struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Errors   int `xml:"errors,attr"`
	Suites   []struct {
		Cases []struct {
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
			Output  string    `xml:"system-out"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func TestDistributionSpec(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the conformance suite; left out by -short")
	}
	dir := t.TempDir()
	suite := filepath.Join(dir, "conformance")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", suite, "github.com/opencontainers/distribution-spec/conformance")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the suite: %v\n%s", err, out)
	}

	r, err := registry.New(registry.Config{Dir: filepath.Join(dir, "state")}, registry.Deps{Authorizer: anyone{}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r.Handler())
	t.Cleanup(func() {
		server.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})

	run := exec.CommandContext(t.Context(), suite)
	run.Dir = dir
	run.Env = []string{
		"HOME=" + dir,
		"OCI_REGISTRY=" + strings.TrimPrefix(server.URL, "http://"),
		"OCI_TLS=disabled", "OCI_USERNAME=conformance", "OCI_PASSWORD=secret",
		"OCI_RESULTS_DIR=" + filepath.Join(dir, "results"),
		"OCI_API_REFERRER=false", "OCI_DATA_SUBJECT=false", "OCI_DATA_SUBJECT_MISSING=false",
		"OCI_DATA_SUBJECT_LIST=false", "OCI_DATA_SHA512=false",
	}
	// The exit status says only that something failed; the report says what.
	out, runErr := run.CombinedOutput()
	report, err := os.ReadFile(filepath.Join(dir, "results", "junit.xml"))
	if err != nil {
		t.Fatalf("the suite left no report: %v, %v\n%s", err, runErr, out)
	}
	var res junit
	if err := xml.Unmarshal(report, &res); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, s := range res.Suites {
		for _, c := range s.Cases {
			ran++
			if c.Failure != nil || c.Error != nil {
				t.Errorf("%s\n%s", c.Name, c.Output)
			}
		}
	}
	if ran < 300 {
		t.Errorf("only %d checks ran\n%s", ran, out)
	}
	if runErr != nil && !t.Failed() {
		t.Errorf("the suite failed: %v\n%s", runErr, out)
	}
	t.Logf("%d checks, %d failures", ran, res.Failures+res.Errors)
}
