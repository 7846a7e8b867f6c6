package forge

import (
	"context"
	"fmt"
)

// Protected reports whether a branch (without refs/heads/) of "owner/name" has
// a protection rule. It returns ErrNotFound without such a repository.
func (f *Forge) Protected(ctx context.Context, full, branch string) (bool, error) {
	repo, err := f.find(ctx, full)
	if err != nil {
		return false, fmt.Errorf("is %s protected: %w", branch, err)
	}
	branches, err := f.protectedBranches(ctx, repo)
	return branches[branch], err
}
