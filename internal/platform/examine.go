package platform

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/cli/doctor"
)

// Examine implements doctor.Machine: what stands in the way of a platform.
func (p program) Examine(name, stateDir string) []doctor.Finding {
	cfg := Config{Name: name, StateDir: stateDir}
	var found []doctor.Finding
	if err := cfg.Validate(); err != nil {
		return []doctor.Finding{{What: "the platform's name or folder cannot be used", Why: err.Error(), Fix: "lockstep doctor --help", Fatal: true}}
	}
	if _, err := exec.LookPath("git"); err != nil {
		found = append(found, doctor.Finding{What: "git is missing", Why: "the Git host runs it", Fix: "apt-get install git", Fatal: true})
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		found = append(found, doctor.Finding{What: "busybox-static is missing", Why: "the base images busybox and golang are made with it; builds that start from them fail",
			Fix: "apt-get install busybox-static"})
	}
	if _, err := exec.LookPath("go"); err != nil {
		found = append(found, doctor.Finding{What: "Go is missing", Why: "the base image golang is made of this machine's toolchain, and actions/setup-go lends it to jobs",
			Fix: "install Go 1.26 or newer from https://go.dev/dl"})
	}
	for _, f := range preflight(cfg) {
		found = append(found, doctor.Finding(f))
	}
	if f := p.examinePort(cfg); f != nil {
		found = append(found, *f)
	}
	return found
}

// examinePort looks whether the port of an earlier start is still free.
func (p program) examinePort(cfg Config) *doctor.Finding {
	remembered, err := cfg.Remembered()
	if err != nil {
		return &doctor.Finding{What: "the platform's settings cannot be read", Why: err.Error(), Fix: "mv " + filepath.Join(cfg.Dir(), "platform.json") + " /tmp", Fatal: true}
	}
	if remembered.Port == 0 || Supervisor(cfg) != 0 {
		return nil
	}
	_, l, err := remembered.choosePort()
	var taken *PortError
	if errors.As(err, &taken) {
		return &doctor.Finding{What: fmt.Sprintf("port %d is taken", taken.Port), Why: strings.SplitN(taken.Error(), ";", 2)[0],
			Fix: fmt.Sprintf("ss -ltnp 'sport = :%d', or lockstep up --port N", taken.Port), Fatal: true}
	}
	if err == nil {
		_ = l.Close()
	}
	return nil
}
