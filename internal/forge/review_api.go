package forge

import (
	"database/sql"
	"net/http"
	"strconv"
)

func (f *Forge) reviewRoutes(rt, comments routes) {
	const pulls = "/repos/{owner}/{repo}/pulls"
	rt.handle("GET "+pulls+"/{number}/reviews", scopePulls, f.apiReviews)
	rt.handle("POST "+pulls+"/{number}/reviews", scopePulls, f.apiCreateReview)
	rt.handle("GET "+pulls+"/{number}/reviews/{review}", scopePulls, f.apiReview)
	rt.handle("PUT "+pulls+"/{number}/reviews/{review}", scopePulls, f.apiReview)
	rt.handle("DELETE "+pulls+"/{number}/reviews/{review}", scopePulls, f.apiReview)
	rt.handle("GET "+pulls+"/{number}/reviews/{review}/comments", scopePulls, f.apiReviewComments)
	rt.handle("POST "+pulls+"/{number}/reviews/{review}/events", scopePulls, f.apiReview)
	rt.handle("PUT "+pulls+"/{number}/reviews/{review}/dismissals", scopePulls, f.apiDismissReview)
	rt.handle("GET "+pulls+"/{number}/comments", scopePulls, f.apiReviewComments)
	rt.handle("POST "+pulls+"/{number}/comments", scopePulls, f.apiCreateReviewComment)
	rt.handle("POST "+pulls+"/{number}/comments/{id}/replies", scopePulls, f.apiCreateReviewComment)
	comments.handle("GET "+pulls+"/comments", scopePulls, f.apiReviewComments)
	comments.handle("GET "+pulls+"/comments/{id}", scopePulls, f.apiReviewComment)
	comments.handle("PATCH "+pulls+"/comments/{id}", scopePulls, f.apiReviewComment)
	comments.handle("DELETE "+pulls+"/comments/{id}", scopePulls, f.apiReviewComment)
}

func (f *Forge) apiReviews(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.target)
	if err != nil {
		return nil, err
	}
	all, err := f.reviewsOf(r.Context(), f.db, i.id, IdentityFrom(r.Context()).Actor)
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo, i)
	if err != nil {
		return nil, err
	}
	list := []reviewJSON{}
	for _, rv := range cutPage(w, r, all) {
		list = append(list, sc.review(i, rv))
	}
	return list, nil
}

func (f *Forge) apiCreateReview(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.participant)
	if err != nil {
		return nil, err
	}
	var in reviewInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	rv, err := f.addReview(r.Context(), repo, i, IdentityFrom(r.Context()), in)
	if err != nil {
		return nil, err
	}
	return f.answerReview(r, repo, i, rv)
}

func (f *Forge) answerReview(r *http.Request, repo *repository, i *issue, rv review) (any, error) {
	sc, err := f.scene(r, repo, i)
	if err != nil {
		return nil, err
	}
	return sc.review(i, rv), nil
}

// apiReview reads, changes, submits or deletes one review.
func (f *Forge) apiReview(_ http.ResponseWriter, r *http.Request) (any, error) {
	find := f.participant
	if r.Method == http.MethodGet {
		find = f.target
	}
	repo, i, err := f.pullRequest(r, find)
	if err != nil {
		return nil, err
	}
	id := IdentityFrom(r.Context())
	rv, err := f.reviewOf(r.Context(), i, id.Actor, r.PathValue("review"))
	if err != nil {
		return nil, err
	}
	if r.Method != http.MethodGet && rv.Author != id.Actor {
		return nil, fail(http.StatusForbidden, "The review is %s's", rv.Author)
	}
	switch r.Method {
	case http.MethodPost:
		var in reviewInput
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
		rv, err = f.submitReview(r.Context(), repo, i, id, rv, in.Event, in.Body)
	case http.MethodPut:
		var in reviewInput
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
		if err := checkBody(in.Body); err != nil {
			return nil, err
		}
		rv.Body = in.Body
		err = f.transact(r.Context(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(r.Context(), `update review set body = ? where id = ?`, rv.Body, rv.ID)
			return err
		})
	case http.MethodDelete:
		if rv.State != reviewPending {
			return nil, invalid("PullRequestReview", "custom", "", "Can not delete a non-pending pull request review")
		}
		err = f.transact(r.Context(), func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(r.Context(), `delete from comment where kind = 'review' and review = ?`, rv.ID); err != nil {
				return err
			}
			_, err := tx.ExecContext(r.Context(), `delete from review where id = ?`, rv.ID)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return f.answerReview(r, repo, i, rv)
}

func (f *Forge) apiDismissReview(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.writable)
	if err != nil {
		return nil, err
	}
	var in struct {
		Message string `json:"message"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	id := IdentityFrom(r.Context())
	rv, err := f.reviewOf(r.Context(), i, id.Actor, r.PathValue("review"))
	if err != nil {
		return nil, err
	}
	if rv, err = f.dismissReview(r.Context(), repo, i, id, rv, in.Message); err != nil {
		return nil, err
	}
	return f.answerReview(r, repo, i, rv)
}

func (f *Forge) apiReviewComments(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	condition, args := `kind = 'review' and repo = ?`, []any{repo.id}
	if r.PathValue("number") != "" {
		i, err := pullOf(r.Context(), f.db, repo.id, numberOf(r.PathValue("number")))
		if err != nil {
			return nil, err
		}
		condition, args = condition+` and issue = ?`, append(args, i.id)
	}
	if text := r.PathValue("review"); text != "" {
		condition, args = condition+` and review = ?`, append(args, numberOf(text))
	}
	// What belongs to a pending review is for its author alone.
	condition += ` and review not in (select id from review where submitted = 0 and author != ?)`
	found, err := f.commentsWhere(r.Context(), f.db, condition, append(args, IdentityFrom(r.Context()).Actor)...)
	if err != nil {
		return nil, err
	}
	return f.answerReviewComments(r, repo, cutPage(w, r, found))
}

func (f *Forge) answerReviewComments(r *http.Request, repo *repository, comments []*comment) ([]reviewCommentJSON, error) {
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	list := []reviewCommentJSON{}
	for _, c := range comments {
		found, err := issuesWhere(r.Context(), f.db, `i.id = ?`, c.Issue)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 && found[0].Pull != nil {
			list = append(list, sc.reviewComment(found[0], c))
		}
	}
	return list, nil
}

func (f *Forge) apiCreateReviewComment(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.participant)
	if err != nil {
		return nil, err
	}
	var in commentInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if text := r.PathValue("id"); text != "" {
		if in.ReplyTo, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, ErrNotFound
		}
	}
	c, err := f.addReviewComment(r.Context(), repo, i, IdentityFrom(r.Context()), in)
	if err != nil {
		return nil, err
	}
	list, err := f.answerReviewComments(r, repo, []*comment{c})
	if err != nil || len(list) == 0 {
		return nil, orNotFound(err)
	}
	writeJSON(w, http.StatusCreated, list[0])
	return nil, nil
}

func (f *Forge) apiReviewComment(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, c, err := f.editedComment(w, r, "review")
	if err != nil || c == nil {
		return nil, err
	}
	list, err := f.answerReviewComments(r, repo, []*comment{c})
	if err != nil || len(list) == 0 {
		return nil, orNotFound(err)
	}
	return list[0], nil
}
