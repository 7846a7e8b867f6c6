package application

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Sources finds and reads what Applications name as their source.
type Sources interface {
	// Resolve returns what a source names now.
	Resolve(ctx context.Context, project string, src v1alpha1.ApplicationSource) (Revision, error)
	// Tree returns the files of a source at a revision.
	Tree(ctx context.Context, project string, src v1alpha1.ApplicationSource, r Revision) (*source.Tree, error)
	// Remote fetches what renders name outside their trees; nil when nothing
	// can be fetched.
	Remote(project string) render.Remote
	// Follow says which sources an application uses from now on, so that it is
	// told when they move; none ends it.
	Follow(ctx context.Context, key, project string, list ...v1alpha1.ApplicationSource)
}

// Revision is what a source names at a moment.
type Revision struct {
	Repo string // by which moves tell of it, "owner/name" on the forge
	ID   string // commit, version of a chart, digest of an artifact
	Head string // of a Git repository: the branch of HEAD, "refs/heads/main"
	// Git is the repository; nil for charts and artifacts.
	Git   *git.Repository
	Local bool // the repository is of this machine
	Chart bool // or an artifact: the revision is no commit
}

// Repositories finds the repository of a repoURL.
type Repositories interface {
	// Open returns the repository and its name, "owner/name", as push events
	// have it.
	Open(ctx context.Context, repoURL string) (repo *git.Repository, name string, err error)
}

// Local returns sources of repositories on this machine: no charts, nothing
// remote.
func Local(r Repositories) Sources { return local{r} }

type local struct{ Repositories }

func (l local) Resolve(ctx context.Context, _ string, src v1alpha1.ApplicationSource) (Revision, error) {
	if src.Chart != "" || strings.HasPrefix(src.RepoURL, "oci://") {
		return Revision{}, fmt.Errorf("%s: charts and artifacts of other places are not fetched here", src.RepoURL)
	}
	repo, name, err := l.Open(ctx, src.RepoURL)
	if err != nil {
		return Revision{}, fmt.Errorf("repoURL %s: %w", src.RepoURL, err)
	}
	r := Revision{Repo: name, Git: repo}
	if src.TargetRevision == "" || src.TargetRevision == "HEAD" {
		if out, err := repo.Run(ctx, "symbolic-ref", "HEAD"); err == nil {
			r.Head = strings.TrimSpace(string(out))
		}
	}
	if r.ID, err = source.Resolve(ctx, repo, src.TargetRevision); err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func (l local) Tree(_ context.Context, _ string, _ v1alpha1.ApplicationSource, r Revision) (*source.Tree, error) {
	if r.Git == nil {
		return nil, errors.New("the repository is not open")
	}
	return source.NewTree(r.Git, r.ID), nil
}

func (l local) Remote(string) render.Remote { return nil }

// Follow does nothing: pushes are in the journal.
func (l local) Follow(context.Context, string, string, ...v1alpha1.ApplicationSource) {}
