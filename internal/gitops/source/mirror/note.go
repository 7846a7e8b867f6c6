package mirror

import (
	"context"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// head is the default branch and its commit.
type head struct{ ref, commit string }

func (r *work) headOf(ctx context.Context) head {
	var h head
	if out, err := r.repo.Run(ctx, "symbolic-ref", "-q", "HEAD"); err == nil {
		h.ref = strings.TrimSpace(string(out))
	}
	h.commit, _ = r.repo.Resolve(ctx, "HEAD")
	return h
}

// note makes moves of refs that were there before, or that were waited for.
func (r *work) note(gone []string, before, after map[string]string) {
	for _, ref := range gone {
		if _, exists := r.advert.refs[ref]; !exists && before[ref] != "" && !strings.HasPrefix(ref, pinned) {
			r.moves = append(r.moves, Move{Repo: r.name, Ref: ref, Before: before[ref], After: git.ZeroID})
		}
	}
	for ref, id := range after {
		if old := before[ref]; old != id && (old != "" || r.chosen[ref] && r.waited(ref)) {
			if old == "" {
				old = git.ZeroID
			}
			r.moves = append(r.moves, Move{Repo: r.name, Ref: ref, Before: old, After: id})
		}
	}
	slices.SortFunc(r.moves, func(a, b Move) int { return strings.Compare(a.Ref, b.Ref) })
}

// noteHead makes a move when another branch became the default one.
func (r *work) noteHead(ctx context.Context, before head) {
	if r.advert.headID == "" || !r.known || before.commit == "" {
		return
	}
	if now := r.headOf(ctx); now.ref != before.ref && now.commit != "" && now.commit != before.commit {
		ref := now.ref
		if ref == "" {
			ref = "HEAD"
		}
		r.moves = slices.DeleteFunc(r.moves, func(m Move) bool { return m.Ref == ref && m.Before == git.ZeroID })
		r.moves = append(r.moves, Move{Repo: r.name, Ref: ref, Before: before.commit, After: now.commit})
	}
}

// waited reports whether an earlier round already looked for the ref.
func (r *work) waited(ref string) bool {
	for i, w := range r.wants {
		if r.covered[i] && w.revision.Tracks(ref, r.advert.head) {
			return true
		}
	}
	return false
}
