package action

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	boxed "github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

var fullCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)

// importAction brings one action to the forge.
func importAction(ctx context.Context, f forge, name, from string) (Imported, []string, error) {
	repo, rev, err := parseName(name)
	if err != nil {
		return Imported{}, nil, err
	}
	src, err := parseSource(from, repo)
	if err != nil {
		return Imported{}, nil, err
	}
	dir, err := os.MkdirTemp("", "lockstep-action-")
	if err != nil {
		return Imported{}, nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := newStage(ctx, f, filepath.Join(dir, "repository"))
	if err != nil {
		return Imported{}, nil, err
	}
	defer s.repo.Close()
	if src.git != "" {
		err = s.fetch(ctx, src.git, rev)
	} else {
		err = s.commit(ctx, src, dir, repo, rev)
	}
	if err != nil {
		return Imported{}, nil, explainFetch(repo, src, err)
	}
	return s.publish(ctx, repo, rev)
}

// parseName reads OWNER/REPOSITORY[@VERSION].
func parseName(name string) (repo, rev string, err error) {
	full := name
	if !strings.Contains(name, "@") {
		full += "@none"
	}
	ref, err := boxed.Parse(full)
	if err != nil || ref.Kind != boxed.Repository {
		return "", "", &output.Error{What: fmt.Sprintf("%q is no name of an action", name), Try: "lockstep action import OWNER/REPOSITORY@VERSION", Err: err}
	}
	if ref.Path != "" {
		return "", "", &output.Error{What: fmt.Sprintf("%q names a folder of a repository", name), Why: "whole repositories are imported",
			Try: "lockstep action import " + strings.TrimSuffix(ref.Repo+strings.TrimPrefix(name, ref.Name()), "@none")}
	}
	if strings.Contains(name, "@") {
		rev = ref.Rev
	}
	return ref.Repo, rev, nil
}

func explainFetch(repo string, src source, err error) error {
	var known *output.Error
	if errors.As(err, &known) || src.git == "" {
		return err
	}
	return &output.Error{What: fmt.Sprintf("%s cannot be fetched from %s", repo, src.git), Why: err.Error(),
		Try: "the spelling, the network, or --from DIR|FILE.tar.gz|URL", Err: err}
}

// stage is a repository between the source and the forge.
type stage struct {
	forge forge
	repo  *git.Repository
	refs  []string // full names to push
}

func newStage(ctx context.Context, f forge, dir string) (*stage, error) {
	repo, err := git.Init(ctx, dir, "main")
	if err != nil {
		return nil, err
	}
	return &stage{forge: f, repo: repo}, nil
}

// fetch takes a version, or all tags and branches, from a Git repository.
func (s *stage) fetch(ctx context.Context, from, rev string) error {
	env := s.forge.outside()
	switch {
	case rev == "":
		_, err := s.forge.git(ctx, s.repo.Dir(), env, "fetch", "--quiet", "--", from, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
		if err != nil {
			return err
		}
	case fullCommit.MatchString(rev):
		ref := "refs/heads/commit-" + rev[:12]
		if _, err := s.forge.git(ctx, s.repo.Dir(), env, "fetch", "--quiet", "--no-tags", "--", from, "+"+rev+":"+ref); err != nil {
			return err
		}
	default:
		_, tagErr := s.forge.git(ctx, s.repo.Dir(), env, "fetch", "--quiet", "--no-tags", "--", from, "+refs/tags/"+rev+":refs/tags/"+rev)
		if tagErr == nil {
			break
		}
		if _, err := s.forge.git(ctx, s.repo.Dir(), env, "fetch", "--quiet", "--no-tags", "--", from, "+refs/heads/"+rev+":refs/heads/"+rev); err != nil {
			return err
		}
	}
	refs, err := s.repo.Refs(ctx, "refs/tags/", "refs/heads/")
	for ref := range refs {
		s.refs = append(s.refs, ref)
	}
	slices.Sort(s.refs)
	return err
}

// commit makes one commit of files without Git: the tag rev and the branch
// main, on top of what main has on the forge already.
func (s *stage) commit(ctx context.Context, src source, dir, repo, rev string) error {
	tree, err := src.content(ctx, s.forge.http, dir)
	if err != nil {
		return err
	}
	parent := ""
	if _, err := s.forge.git(ctx, s.repo.Dir(), s.forge.inside(), "fetch", "--quiet", "--no-tags", "--", s.forge.url(repo), "+refs/heads/main:refs/lockstep/main"); err == nil {
		if parent, err = s.repo.Resolve(ctx, "refs/lockstep/main^{commit}"); err != nil {
			return err
		}
	}
	who := []string{"GIT_AUTHOR_NAME=Lockstep", "GIT_AUTHOR_EMAIL=lockstep@example.com", "GIT_COMMITTER_NAME=Lockstep", "GIT_COMMITTER_EMAIL=lockstep@example.com"}
	if _, err := s.forge.git(ctx, s.repo.Dir(), who, "--git-dir", s.repo.Dir(), "--work-tree", tree, "add", "--all", "--force", "--", "."); err != nil {
		return err
	}
	id, err := s.repo.Run(ctx, "write-tree")
	if err != nil {
		return err
	}
	args := []string{"commit-tree", strings.TrimSpace(string(id)), "-m", "Import " + strings.TrimSuffix(repo+"@"+rev, "@") + " [skip ci]"}
	if parent != "" {
		args = append(args, "-p", parent)
	}
	out, err := s.forge.git(ctx, s.repo.Dir(), who, args...)
	if err != nil {
		return err
	}
	s.refs = []string{"refs/heads/main"}
	if rev != "" && rev != "main" {
		s.refs = append(s.refs, "refs/tags/"+rev)
	}
	for _, ref := range s.refs {
		if _, err := s.repo.Run(ctx, "update-ref", ref, strings.TrimSpace(out)); err != nil {
			return err
		}
	}
	return nil
}

// publish checks what was staged and pushes it.
func (s *stage) publish(ctx context.Context, repo, rev string) (Imported, []string, error) {
	if len(s.refs) == 0 {
		return Imported{}, nil, &output.Error{What: "the source is empty", Why: "it has no tag and no branch"}
	}
	done := Imported{Name: repo}
	shown := s.refs[0]
	for _, ref := range s.refs {
		if short := strings.TrimPrefix(strings.TrimPrefix(ref, "refs/tags/"), "refs/heads/"); short == rev || rev == "" && (short == "main" || short == "master") {
			shown = ref
		}
		done.Refs = append(done.Refs, strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/"))
	}
	if fullCommit.MatchString(rev) {
		done.Refs = []string{rev}
	}
	var err error
	if done.Commit, err = s.repo.Resolve(ctx, shown+"^{commit}"); err != nil {
		return Imported{}, nil, err
	}
	var warnings []string
	if done.Paths, warnings, err = s.look(ctx, done.Commit); err != nil {
		return Imported{}, warnings, err
	}
	note, err := s.forge.ensureRepository(ctx, repo)
	if err != nil {
		return Imported{}, warnings, err
	}
	if note != "" {
		warnings = append(warnings, note)
	}
	args := []string{"push", "--quiet", "--", s.forge.url(repo)}
	for _, ref := range s.refs {
		force := ""
		if strings.HasPrefix(ref, "refs/tags/") {
			force = "+" // versions of actions move
		}
		args = append(args, force+ref+":"+ref)
	}
	if _, err := s.forge.git(ctx, s.repo.Dir(), s.forge.inside(), args...); err != nil {
		return Imported{}, warnings, &output.Error{What: fmt.Sprintf("%s cannot be pushed to the forge", repo), Why: err.Error(),
			Try: "if the forge has another repository of this name, rename or delete it there", Err: err}
	}
	return done, warnings, nil
}

// look finds the actions of a commit and reads them.
func (s *stage) look(ctx context.Context, commit string) (paths, warnings []string, err error) {
	out, err := s.repo.Run(ctx, "ls-tree", "-r", "-z", "--name-only", commit)
	if err != nil {
		return nil, nil, err
	}
	callable := false
	for name := range strings.SplitSeq(string(out), "\x00") {
		callable = callable || strings.HasPrefix(name, ".github/workflows/")
		if !slices.Contains(boxed.FileNames, path.Base(name)) || strings.Contains(name, "node_modules/") || strings.Contains(name, "test") {
			if name == "Dockerfile" && len(paths) == 0 {
				paths = append(paths, ".")
			}
			continue
		}
		if !slices.Contains(paths, path.Dir(name)) {
			paths = append(paths, path.Dir(name))
		}
		content, err := s.repo.ReadFile(ctx, commit, name)
		if err != nil {
			return nil, warnings, err
		}
		_, diagnostics := boxed.Load(name, content)
		for _, d := range diagnostics {
			warnings = append(warnings, d.String())
		}
	}
	if len(paths) == 0 && !callable {
		return nil, warnings, &output.Error{What: "there is no action in it", Why: "no folder has an action.yml, an action.yaml or a Dockerfile",
			Try: "the folder that holds action.yml"}
	}
	return paths, warnings, nil
}
