package forge

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// preReceive is the hook that git runs when the objects of a push are unpacked
// into a quarantine and no ref has moved. It only tells this process where the
// quarantine is (file 3) and shows what it answers (file 4): a verdict in the
// first line, then text for the pusher. When this process dies, the push is refused.
const preReceive = `#!/bin/sh
printf '%s\n' "${GIT_QUARANTINE_PATH:--}" >&3 || exit 1
exec 3>&-
IFS= read -r verdict <&4 || exit 1
while IFS= read -r line <&4; do printf '%s\n' "$line" >&2; done
[ "$verdict" = accept ]
`

// reviewTimeout bounds what Deps.Review may take for a push.
const reviewTimeout = 60 * time.Second

// Proposed is a ref that is about to move, for Deps.Review.
type Proposed struct {
	Repo   string // "owner/name"
	Ref    string // full name
	Before string // object that it names now; 40 zeros for a new ref
	After  string // object that it will name
	// GitDir is a bare repository without refs that has all objects of Repo
	// and those that are proposed. It is there until Review returns.
	GitDir string
}

func (f *Forge) hooks() string { return filepath.Join(f.cfg.Dir, "hooks") }

// writeHooks puts the hook where git finds it.
func (f *Forge) writeHooks() error {
	if err := os.MkdirAll(f.hooks(), 0o700); err != nil {
		return fmt.Errorf("forge: %w", err)
	}
	name := filepath.Join(f.hooks(), "pre-receive")
	if data, err := os.ReadFile(name); err == nil && string(data) == preReceive {
		return nil
	}
	// A rename, so that no file that git executes is open for writing here.
	if err := os.WriteFile(name+".new", []byte(preReceive), 0o700); err != nil { //nolint:gosec // a program
		return fmt.Errorf("forge: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("forge: %w", err)
	}
	return nil
}

// hookLine connects a git process with this one for the time of a push.
type hookLine struct {
	ask, answer           *os.File // our ends
	childAsk, childAnswer *os.File // the ends that git and its hook get
}

func newHookLine() (*hookLine, error) {
	l := &hookLine{}
	var err error
	if l.ask, l.childAsk, err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("pipe to a hook: %w", err)
	}
	if l.childAnswer, l.answer, err = os.Pipe(); err != nil {
		l.close()
		return nil, fmt.Errorf("pipe to a hook: %w", err)
	}
	return l, nil
}

func (l *hookLine) close() {
	for _, file := range []*os.File{l.ask, l.childAsk, l.answer, l.childAnswer} {
		if file != nil {
			_ = file.Close()
		}
	}
}

// attach gives git the files 3 and 4.
func (l *hookLine) attach(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{l.childAsk, l.childAnswer} }

// serve waits for the hook, and answers it with what decide says of the quarantine's
// directory ("" when the push has no objects). It returns when the hook has its answer, or
// when all files of the other end are closed.
func (l *hookLine) serve(decide func(quarantine string) verdict) {
	line, err := bufio.NewReaderSize(io.LimitReader(l.ask, 8192), 512).ReadString('\n')
	if err != nil {
		return // git ended before it came to its hook
	}
	dir := strings.TrimSuffix(line, "\n")
	if dir == "-" {
		dir = ""
	}
	v := decide(dir)
	out := bufio.NewWriter(l.answer)
	if v.refused() {
		_, _ = out.WriteString("refuse\n")
	} else {
		_, _ = out.WriteString("accept\n")
	}
	_, _ = out.WriteString(v.text())
	_ = out.Flush()
	_ = l.answer.Close()
}

// viewOf makes a repository that has the objects of repo and those of a quarantine
// (""= none), and no refs. The caller removes its directory.
func (f *Forge) viewOf(repo *repository, quarantine string) (dir string, err error) {
	dir, err = os.MkdirTemp(f.tmp(), "view-")
	if err != nil {
		return "", err
	}
	alternates := filepath.Join(repo.git.Dir(), "objects") + "\n"
	if quarantine != "" {
		alternates += quarantine + "\n"
	}
	for _, step := range []error{
		os.MkdirAll(filepath.Join(dir, "objects", "info"), 0o700), os.MkdirAll(filepath.Join(dir, "refs"), 0o700),
		os.WriteFile(filepath.Join(dir, "HEAD"), []byte("ref: refs/heads/main\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "config"), []byte("[core]\n\trepositoryformatversion = 0\n\tbare = true\n"), 0o600),
	} {
		if step != nil {
			return dir, step
		}
	}
	return dir, os.WriteFile(filepath.Join(dir, "objects", "info", "alternates"), []byte(alternates), 0o600)
}

// review asks Deps.Review about the branches that move, if the repository wants it.
func (f *Forge) review(ctx context.Context, p proposal) ([]string, error) {
	if f.deps.Review == nil || !p.repo.settings.Review {
		return nil, nil
	}
	dir, err := f.viewOf(p.repo, p.quarantine)
	defer func() { _ = os.RemoveAll(dir) }()
	if err != nil {
		return nil, fmt.Errorf("review: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, min(reviewTimeout, f.cfg.PushTimeout))
	defer cancel()
	var refusals []string
	for _, c := range p.commands {
		if c.New == git.ZeroID || !strings.HasPrefix(c.Ref, "refs/heads/") {
			continue
		}
		found, err := f.askReview(ctx, Proposed{Repo: p.repo.full(), Ref: c.Ref, Before: c.Old, After: c.New, GitDir: dir})
		if err != nil {
			return nil, err
		}
		refusals = append(refusals, found...)
	}
	return refusals, nil
}

// askReview calls Deps.Review and doesn't wait longer for it than ctx says, whatever it does.
func (f *Forge) askReview(ctx context.Context, p Proposed) ([]string, error) {
	type answer struct {
		refusals []string
		err      error
	}
	answered := make(chan answer, 1)
	go func() {
		refusals, err := f.deps.Review(ctx, p)
		answered <- answer{refusals, err}
	}()
	select {
	case a := <-answered:
		return a.refusals, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the review of %s took too long: %w", p.Ref, ctx.Err())
	}
}
