package forge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

func (f *Forge) apiCreateRef(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct{ Ref, SHA string }
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := f.mayPoint(r.Context(), repo, in.Ref, in.SHA); err != nil {
		return nil, err
	}
	err = f.changeRefs(r.Context(), repo, IdentityFrom(r.Context()), refCommand{Ref: in.Ref, Old: git.ZeroID, New: in.SHA})
	if errors.Is(err, errRefMoved) {
		return nil, fail(http.StatusUnprocessableEntity, "Reference already exists")
	}
	if err != nil {
		return nil, moveAnswer(err)
	}
	j, err := f.refJSON(r, repo, in.Ref, in.SHA)
	if err != nil {
		return nil, err
	}
	w.Header().Set("Location", j.URL)
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

// mayPoint checks the name of a ref and the object that it is to name.
func (f *Forge) mayPoint(ctx context.Context, repo *repository, ref, sha string) error {
	if err := f.checkRefName(ctx, repo, ref); err != nil {
		return err
	}
	if !objectID.MatchString(sha) {
		return fail(http.StatusUnprocessableEntity, "The sha parameter must be exactly 40 characters and contain only [0-9a-f].")
	}
	_, kind, _, err := repo.git.Stat(ctx, sha)
	if errors.Is(err, git.ErrNotFound) {
		return fail(http.StatusUnprocessableEntity, "Object does not exist")
	}
	if err == nil && kind != git.KindCommit && strings.HasPrefix(ref, "refs/heads/") {
		return fail(http.StatusUnprocessableEntity, "Reference cannot be updated: a branch names a commit and %s is a %s", sha, kind)
	}
	return err
}

// checkRefName refuses what isn't the name of a branch or tag.
func (f *Forge) checkRefName(ctx context.Context, repo *repository, ref string) error {
	if !strings.HasPrefix(ref, "refs/heads/") && !strings.HasPrefix(ref, "refs/tags/") || len(ref) > maxRefName {
		return fail(http.StatusUnprocessableEntity, "Reference name must start with 'refs/heads/' or 'refs/tags/'.")
	}
	if _, err := repo.git.Run(ctx, "check-ref-format", ref); err != nil {
		return fail(http.StatusUnprocessableEntity, "%.200q is not a valid ref name.", ref)
	}
	return nil
}

func (f *Forge) apiUpdateRef(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		SHA   string
		Force bool
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	ctx, ref := r.Context(), "refs/"+r.PathValue("ref")
	if err := f.mayPoint(ctx, repo, ref, in.SHA); err != nil {
		return nil, err
	}
	refs, err := repo.git.Refs(ctx, ref)
	if err != nil {
		return nil, err
	}
	old, ok := refs[ref]
	if !ok {
		return nil, fail(http.StatusUnprocessableEntity, "Reference does not exist")
	}
	c := refCommand{Ref: ref, Old: old, New: in.SHA}
	if old != in.SHA {
		if !in.Force {
			forced, err := f.forced(ctx, proposal{repo: repo}, c)
			if err != nil {
				return nil, err
			}
			if forced {
				return nil, fail(http.StatusUnprocessableEntity, "Update is not a fast forward")
			}
		}
		if err := f.changeRefs(ctx, repo, IdentityFrom(ctx), c); err != nil {
			return nil, moveAnswer(err)
		}
	}
	return f.refJSON(r, repo, ref, in.SHA)
}

func (f *Forge) apiDeleteRef(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	ctx, ref := r.Context(), "refs/"+r.PathValue("ref")
	if err := f.checkRefName(ctx, repo, ref); err != nil {
		return nil, err
	}
	refs, err := repo.git.Refs(ctx, ref)
	if err != nil {
		return nil, err
	}
	if refs[ref] == "" {
		return nil, fail(http.StatusUnprocessableEntity, "Reference does not exist")
	}
	if head, err := f.head(ctx, repo); err != nil || ref == "refs/heads/"+head {
		return nil, errors.Join(err, fail(http.StatusUnprocessableEntity, "Cannot delete the default branch."))
	}
	if err := f.changeRefs(ctx, repo, IdentityFrom(ctx), refCommand{Ref: ref, Old: refs[ref], New: git.ZeroID}); err != nil {
		return nil, moveAnswer(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

func (f *Forge) apiRenameBranch(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		NewName string `json:"new_name"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	ctx := r.Context()
	from, to := "refs/heads/"+r.PathValue("branch"), "refs/heads/"+in.NewName
	if err := f.checkRefName(ctx, repo, to); err != nil {
		return nil, err
	}
	c, err := repo.git.Commit(ctx, from)
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Branch not found")
	}
	head, err := f.head(ctx, repo)
	if err != nil {
		return nil, err
	}
	// The new name first, then the default branch: a crash in between leaves both names.
	id := IdentityFrom(ctx)
	if err := f.changeRefs(ctx, repo, id, refCommand{Ref: to, Old: git.ZeroID, New: c.ID}); err != nil {
		return nil, moveAnswer(err)
	}
	if "refs/heads/"+head == from {
		if err := f.setDefaultBranch(ctx, repo, in.NewName); err != nil {
			return nil, err
		}
	}
	if err := f.changeRefs(ctx, repo, id, refCommand{Ref: from, Old: c.ID, New: git.ZeroID}); err != nil {
		return nil, moveAnswer(err)
	}
	writeJSON(w, http.StatusCreated, branchJSON{Name: in.NewName, Commit: f.commitJSON(r, repo, c)})
	return nil, nil
}

func (f *Forge) apiCreateTag(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Tag, Message, Object, Type string
		Tagger                     *signatureInput
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := f.checkRefName(r.Context(), repo, "refs/tags/"+in.Tag); err != nil {
		return nil, err
	}
	_, kind, _, err := repo.git.Stat(r.Context(), in.Object)
	if err != nil || !objectID.MatchString(in.Object) || string(kind) != in.Type {
		return nil, fail(http.StatusUnprocessableEntity, "Object does not exist: %.60q is no %.20s of this repository", in.Object, in.Type)
	}
	tagger, err := f.signer(IdentityFrom(r.Context()), in.Tagger)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("object %s\ntype %s\ntag %s\ntagger %s\n\n%s\n", in.Object, in.Type, in.Tag, tagger, strings.TrimSuffix(in.Message, "\n"))
	id, err := f.writeObject(r.Context(), repo, git.KindTag, []byte(text))
	if err != nil {
		return nil, err
	}
	j, err := f.tagJSON(r, repo, git.Object{ID: id, Kind: git.KindTag, Data: []byte(text)})
	if err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

func (f *Forge) apiTag(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	object, err := f.objectOf(r, repo, r.PathValue("sha"), git.KindTag)
	if err != nil {
		return nil, err
	}
	return f.tagJSON(r, repo, object)
}

// tagJSON describes an annotated tag.
func (f *Forge) tagJSON(r *http.Request, repo *repository, object git.Object) (any, error) {
	header, message, _ := strings.Cut(string(object.Data), "\n\n")
	fields := map[string]string{}
	for line := range strings.Lines(header) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		fields[key] = value
	}
	tagger := signatureJSON{}
	if name, rest, ok := strings.Cut(fields["tagger"], " <"); ok {
		email, at, _ := strings.Cut(rest, "> ")
		var seconds int64
		_, _ = fmt.Sscanf(at, "%d", &seconds)
		tagger = signatureJSON{Name: name, Email: email, Date: time.Unix(seconds, 0).UTC()}
	}
	base := apiBase(r) + "/repos/" + repo.full() + "/git/"
	return map[string]any{
		"node_id": nodeID("Tag", repo.full()+":"+object.ID), "tag": fields["tag"], "sha": object.ID, "url": base + "tags/" + object.ID,
		"message": strings.TrimSuffix(message, "\n"), "tagger": tagger,
		"object":       objectJSON{Type: fields["type"], SHA: fields["object"], URL: base + fields["type"] + "s/" + fields["object"]},
		"verification": map[string]any{"verified": false, "reason": "unsigned", "signature": nil, "payload": nil},
	}, nil
}
