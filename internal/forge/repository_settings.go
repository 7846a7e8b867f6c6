package forge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// settings are what the owner of a repository chooses. They are stored as JSON;
// what is not stored is as in defaultSettings.
type settings struct {
	Homepage            string   `json:"homepage,omitempty"`
	Topics              []string `json:"topics,omitempty"`
	Archived            bool     `json:"archived,omitempty"`
	AllowMergeCommit    bool     `json:"allow_merge_commit"`
	AllowSquashMerge    bool     `json:"allow_squash_merge"`
	AllowRebaseMerge    bool     `json:"allow_rebase_merge"`
	AllowAutoMerge      bool     `json:"allow_auto_merge,omitempty"`
	AllowUpdateBranch   bool     `json:"allow_update_branch,omitempty"`
	DeleteBranchOnMerge bool     `json:"delete_branch_on_merge,omitempty"`
	// PushProtection refuses pushes that hold secrets.
	PushProtection bool `json:"push_protection"`
	// Review asks Deps.Review before a ref moves.
	Review bool `json:"review,omitempty"`
}

func defaultSettings() settings {
	return settings{AllowMergeCommit: true, AllowSquashMerge: true, AllowRebaseMerge: true, PushProtection: true}
}

func (f *Forge) describeSettings(j *repositoryJSON, repo *repository, base string) {
	s := repo.settings
	j.Homepage, j.Topics, j.Archived, j.Fork = s.Homepage, append([]string{}, s.Topics...), s.Archived, repo.parent != 0
	j.AllowMergeCommit, j.AllowSquashMerge, j.AllowRebaseMerge = s.AllowMergeCommit, s.AllowSquashMerge, s.AllowRebaseMerge
	j.AllowAutoMerge, j.AllowUpdateBranch, j.DeleteBranchOnMerge = s.AllowAutoMerge, s.AllowUpdateBranch, s.DeleteBranchOnMerge
	j.HasIssues, j.AllowForking = true, true
	j.GitURL, j.SSHURL = j.CloneURL, j.CloneURL
	j.HooksURL, j.ReleasesURL, j.DeploymentsURL = base+"/hooks", base+"/releases{/id}", base+"/deployments"
	j.ArchiveURL, j.CompareURL = base+"/{archive_format}{/ref}", base+"/compare/{base}...{head}"
	j.PullsURL, j.IssuesURL, j.TagsURL = base+"/pulls{/number}", base+"/issues{/number}", base+"/tags"
	j.TreesURL, j.BlobsURL = base+"/git/trees{/sha}", base+"/git/blobs{/sha}"
	if j.Permissions.Admin {
		j.Security = map[string]any{
			"secret_scanning_push_protection": status(s.PushProtection), "lockstep_review": status(s.Review),
		}
	}
}

func status(on bool) map[string]string {
	if on {
		return map[string]string{"status": "enabled"}
	}
	return map[string]string{"status": "disabled"}
}

// findID returns the repository with an id, or ErrNotFound.
func (f *Forge) findID(ctx context.Context, id int64) (*repository, error) {
	var key string
	rows, err := f.db.QueryContext(ctx, `select key from repository where id = ?`, id)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	keys, err := scanStrings(rows)
	if err != nil {
		return nil, err
	}
	if len(keys) > 0 {
		key = keys[0]
	}
	return f.find(ctx, key)
}

// SetReview says whether Deps.Review is asked before a ref of "owner/name"
// moves. Without it nothing is asked.
func (f *Forge) SetReview(ctx context.Context, full string, on bool) error {
	repo, err := f.find(ctx, full)
	if err != nil {
		return fmt.Errorf("set review: %w", err)
	}
	return f.changeSettings(ctx, repo, func(s *settings) { s.Review = on })
}

// changeSettings stores changed settings, and puts them into repo too.
func (f *Forge) changeSettings(ctx context.Context, repo *repository, change func(*settings)) error {
	f.create.Lock()
	defer f.create.Unlock()
	fresh, err := f.find(ctx, repo.key)
	if err != nil {
		return err
	}
	change(&fresh.settings)
	data, err := json.Marshal(fresh.settings)
	if err != nil {
		return fmt.Errorf("settings of %s: %w", repo.full(), err)
	}
	if _, err := f.db.ExecContext(ctx, `update repository set settings = ? where id = ?`, string(data), repo.id); err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	repo.settings = fresh.settings
	return nil
}

type repositoryChange struct {
	Name                *string   `json:"name"`
	Description         *string   `json:"description"`
	Private             *bool     `json:"private"`
	Visibility          *string   `json:"visibility"`
	DefaultBranch       *string   `json:"default_branch"`
	Homepage            *string   `json:"homepage"`
	Topics              *[]string `json:"topics"`
	Archived            *bool     `json:"archived"`
	AllowMergeCommit    *bool     `json:"allow_merge_commit"`
	AllowSquashMerge    *bool     `json:"allow_squash_merge"`
	AllowRebaseMerge    *bool     `json:"allow_rebase_merge"`
	AllowAutoMerge      *bool     `json:"allow_auto_merge"`
	AllowUpdateBranch   *bool     `json:"allow_update_branch"`
	DeleteBranchOnMerge *bool     `json:"delete_branch_on_merge"`
	Security            struct {
		PushProtection *struct{ Status string } `json:"secret_scanning_push_protection"`
		Review         *struct{ Status string } `json:"lockstep_review"`
	} `json:"security_and_analysis"`
}

func (c repositoryChange) apply(s *settings) {
	set := func(to *bool, from *bool) {
		if from != nil {
			*to = *from
		}
	}
	set(&s.Archived, c.Archived)
	set(&s.AllowMergeCommit, c.AllowMergeCommit)
	set(&s.AllowSquashMerge, c.AllowSquashMerge)
	set(&s.AllowRebaseMerge, c.AllowRebaseMerge)
	set(&s.AllowAutoMerge, c.AllowAutoMerge)
	set(&s.AllowUpdateBranch, c.AllowUpdateBranch)
	set(&s.DeleteBranchOnMerge, c.DeleteBranchOnMerge)
	if c.Homepage != nil {
		s.Homepage = *c.Homepage
	}
	if c.Topics != nil {
		s.Topics = *c.Topics
	}
	if p := c.Security.PushProtection; p != nil {
		s.PushProtection = p.Status == "enabled"
	}
	if p := c.Security.Review; p != nil {
		s.Review = p.Status == "enabled"
	}
}

func (c repositoryChange) check(repo *repository) error {
	switch {
	case c.Name != nil && !strings.EqualFold(*c.Name, repo.name):
		return invalid("Repository", "custom", "name", "Lockstep's forge can't rename a repository: create one with the new name and push to it")
	case c.Description != nil && len(*c.Description) > 350:
		return invalid("Repository", "invalid", "description", "description has more than 350 characters")
	case c.Homepage != nil && len(*c.Homepage) > 255:
		return invalid("Repository", "invalid", "homepage", "homepage has more than 255 characters")
	case c.Topics != nil:
		return checkTopics(*c.Topics)
	}
	return nil
}

func (f *Forge) apiChangeRepository(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, err
	}
	var in repositoryChange
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := in.check(repo); err != nil {
		return nil, err
	}
	ctx := r.Context()
	if in.DefaultBranch != nil {
		if err := f.setDefaultBranch(ctx, repo, *in.DefaultBranch); err != nil {
			return nil, err
		}
	}
	if in.Visibility != nil {
		private := *in.Visibility != "public"
		in.Private = &private
	}
	if in.Private != nil {
		repo.private = *in.Private
	}
	if in.Description != nil {
		repo.description = *in.Description
	}
	if _, err := f.db.ExecContext(ctx, `update repository set description = ?, private = ? where id = ?`, repo.description, repo.private, repo.id); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	if err := f.changeSettings(ctx, repo, in.apply); err != nil {
		return nil, err
	}
	return f.repositoryJSON(r, repo)
}

func (f *Forge) setDefaultBranch(ctx context.Context, repo *repository, branch string) error {
	ref := "refs/heads/" + branch
	if _, err := repo.git.Commit(ctx, ref); errors.Is(err, git.ErrNotFound) || !branchName.MatchString(branch) {
		return invalid("Repository", "invalid", "default_branch", "The branch "+branch+" was not found. Please push that ref first or create it via the Git Data API.")
	} else if err != nil {
		return err
	}
	if err := repo.lock(ctx); err != nil {
		return err
	}
	defer repo.unlock()
	_, err := repo.git.Run(ctx, "symbolic-ref", "HEAD", ref)
	return err
}

var topicName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,49}$`)

func checkTopics(topics []string) error {
	if len(topics) > 20 {
		return invalid("Repository", "invalid", "topics", "a repository can have no more than 20 topics")
	}
	for _, t := range topics {
		if !topicName.MatchString(t) {
			return invalid("Repository", "invalid", "topics", fmt.Sprintf("topic %.60q must start with a lower-case letter or number, consist of 50 characters or less, and have only lower-case letters, numbers and hyphens", t))
		}
	}
	return nil
}

func (f *Forge) apiTopics(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	return map[string]any{"names": append([]string{}, repo.settings.Topics...)}, nil
}

func (f *Forge) apiReplaceTopics(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Names []string `json:"names"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := checkTopics(in.Names); err != nil {
		return nil, err
	}
	slices.Sort(in.Names)
	if err := f.changeSettings(r.Context(), repo, func(s *settings) { s.Topics = slices.Compact(in.Names) }); err != nil {
		return nil, err
	}
	return map[string]any{"names": append([]string{}, repo.settings.Topics...)}, nil
}
