package storefront

import (
	"archive/tar"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed all:template
var template embed.FS

// workcopy is the user's clone of the example.
type workcopy struct {
	dir    string
	helper string // shell command of the credential helper
}

// create fills dir with the example's files and makes it a Git repository
// whose origin is the forge. It refuses a folder that holds anything else, and
// leaves a clone that an earlier run made as it is.
func (w workcopy) create(ctx context.Context, remote string, replace map[string]string) error {
	entries, err := os.ReadDir(w.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("prepare the working copy: %w", err)
	}
	if len(entries) > 0 {
		origin, err := w.git(ctx, "remote", "get-url", "origin")
		if err != nil || !sameRepository(origin, remote) {
			return fmt.Errorf("%s holds something else; name another folder with --example-dir", w.dir)
		}
		return w.connect(ctx, remote)
	}
	if err := w.extract(replace); err != nil {
		return err
	}
	if _, err := w.git(ctx, "init", "--quiet", "--initial-branch", "main"); err != nil {
		return err
	}
	if _, err := w.git(ctx, "remote", "add", "origin", remote); err != nil {
		return err
	}
	if err := w.connect(ctx, remote); err != nil {
		return err
	}
	if _, err := w.git(ctx, "add", "--all"); err != nil {
		return err
	}
	_, err = w.git(ctx, w.identity("commit", "--quiet", "--message", "Open the storefront")...)
	return err
}

// sameRepository compares two clone URLs by their paths: the port of the front
// door may have changed.
func sameRepository(a, b string) bool {
	tail := func(u string) string {
		_, rest, _ := strings.Cut(strings.TrimSpace(u), "://")
		_, path, _ := strings.Cut(rest, "/")
		return strings.TrimSuffix(path, ".git")
	}
	return tail(a) != "" && tail(a) == tail(b)
}

// connect points origin at the forge and lets git ask Lockstep for the
// password, in this working copy only.
func (w workcopy) connect(ctx context.Context, remote string) error {
	if _, err := w.git(ctx, "remote", "set-url", "origin", remote); err != nil {
		return err
	}
	base := remote[:strings.Index(remote, "/contoso/")]
	if _, err := w.git(ctx, "config", "credential."+base+".helper", "!"+w.helper); err != nil {
		return err
	}
	// A proxy of the shell must not be asked for a name of this machine.
	if _, err := w.git(ctx, "config", "http."+base+".proxy", ""); err != nil {
		return err
	}
	for key, value := range map[string]string{"push.default": "current", "branch.main.remote": "origin", "branch.main.merge": "refs/heads/main", "pull.rebase": "true"} {
		if _, err := w.git(ctx, "config", key, value); err != nil {
			return err
		}
	}
	return nil
}

// identity prefixes a committing command with an author, where the user has
// not told git who they are.
func (w workcopy) identity(args ...string) []string {
	if out, err := exec.Command("git", "-C", w.dir, "config", "user.email").Output(); err == nil && len(bytes.TrimSpace(out)) > 0 {
		return args
	}
	return append([]string{"-c", "user.name=Storefront", "-c", "user.email=storefront@example.com"}, args...)
}

// extract writes the example's files, with the placeholders in its manifests
// replaced, as its README asks of a reader.
func (w workcopy) extract(replace map[string]string) error {
	archive, err := template.ReadFile("template/storefront.tar")
	if err != nil {
		return errors.New("this lockstep was built without its example; build it with `make`")
	}
	pairs := make([]string, 0, 2*len(replace))
	for from, to := range replace {
		pairs = append(pairs, from, to)
	}
	replacer := strings.NewReplacer(pairs...)
	files := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack the example: %w", err)
		}
		if header.Typeflag != tar.TypeReg || !filepath.IsLocal(header.Name) {
			continue
		}
		content, err := io.ReadAll(files)
		if err != nil {
			return fmt.Errorf("unpack the example: %w", err)
		}
		path := filepath.Join(w.dir, header.Name)
		if strings.HasPrefix(filepath.Clean(header.Name), "deploy/") {
			content = []byte(replacer.Replace(string(content)))
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("unpack the example: %w", err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("unpack the example: %w", err)
		}
	}
}

// head is the commit of the working copy.
func (w workcopy) head(ctx context.Context) (string, error) {
	return w.git(ctx, "rev-parse", "HEAD")
}

// push sends main to the forge and reports whether anything was new there.
func (w workcopy) push(ctx context.Context) (bool, error) {
	if _, err := w.git(ctx, "fetch", "--quiet", "origin"); err != nil {
		return false, err
	}
	ahead, err := w.git(ctx, "rev-list", "--count", "HEAD", "--not", "--remotes=origin")
	if err != nil || ahead == "0" {
		return false, err
	}
	_, err = w.git(ctx, "push", "--quiet", "--set-upstream", "origin", "main")
	return err == nil, err
}

// pull brings the working copy up to date, without touching what the user has
// changed since.
func (w workcopy) pull(ctx context.Context) error {
	_, err := w.git(ctx, "pull", "--quiet", "--ff-only")
	return err
}

func (w workcopy) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", w.dir}, args...)...)
	// The ceiling: a repository around the folder is none of our business.
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CEILING_DIRECTORIES="+filepath.Dir(w.dir))
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
