package execute

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
)

// Bounds of what a step may hand over in files, in bytes.
const (
	maxCommandFile = 16 << 20
	maxSummary     = 1 << 20
)

// fileCommands are the environment files of one step, by variable.
type fileCommands struct {
	names map[string]string // variable to file name within temp
}

var fileVariables = map[string]string{
	"GITHUB_OUTPUT": "set_output_", "GITHUB_ENV": "set_env_", "GITHUB_PATH": "add_path_",
	"GITHUB_STEP_SUMMARY": "step_summary_", "GITHUB_STATE": "save_state_",
}

// newFileCommands creates empty files for a step.
func (j *job) newFileCommands() (fileCommands, error) {
	f := fileCommands{names: map[string]string{}}
	for variable, prefix := range fileVariables {
		name := "_runner_file_commands/" + prefix + rand.Text()
		if err := j.temp.WriteFile(name, nil, 0o644); err != nil {
			return f, fmt.Errorf("make the file of %s: %w", variable, err)
		}
		f.names[variable] = name
	}
	return f, nil
}

// env is where the step finds its files.
func (f fileCommands) env() map[string]string {
	out := map[string]string{}
	for variable, name := range f.names {
		out[variable] = path.Join(tempDir, name)
	}
	return out
}

// readTemp reads a file that the step wrote. It may have replaced it by
// anything, so only a regular file within temp is read.
func readTemp(root *os.Root, name string, limit int64) (string, error) {
	fi, err := root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no file any more", name)
	}
	if fi.Size() > limit {
		return "", fmt.Errorf("the step wrote %d bytes; at most %d are read", fi.Size(), limit)
	}
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	return string(data), errors.Join(err, f.Close())
}

// takeFiles acts on what a step wrote into its files. outputs and state may
// be nil.
func (j *job) takeFiles(f fileCommands, outputs *expr.Object, state map[string]string) error {
	var errs []error
	each := func(variable string, limit int64, act func(content string) error) {
		content, err := readTemp(j.temp, f.names[variable], limit)
		if err == nil && content != "" {
			err = act(content)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", variable, err))
		}
		_ = j.temp.Remove(f.names[variable])
	}
	pairs := func(act func(name, value string) error) func(string) error {
		return func(content string) error {
			list, err := command.ParseFile(content)
			if err != nil {
				return err
			}
			for _, p := range list {
				if err := act(p.Name, p.Value); err != nil {
					return err
				}
			}
			return nil
		}
	}
	each("GITHUB_ENV", maxCommandFile, pairs(j.setEnv))
	each("GITHUB_PATH", maxCommandFile, func(content string) error {
		for _, dir := range command.ParsePath(content) {
			j.addPath(dir)
		}
		return nil
	})
	each("GITHUB_OUTPUT", maxCommandFile, pairs(func(name, value string) error {
		if outputs != nil {
			outputs.Set(name, value)
		}
		return nil
	}))
	each("GITHUB_STATE", maxCommandFile, pairs(func(name, value string) error {
		if state != nil {
			state[name] = value
		}
		return nil
	}))
	each("GITHUB_STEP_SUMMARY", maxCommandFile, func(content string) error {
		if len(content) > maxSummary {
			message := fmt.Sprintf("$GITHUB_STEP_SUMMARY upload aborted, supports content up to a size of %dk, got %dk.", maxSummary>>10, len(content)>>10)
			j.log("##[error]" + message)
			j.annotate(command.Annotation{Level: "error", Message: message})
			return nil
		}
		j.report.Summary(j.number, j.masker.Text(strings.ToValidUTF8(content, "\ufffd")))
		return nil
	})
	return errors.Join(errs...)
}

// setEnv is one variable of GITHUB_ENV. The runner's own variables may be
// written, and are overwritten again for each step, as on GitHub.
func (j *job) setEnv(name, value string) error {
	if strings.EqualFold(name, "NODE_OPTIONS") {
		message := "Can't store " + name + " output parameter using '$GITHUB_ENV' command."
		j.log("##[error]" + message)
		j.annotate(command.Annotation{Level: "error", Message: message})
		return nil
	}
	if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
		return fmt.Errorf("%q cannot be a variable", name)
	}
	j.env.Set(name, value)
	return nil
}

func (j *job) addPath(dir string) {
	j.paths = slices.Insert(slices.DeleteFunc(j.paths, func(d string) bool { return d == dir }), 0, dir)
}

// hashFiles is the function of expressions: a SHA-256 over the SHA-256 of each
// matching file of the workspace, in order; "" when none matches.
func (j *job) hashFiles(patterns []string) (string, error) {
	if j.files == nil {
		return "", nil
	}
	var lines []string
	for _, p := range patterns {
		for line := range strings.Lines(p) {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, strings.TrimPrefix(strings.TrimPrefix(line, j.workspace()+"/"), "./"))
			}
		}
	}
	var files []string
	err := fs.WalkDir(j.files.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		matched := false
		for _, p := range lines {
			pattern, negated := strings.CutPrefix(p, "!")
			ok, err := doublestar.Match(pattern, name)
			if err != nil {
				return fmt.Errorf("pattern %q: %w", p, err)
			}
			if ok {
				matched = !negated
			}
		}
		if matched {
			files = append(files, name)
		}
		return nil
	})
	if err != nil || len(files) == 0 {
		return "", err
	}
	slices.Sort(files)
	total := sha256.New()
	for _, name := range files {
		sum, err := hashFile(j.files, name)
		if err != nil {
			return "", err
		}
		_, _ = total.Write(sum)
	}
	return hex.EncodeToString(total.Sum(nil)), nil
}

func hashFile(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}
