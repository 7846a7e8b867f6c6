package forge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/forge/secretscan"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

const (
	// maxScanned is up to which size a file is looked through for secrets, in bytes.
	maxScanned = 1 << 20
	// maxNamed bounds how many files of a kind a refusal names.
	maxNamed = 10
	// skipScan is the push option with which a pusher says that what looks like a secret is none.
	skipScan = "lockstep.allow-secrets"
)

// newBlob is a file's content that a proposal adds.
type newBlob struct {
	id   string
	size int64
}

// suspect is a blob with what is wrong with it.
type suspect struct {
	blob     newBlob
	findings []secretscan.Finding
}

// judgeContent holds the new files of a proposal against the limit of a file's
// size and the shapes of secrets.
func (f *Forge) judgeContent(ctx context.Context, p proposal, v *verdict) error {
	if !slices.ContainsFunc(p.commands, func(c refCommand) bool { return c.New != git.ZeroID }) {
		return nil
	}
	blobs, err := f.newBlobs(ctx, p)
	if err != nil || len(blobs) == 0 {
		return err
	}
	var large []suspect
	scan := make([]newBlob, 0, len(blobs))
	for _, b := range blobs {
		if b.size > f.cfg.MaxFileBytes {
			large = append(large, suspect{blob: b})
		}
		if b.size <= maxScanned {
			scan = append(scan, b)
		}
	}
	if len(large) > 0 {
		if err := f.refuseLarge(ctx, p, v, large); err != nil {
			return err
		}
	}
	if !p.repo.settings.PushProtection || slices.ContainsFunc(p.options, func(o string) bool {
		return o == skipScan || o == skipScan+"=true"
	}) {
		return nil
	}
	secrets, err := f.scanBlobs(ctx, p, scan)
	if err != nil || len(secrets) == 0 {
		return err
	}
	return f.refuseSecrets(ctx, p, v, secrets)
}

func (f *Forge) refuseLarge(ctx context.Context, p proposal, v *verdict, large []suspect) error {
	paths, err := f.pathsOf(ctx, p, large)
	if err != nil {
		return err
	}
	v.refusals = append(v.refusals, fmt.Sprintf("GH001: Large files detected: a file may have %s. Put them into Git LFS (git lfs track).", sizeText(f.cfg.MaxFileBytes)))
	for _, s := range large[:min(len(large), maxNamed)] {
		v.refusals = append(v.refusals, fmt.Sprintf("File %s has %.2f MiB.", paths[s.blob.id], float64(s.blob.size)/(1<<20)))
	}
	return nil
}

func (f *Forge) refuseSecrets(ctx context.Context, p proposal, v *verdict, secrets []suspect) error {
	paths, err := f.pathsOf(ctx, p, secrets)
	if err != nil {
		return err
	}
	v.refusals = append(v.refusals, "GH013: Repository rule violations found: the push holds secrets.")
	n := 0
	for _, s := range secrets {
		for _, found := range s.findings {
			if n++; n <= maxNamed {
				v.refusals = append(v.refusals, fmt.Sprintf("  %s:%d: %s", paths[s.blob.id], found.Line, found.Kind))
			}
		}
	}
	if n > maxNamed {
		v.refusals = append(v.refusals, fmt.Sprintf("  … and %d more", n-maxNamed))
	}
	v.refusals = append(v.refusals,
		"Take them out of every new commit (git commit --amend, git rebase -i) and revoke them.",
		"If they are none: git push -o "+skipScan+"; or turn off secret_scanning_push_protection of the repository.")
	return nil
}

// newBlobs lists the files' contents that a proposal adds.
func (f *Forge) newBlobs(ctx context.Context, p proposal) ([]newBlob, error) {
	if p.quarantine == "" {
		return f.newBlobsByRefs(ctx, p)
	}
	// What is in the quarantine and nowhere else.
	env := []string{"GIT_OBJECT_DIRECTORY=" + p.quarantine}
	var blobs []newBlob
	err := f.readGit(ctx, p.repo, env, nil, func(out *bufio.Reader) error {
		var err error
		blobs, err = parseBlobList(out)
		return err
	}, "cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectname) %(objecttype) %(objectsize)")
	return blobs, err
}

// newBlobsByRefs finds the blobs of a proposal whose objects are in the repository already.
func (f *Forge) newBlobsByRefs(ctx context.Context, p proposal) ([]newBlob, error) {
	args := []string{"rev-list", "--objects", "--no-object-names", "--filter=object:type=blob", "--filter-provided-objects"}
	for _, c := range p.commands {
		if c.New != git.ZeroID {
			args = append(args, c.New)
		}
	}
	out, err := f.gitIn(ctx, p.repo, nil, nil, append(args, "--not", "--branches", "--tags", "--")...)
	if err != nil || len(out) == 0 {
		return nil, err
	}
	var blobs []newBlob
	err = f.readGit(ctx, p.repo, nil, out, func(r *bufio.Reader) error {
		var err error
		blobs, err = parseBlobList(r)
		return err
	}, "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)")
	return blobs, err
}

func parseBlobList(r *bufio.Reader) ([]newBlob, error) {
	var blobs []newBlob
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 3 || f[1] != "blob" {
			continue
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("git cat-file: unexpected answer %q", lines.Text())
		}
		blobs = append(blobs, newBlob{f[0], size})
	}
	return blobs, lines.Err()
}

// scanBlobs returns the blobs that hold secrets.
func (f *Forge) scanBlobs(ctx context.Context, p proposal, blobs []newBlob) ([]suspect, error) {
	if len(blobs) == 0 {
		return nil, nil
	}
	var ids bytes.Buffer
	for _, b := range blobs {
		ids.WriteString(b.id + "\n")
	}
	var env []string
	if p.quarantine != "" {
		env = []string{"GIT_OBJECT_DIRECTORY=" + p.quarantine}
	}
	var suspects []suspect
	err := f.readGit(ctx, p.repo, env, ids.Bytes(), func(out *bufio.Reader) error {
		var data []byte
		for _, b := range blobs {
			if _, err := out.ReadSlice('\n'); err != nil {
				return fmt.Errorf("git cat-file: %w", err)
			}
			data = slices.Grow(data[:0], int(b.size)+1)[:b.size+1]
			if _, err := io.ReadFull(out, data); err != nil {
				return fmt.Errorf("git cat-file: %w", err)
			}
			if found := secretscan.Scan(data[:b.size]); len(found) > 0 && len(suspects) < 1000 {
				suspects = append(suspects, suspect{b, found})
			}
		}
		return nil
	}, "cat-file", "--batch", "--buffer")
	return suspects, err
}

// pathsOf finds a path of each blob in the commits that are proposed.
func (f *Forge) pathsOf(ctx context.Context, p proposal, suspects []suspect) (map[string]string, error) {
	paths := map[string]string{}
	for _, s := range suspects {
		paths[s.blob.id] = cut(s.blob.id, 12)
	}
	args := []string{"rev-list", "--objects", "--in-commit-order"}
	for _, c := range p.commands {
		if c.New != git.ZeroID {
			args = append(args, c.New)
		}
	}
	var env []string
	if p.quarantine != "" {
		env = []string{"GIT_OBJECT_DIRECTORY=" + p.quarantine, "GIT_ALTERNATE_OBJECT_DIRECTORIES=" + p.repo.git.Dir() + "/objects"}
	}
	err := f.readGit(ctx, p.repo, env, nil, func(out *bufio.Reader) error {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 64<<10)
		for lines.Scan() {
			if id, name, ok := strings.Cut(lines.Text(), " "); ok && paths[id] != "" {
				paths[id] = name
			}
		}
		return lines.Err()
	}, append(args, "--not", "--branches", "--tags", "--")...)
	return paths, err
}

// maxGitOutput bounds what gitIn keeps of git's output, in bytes.
const maxGitOutput = 64 << 20

// gitIn runs git in a repository, with what is written as durable as a push, and
// returns its output. The error carries what git says.
func (f *Forge) gitIn(ctx context.Context, repo *repository, env []string, stdin []byte, args ...string) ([]byte, error) {
	var data []byte
	err := f.readGit(ctx, repo, env, stdin, func(out *bufio.Reader) error {
		var err error
		if data, err = io.ReadAll(io.LimitReader(out, maxGitOutput+1)); err == nil && len(data) > maxGitOutput {
			err = errOutput
		}
		return err
	}, args...)
	return data, err
}

// readGit runs git and lets read have its output while it runs.
func (f *Forge) readGit(ctx context.Context, repo *repository, env []string, stdin []byte, read func(*bufio.Reader) error, args ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := gitCommand(ctx, repo.git.Dir(), args...)
	cmd.Env = append(cmd.Env, env...)
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var stderr head
	cmd.Stderr = &stderr
	return pipeFrom(cmd, &stderr, args[0], func(out io.Reader) error {
		err := read(bufio.NewReaderSize(out, 64<<10))
		if err != nil {
			cancel() // git must not wait for a reader that is gone
		}
		return err
	})
}

// pipeFrom runs cmd and gives read its output.
func pipeFrom(cmd *exec.Cmd, stderr *head, name string, read func(io.Reader) error) error {
	out, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("git %s: %w", name, err)
	}
	cmd.Stdout = in
	ended := make(chan error, 1)
	go func() { ended <- runInto(cmd, in) }()
	readErr := read(out)
	_ = out.Close()
	err = <-ended
	if readErr != nil {
		return readErr
	}
	if err != nil {
		return fmt.Errorf("git %s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// runInto is run for a cmd that writes into a pipe, of which it closes this process's end.
func runInto(cmd *exec.Cmd, in *os.File) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	_ = in.Close()
	if err != nil {
		return err
	}
	return cmd.Wait()
}
