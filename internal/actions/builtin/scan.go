package builtin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
)

// Bounds of SARIF reports.
const (
	maxSARIF      = 64 << 20
	maxShownFinds = 50 // annotations per report
)

// notScanned remembers that a scanner was asked for and not there.
const notScanned = "_lockstep/not-scanned"

func uploadSARIF() Action {
	return Action{
		Name: "github/codeql-action/upload-sarif",
		Inputs: map[string]string{"sarif_file": "../results", "category": "", "checkout_path": "", "ref": "", "sha": "",
			"wait-for-processing": "true"},
		NoEffect: map[string]string{"token": "the report stays on this machine", "matrix": "the category tells reports apart"},
		Run:      runUploadSARIF,
	}
}

// sarif is what is read of a report.
type sarif struct {
	Runs []struct {
		Tool struct {
			Driver struct {
				Name  string `json:"name"`
				Rules []struct {
					ID                   string `json:"id"`
					DefaultConfiguration struct {
						Level string `json:"level"`
					} `json:"defaultConfiguration"`
				} `json:"rules"`
			} `json:"driver"`
		} `json:"tool"`
		Results []struct {
			RuleID  string `json:"ruleId"`
			Level   string `json:"level"`
			Message struct {
				Text string `json:"text"`
			} `json:"message"`
			Locations []struct {
				PhysicalLocation struct {
					ArtifactLocation struct {
						URI string `json:"uri"`
					} `json:"artifactLocation"`
					Region struct {
						StartLine int `json:"startLine"`
					} `json:"region"`
				} `json:"physicalLocation"`
			} `json:"locations"`
		} `json:"results"`
	} `json:"runs"`
}

func runUploadSARIF(ctx context.Context, c *Call) error {
	found, err := c.glob(ctx, []string{c.With["sarif_file"]}, true)
	if err != nil {
		return err
	}
	defer found.close()
	ids := []string{}
	for _, f := range found.files {
		if path.Ext(f.name) != ".sarif" && f.abs != c.inJob(c.With["sarif_file"]) {
			continue
		}
		id, err := c.uploadReport(ctx, f)
		if err != nil {
			return c.errorf("", "%s: %w", f.abs, err)
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		if said, err := readFile(c.Job.Temp, notScanned, 1<<16); err == nil {
			c.warn("there is no report to upload: %s", strings.TrimSpace(string(said)))
			return nil
		}
		return c.errorf("check that the scanner's step writes it", "Path does not exist: %s", c.With["sarif_file"])
	}
	c.SetOutput("sarif-id", ids[0])
	return nil
}

// uploadReport stores one report and shows its findings.
func (c *Call) uploadReport(ctx context.Context, f match) (string, error) {
	data, err := readFile(f.tree.root, f.name, maxSARIF)
	if err != nil {
		return "", err
	}
	var report sarif
	if err := json.Unmarshal(data, &report); err != nil {
		return "", fmt.Errorf("it is not SARIF: %w", err)
	}
	shown, total := 0, 0
	tool := ""
	for _, run := range report.Runs {
		tool = run.Tool.Driver.Name
		levels := map[string]string{}
		for _, r := range run.Tool.Driver.Rules {
			levels[r.ID] = r.DefaultConfiguration.Level
		}
		for _, r := range run.Results {
			total++
			if shown++; shown > maxShownFinds {
				continue
			}
			a := command.Annotation{Level: level(r.Level, levels[r.RuleID]), Title: tool + ": " + r.RuleID, Message: r.Message.Text}
			if len(r.Locations) > 0 {
				a.File, a.Line = strings.TrimPrefix(r.Locations[0].PhysicalLocation.ArtifactLocation.URI, "file://"+c.Job.Workspace+"/"), r.Locations[0].PhysicalLocation.Region.StartLine
			}
			c.Annotate(a)
		}
	}
	c.Logf("%s: %d findings of %s", f.abs, total, tool)
	if total > maxShownFinds {
		c.Logf("Only the first %d are shown as annotations.", maxShownFinds)
	}
	if c.Job.Scans == nil {
		return "", nil
	}
	return c.Job.Scans.SaveScan(ctx, Scan{Tool: tool, Category: c.With["category"], Ref: orElse(c.With["ref"], c.Job.Ref), Commit: orElse(c.With["sha"], c.Job.Commit), SARIF: data})
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// level turns a level of SARIF into one of annotations. Without one it is
// the rule's, and a warning else.
func level(of, rule string) string {
	switch orElse(of, rule) {
	case "error":
		return "error"
	case "note", "none":
		return "notice"
	}
	return "warning"
}

// warn shows a warning at the step.
func (c *Call) warn(format string, args ...any) {
	c.Annotate(command.Annotation{Level: "warning", File: c.File, Line: c.Line, FromWorkflow: true, Message: fmt.Sprintf(format, args...)})
}

// scanner runs a scanner of the machine, or says that nothing was scanned.
func (c *Call) scanner(ctx context.Context, program string, args []string, env []string) error {
	if _, err := c.capture(ctx, c.Job.Workspace, "sh", "-c", `command -v "$1"`, "sh", program); err != nil {
		said := fmt.Sprintf("not scanned: this machine has no %s", program)
		c.warn("%s; nothing is known about vulnerabilities, and no report is written. Install %s to scan", said, program)
		if err := c.Job.Temp.MkdirAll(path.Dir(notScanned), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return c.Job.Temp.WriteFile(notScanned, []byte(said+"\n"), 0o644)
	}
	code, err := c.Job.Exec(ctx, c.Job.Workspace, c.withEnv(env...), append([]string{program}, args...), c.Out)
	if err != nil {
		return err
	}
	if code != 0 {
		return c.errorf("the findings are above", "%s ended with exit code %d", program, code)
	}
	return nil
}

func trivy() Action {
	return Action{
		Name: "aquasecurity/trivy-action",
		Inputs: map[string]string{"scan-type": "image", "image-ref": "", "input": "", "scan-ref": ".", "exit-code": "", "ignore-unfixed": "", "vuln-type": "", "severity": "",
			"format": "", "template": "", "output": "", "skip-dirs": "", "skip-files": "", "timeout": "", "ignore-policy": "", "hide-progress": "true", "list-all-pkgs": "",
			"scanners": "", "trivyignores": "", "trivy-config": "", "tf-vars": "", "limit-severities-for-sarif": "", "github-pat": "", "docker-host": ""},
		NoEffect: map[string]string{"cache": cacheKept, "cache-dir": cacheKept, "version": "the trivy of this machine is used", "skip-setup-trivy": "nothing is set up",
			"artifact-type": "use scan-type", "token-setup-trivy": "nothing is set up"},
		Run: func(ctx context.Context, c *Call) error {
			var env []string
			for input, variable := range map[string]string{"exit-code": "EXIT_CODE", "ignore-unfixed": "IGNORE_UNFIXED", "vuln-type": "PKG_TYPES", "severity": "SEVERITY", "format": "FORMAT",
				"template": "TEMPLATE", "output": "OUTPUT", "skip-dirs": "SKIP_DIRS", "skip-files": "SKIP_FILES", "timeout": "TIMEOUT", "ignore-policy": "IGNORE_POLICY", "list-all-pkgs": "LIST_ALL_PKGS",
				"scanners": "SCANNERS", "trivyignores": "IGNOREFILE", "trivy-config": "CONFIG", "tf-vars": "TF_VARS", "hide-progress": "NO_PROGRESS", "input": "INPUT"} {
				if v := c.With[input]; v != "" {
					env = append(env, "TRIVY_"+variable+"="+v)
				}
			}
			target := c.With["scan-ref"]
			if c.With["scan-type"] == "image" {
				target = c.With["image-ref"]
			}
			args := []string{c.With["scan-type"]}
			if c.With["input"] == "" {
				args = append(args, target)
			}
			return c.scanner(ctx, "trivy", args, env)
		},
	}
}

func checkov() Action {
	inputs := map[string]string{}
	flags := map[string]string{"directory": "-d", "file": "-f", "check": "-c", "skip_check": "--skip-check", "framework": "--framework", "skip_framework": "--skip-framework",
		"output_format": "-o", "output_file_path": "--output-file-path", "config_file": "--config-file", "baseline": "--baseline", "external_checks_dirs": "--external-checks-dir",
		"var_file": "--var-file", "skip_path": "--skip-path", "soft_fail_on": "--soft-fail-on", "hard_fail_on": "--hard-fail-on"}
	for name := range flags {
		inputs[name] = ""
	}
	for _, name := range []string{"quiet", "soft_fail", "compact", "download_external_modules"} {
		inputs[name] = ""
	}
	return Action{
		Name: "bridgecrewio/checkov-action", Inputs: inputs,
		NoEffect: map[string]string{"container_user": "there is no container", "log_level": "the scanner's own is used", "api-key": "nothing is sent", "github_pat": "nothing is downloaded"},
		Run: func(ctx context.Context, c *Call) error {
			var args []string
			for _, name := range sorted(flags) {
				if v := c.With[name]; v != "" {
					args = append(args, flags[name], v)
				}
			}
			for name, flag := range map[string]string{"quiet": "--quiet", "soft_fail": "--soft-fail", "compact": "--compact"} {
				on, err := c.flag(name)
				if err != nil {
					return err
				}
				if on {
					args = append(args, flag)
				}
			}
			if c.With["directory"] == "" && c.With["file"] == "" {
				args = append(args, "-d", ".")
			}
			return c.scanner(ctx, "checkov", args, nil)
		},
	}
}
