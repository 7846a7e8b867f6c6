package forge

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/lockstep-gitops/lockstep/internal/forge/merge"
)

// apiMergeBranches merges one branch or commit into a branch, without a pull
// request.
func (f *Forge) apiMergeBranches(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Base    string `json:"base"`
		Head    string `json:"head"`
		Message string `json:"commit_message"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	ctx, id := r.Context(), IdentityFrom(r.Context())
	base, err := repo.git.Resolve(ctx, "refs/heads/"+in.Base)
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Base does not exist")
	}
	head, err := repo.git.Resolve(ctx, in.Head)
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Head does not exist")
	}
	common, err := merge.Base(ctx, repo.git, base, head)
	if err != nil {
		return nil, err
	}
	if common == head {
		w.WriteHeader(http.StatusNoContent)
		return nil, nil
	}
	if in.Message == "" {
		in.Message = fmt.Sprintf("Merge %s into %s", in.Head, in.Base)
	}
	commit, err := merge.Merge(ctx, repo.git, base, head, f.signature(id.Actor), f.github(), in.Message)
	var conflict *merge.Conflict
	if errors.As(err, &conflict) {
		return nil, fail(http.StatusConflict, "Merge conflict: %s", conflict)
	}
	if err != nil {
		return nil, err
	}
	if err := f.changeRefs(ctx, repo, id, refCommand{Ref: "refs/heads/" + in.Base, Old: base, New: commit}); err != nil {
		return nil, moveAnswer(err)
	}
	c, err := repo.git.Commit(ctx, commit)
	if err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusCreated, f.commitJSON(r, repo, c))
	return nil, nil
}
