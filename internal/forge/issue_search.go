package forge

import (
	"net/http"
	"slices"
	"strings"
)

// search is a query for issues and pull requests: qualifiers and words. All
// must hold.
type search struct {
	repos, owners          []string
	kind, state            string // kind is "", "pr" or "issue"; state "", "open", "closed", "merged"
	head, base, author     string
	assignee, sha, review  string
	draft                  *bool
	labels, words, unknown []string
}

// parseSearch reads GitHub's search language as far as it is kept here.
func parseSearch(q string) search {
	var s search
	yes, no := true, false
	for _, term := range searchTerms(q) {
		name, value, ok := strings.Cut(term, ":")
		if !ok {
			s.words = append(s.words, strings.ToLower(term))
			continue
		}
		value = strings.Trim(value, `"`)
		switch strings.ToLower(name) + ":" + strings.ToLower(value) {
		case "is:pr", "type:pr", "is:pull-request":
			s.kind = "pr"
			continue
		case "is:issue", "type:issue":
			s.kind = "issue"
			continue
		case "is:open", "state:open", "is:closed", "state:closed", "is:merged":
			s.state = strings.ToLower(value)
			continue
		case "draft:true", "is:draft":
			s.draft = &yes
			continue
		case "draft:false":
			s.draft = &no
			continue
		}
		switch strings.ToLower(name) {
		case "repo":
			s.repos = append(s.repos, strings.ToLower(value))
		case "user", "org":
			s.owners = append(s.owners, value)
		case "head":
			s.head = value
		case "base":
			s.base = value
		case "author":
			s.author = value
		case "assignee":
			s.assignee = value
		case "review-requested", "user-review-requested":
			s.review = value
		case "label":
			s.labels = append(s.labels, value)
		case "sha":
			s.sha = value
		case "in", "sort", "archived":
		default:
			s.unknown = append(s.unknown, term)
		}
	}
	return s
}

// searchTerms splits at spaces outside of quotes.
func searchTerms(q string) []string {
	var terms []string
	quoted := false
	fields := strings.FieldsFunc(q, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n' || r == '+')
	})
	for _, term := range fields {
		if term = strings.TrimSpace(term); term != "" && !strings.EqualFold(term, "and") {
			terms = append(terms, term)
		}
	}
	return terms
}

// me is the login that a value means.
func me(value string, id Identity) string {
	if value == "@me" {
		return id.User
	}
	return value
}

func (s search) matches(i *issue, id Identity) bool {
	p := i.Pull
	if p == nil {
		p = &pull{}
	}
	switch {
	case s.kind == "pr" && i.Pull == nil, s.kind == "issue" && i.Pull != nil:
		return false
	case s.state == "open" && !i.open, s.state == "closed" && i.open, s.state == "merged" && p.Merged.IsZero():
		return false
	case s.head != "" && !strings.HasPrefix(p.Head, s.head), s.base != "" && p.Base != s.base:
		return false
	case s.author != "" && !strings.EqualFold(i.author, me(s.author, id)):
		return false
	case s.draft != nil && p.Draft != *s.draft, s.sha != "" && !strings.HasPrefix(p.HeadSHA, s.sha):
		return false
	case s.assignee != "" && len(without([]string{me(s.assignee, id)}, i.Assignees)) > 0:
		return false
	case s.review != "" && len(without([]string{me(s.review, id)}, p.Reviewers)) > 0:
		return false
	case len(without(s.labels, i.Labels)) > 0:
		return false
	}
	text := strings.ToLower(i.title + "\n" + i.Body)
	return !slices.ContainsFunc(s.words, func(w string) bool { return !strings.Contains(text, strings.Trim(w, `"`)) })
}

// found is an issue with its repository.
type found struct {
	repo *repository
	*issue
}

// findIssues returns what the identity may see of a search, newest first.
func (f *Forge) findIssues(r *http.Request, q string) ([]found, error) {
	s, id := parseSearch(q), IdentityFrom(r.Context())
	if len(s.unknown) > 0 {
		return nil, fail(http.StatusUnprocessableEntity, "Lockstep's forge can't search for %.100s", strings.Join(s.unknown, " "))
	}
	all, err := f.list(r.Context(), "")
	if err != nil {
		return nil, err
	}
	var hits []found
	for _, repo := range all {
		if len(s.repos) > 0 && !slices.Contains(s.repos, repo.key) || len(s.owners) > 0 && len(without([]string{repo.owner}, s.owners)) > 0 || !id.mayRead(repo) {
			continue
		}
		issues, err := issuesWhere(r.Context(), f.db, `i.repo = ? order by i.created desc, i.number desc`, repo.id)
		if err != nil {
			return nil, err
		}
		for _, i := range issues {
			if s.matches(i, id) {
				hits = append(hits, found{repo, i})
			}
		}
	}
	slices.SortStableFunc(hits, func(a, b found) int { return b.created.Compare(a.created) })
	return hits, nil
}

func (f *Forge) apiSearchIssues(w http.ResponseWriter, r *http.Request) (any, error) {
	hits, err := f.findIssues(r, r.URL.Query().Get("q"))
	if err != nil {
		return nil, err
	}
	items := []issueJSON{}
	for _, hit := range cutPage(w, r, hits) {
		sc, err := f.scene(r, hit.repo, hit.issue)
		if err != nil {
			return nil, err
		}
		items = append(items, sc.issue(hit.issue))
	}
	return map[string]any{"total_count": len(hits), "incomplete_results": false, "items": items}, nil
}
