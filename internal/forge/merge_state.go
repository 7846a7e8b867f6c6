package forge

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/forge/merge"
)

// protectedMerge returns why the protection of the base branch keeps a pull
// request from being merged, nil when it doesn't.
func (f *Forge) protectedMerge(ctx context.Context, repo *repository, i *issue, id Identity) error {
	rules, err := f.rulesFor(ctx, repo, "refs/heads/"+i.Pull.Base)
	if err != nil || rules == nil {
		return err
	}
	missing, err := f.missingForMerge(ctx, repo, i, rules)
	if err != nil || len(missing) == 0 {
		return err
	}
	if !rules.EnforceAdmins && id.mayAdminister(repo.key) && id.User == f.cfg.User {
		return nil
	}
	return fail(http.StatusMethodNotAllowed, "%s", strings.Join(missing, " "))
}

// missingForMerge says what the rules of the base branch still ask for.
func (f *Forge) missingForMerge(ctx context.Context, repo *repository, i *issue, rules *branchRules) ([]string, error) {
	var missing []string
	if rules.RequirePull {
		reviews, err := f.reviewsOf(ctx, f.db, i.id, "")
		if err != nil {
			return nil, err
		}
		approvals, rejected := countReviews(reviews, i, rules.DismissStale)
		if rejected > 0 {
			missing = append(missing, "Changes have been requested.")
		}
		if approvals < rules.Approvals {
			missing = append(missing, fmt.Sprintf("At least %d approving review%s required by reviewers with write access.", rules.Approvals, map[bool]string{true: " is", false: "s are"}[rules.Approvals == 1]))
		}
		if rules.ResolveConversation {
			open, err := f.openThreads(ctx, i)
			if err != nil {
				return nil, err
			}
			if open > 0 {
				missing = append(missing, "A conversation must be resolved before this pull request can be merged.")
			}
		}
	}
	if rules.RequireChecks {
		texts, err := f.missingChecks(ctx, repo, i.Pull.HeadSHA, rules)
		if err != nil {
			return nil, err
		}
		missing = append(missing, texts...)
		if rules.Strict {
			behind, err := behind(ctx, repo, i)
			if err != nil {
				return nil, err
			}
			if behind {
				missing = append(missing, "The head branch is not up to date with the base branch.")
			}
		}
	}
	return missing, nil
}

// behind reports whether the base has commits that the head has not.
func behind(ctx context.Context, repo *repository, i *issue) (bool, error) {
	tip, err := repo.git.Resolve(ctx, "refs/heads/"+i.Pull.Base)
	if err != nil {
		return false, err
	}
	base, err := merge.Base(ctx, repo.git, tip, i.Pull.HeadSHA)
	return base != tip, err
}

// countReviews counts the newest say of each reviewer.
func countReviews(reviews []review, i *issue, dismissStale bool) (approvals, rejections int) {
	newest := map[string]string{}
	for _, r := range reviews {
		if r.Author == i.author || r.State == reviewCommented || r.State == reviewPending {
			continue
		}
		if dismissStale && r.State == reviewApproved && r.SHA != i.Pull.HeadSHA {
			delete(newest, r.Author)
			continue
		}
		newest[r.Author] = r.State
	}
	for _, state := range newest {
		switch state {
		case reviewApproved:
			approvals++
		case reviewChanges:
			rejections++
		}
	}
	return approvals, rejections
}

// mergeState is GitHub's mergeable_state: clean, dirty, blocked, behind,
// unstable, draft or unknown.
func (f *Forge) mergeState(ctx context.Context, repo *repository, i *issue) (string, error) {
	switch {
	case !i.open:
		return "unknown", nil
	case i.Pull.Test.Commit == "":
		return "dirty", nil
	case i.Pull.Draft:
		return "draft", nil
	}
	rules, err := f.rulesFor(ctx, repo, "refs/heads/"+i.Pull.Base)
	if err != nil {
		return "", err
	}
	if rules != nil {
		missing, err := f.missingForMerge(ctx, repo, i, rules)
		if err != nil {
			return "", err
		}
		if len(missing) == 1 && strings.HasPrefix(missing[0], "The head branch is not up to date") {
			return "behind", nil
		}
		if len(missing) > 0 {
			return "blocked", nil
		}
	}
	states, err := f.contextStates(ctx, repo, i.Pull.HeadSHA)
	if err != nil {
		return "", err
	}
	for _, state := range states {
		if !slices.Contains([]string{"success", "neutral", "skipped"}, state) {
			return "unstable", nil
		}
	}
	return "clean", nil
}

// reviewDecision is GraphQL's word for what the reviews amount to, "" when
// none is asked for.
func (f *Forge) reviewDecision(ctx context.Context, repo *repository, i *issue) (string, error) {
	rules, err := f.rulesFor(ctx, repo, "refs/heads/"+i.Pull.Base)
	if err != nil {
		return "", err
	}
	reviews, err := f.reviewsOf(ctx, f.db, i.id, "")
	if err != nil {
		return "", err
	}
	approvals, rejections := countReviews(reviews, i, rules != nil && rules.DismissStale)
	switch {
	case rejections > 0:
		return "CHANGES_REQUESTED", nil
	case rules != nil && rules.RequirePull && approvals < rules.Approvals:
		return "REVIEW_REQUIRED", nil
	case approvals > 0:
		return "APPROVED", nil
	}
	return "", nil
}
