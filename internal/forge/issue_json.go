package forge

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// scene is what the JSON of a repository's issues is made from. It is read
// before a transaction, so that events can be written inside of it.
type scene struct {
	f          *Forge
	r          *http.Request
	repo       *repository
	json       repositoryJSON
	heads      map[int64]*repositoryJSON // repositories of pull requests' heads
	labels     map[string]labelJSON      // by lower-case name
	milestones map[int]milestoneJSON
	reactions  map[string]map[string]int // "kind/id" → content → count
}

// scene reads what the JSON of the issues needs, as the client of r sees it.
func (f *Forge) scene(r *http.Request, repo *repository, issues ...*issue) (*scene, error) {
	sc := &scene{f: f, r: r, repo: repo, heads: map[int64]*repositoryJSON{}}
	var err error
	if sc.json, err = f.repositoryJSON(r, repo); err != nil {
		return nil, err
	}
	sc.heads[repo.id] = &sc.json
	for _, i := range issues {
		if i.Pull == nil {
			continue
		}
		if _, known := sc.heads[i.Pull.HeadRepo]; known {
			continue
		}
		sc.heads[i.Pull.HeadRepo] = nil
		if head, err := f.findID(r.Context(), i.Pull.HeadRepo); err == nil {
			if j, err := f.repositoryJSON(r, head); err == nil {
				sc.heads[i.Pull.HeadRepo] = &j
			}
		}
	}
	if sc.labels, err = sc.readLabels(); err != nil {
		return nil, err
	}
	if sc.milestones, err = sc.readMilestones(); err != nil {
		return nil, err
	}
	sc.reactions, err = sc.readReactions()
	return sc, err
}

// eventScene is a scene for the payload of an event.
func (f *Forge) eventScene(ctx context.Context, repo *repository, issues ...*issue) (*scene, error) {
	return f.scene(f.asEvent(ctx), repo, issues...)
}

func (sc *scene) base() string { return apiBase(sc.r) + "/repos/" + sc.repo.full() }
func (sc *scene) page() string { return sc.f.cfg.URL + "/" + sc.repo.full() }

func (sc *scene) account(login string) accountJSON { return sc.f.account(apiBase(sc.r), login) }

func (sc *scene) accounts(logins []string) []accountJSON {
	list := []accountJSON{}
	for _, login := range logins {
		list = append(list, sc.account(login))
	}
	return list
}

// association is GitHub's word for what an author is to the repository.
func (sc *scene) association(login string) string {
	switch {
	case strings.EqualFold(login, sc.repo.owner):
		return "OWNER"
	case strings.EqualFold(login, sc.f.cfg.User):
		return "MEMBER"
	case strings.HasSuffix(login, "[bot]"):
		return "CONTRIBUTOR"
	}
	return "NONE"
}

type issueJSON struct {
	URL           string        `json:"url"`
	RepositoryURL string        `json:"repository_url"`
	LabelsURL     string        `json:"labels_url"`
	CommentsURL   string        `json:"comments_url"`
	EventsURL     string        `json:"events_url"`
	HTMLURL       string        `json:"html_url"`
	ID            int64         `json:"id"`
	NodeID        string        `json:"node_id"`
	Number        int           `json:"number"`
	Title         string        `json:"title"`
	User          accountJSON   `json:"user"`
	Labels        []labelJSON   `json:"labels"`
	State         string        `json:"state"`
	StateReason   *string       `json:"state_reason"`
	Locked        bool          `json:"locked"`
	LockReason    *string       `json:"active_lock_reason"`
	Assignee      *accountJSON  `json:"assignee"`
	Assignees     []accountJSON `json:"assignees"`
	Milestone     any           `json:"milestone"`
	Comments      int           `json:"comments"`
	CreatedAt     time.Time     `json:"created_at"`
	UpdatedAt     time.Time     `json:"updated_at"`
	ClosedAt      *time.Time    `json:"closed_at"`
	ClosedBy      *accountJSON  `json:"closed_by"`
	Association   string        `json:"author_association"`
	Body          *string       `json:"body"`
	Reactions     reactionsJSON `json:"reactions"`
	Draft         *bool         `json:"draft,omitempty"`
	PullRequest   any           `json:"pull_request,omitempty"`
	TimelineURL   string        `json:"timeline_url"`
}

// optional is nil for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// moment is nil for the zero time, and has whole seconds.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

func (sc *scene) issue(i *issue) issueJSON {
	base := sc.base() + "/issues/" + strconv.Itoa(i.number)
	kind := "issues"
	if i.Pull != nil {
		kind = "pull"
	}
	j := issueJSON{
		URL: base, RepositoryURL: sc.base(), LabelsURL: base + "/labels{/name}", CommentsURL: base + "/comments",
		EventsURL: base + "/events", TimelineURL: base + "/timeline", HTMLURL: fmt.Sprintf("%s/%s/%d", sc.page(), kind, i.number),
		ID: i.id, NodeID: sc.issueNode(i), Number: i.number, Title: i.title, User: sc.account(i.author),
		Labels: sc.labelsOf(i), State: i.state(), StateReason: optional(i.Reason), Locked: i.Locked, LockReason: optional(i.Lock),
		Assignees: sc.accounts(i.Assignees), Milestone: sc.milestone(i), Comments: i.comments,
		CreatedAt: *moment(i.created), UpdatedAt: *moment(i.updated), ClosedAt: moment(i.Closed),
		Association: sc.association(i.author), Body: optional(i.Body), Reactions: sc.reactionsOf("issue", i.id, base),
	}
	if len(j.Assignees) > 0 {
		j.Assignee = &j.Assignees[0]
	}
	if i.ClosedBy != "" {
		by := sc.account(i.ClosedBy)
		j.ClosedBy = &by
	}
	if p := i.Pull; p != nil {
		j.Draft = &p.Draft
		pull := sc.base() + "/pulls/" + strconv.Itoa(i.number)
		j.PullRequest = map[string]any{
			"url": pull, "html_url": j.HTMLURL, "diff_url": j.HTMLURL + ".diff", "patch_url": j.HTMLURL + ".patch", "merged_at": moment(p.Merged),
		}
	}
	return j
}

func (i *issue) state() string {
	if i.open {
		return "open"
	}
	return "closed"
}

func (sc *scene) milestone(i *issue) any {
	if m, ok := sc.milestones[i.Milestone]; ok && i.Milestone != 0 {
		return m
	}
	return nil
}

// issueNode is the node id of an issue ("I") or a pull request ("P").
func (sc *scene) issueNode(i *issue) string {
	kind := "Issue"
	if i.Pull != nil {
		kind = "PullRequest"
	}
	return nodeID(kind, sc.repo.full()+"#"+strconv.Itoa(i.number))
}

// tell puts an event of the issue or pull request into the outbox, with the
// payload that GitHub's webhook has.
func (sc *scene) tell(out *outbox, i *issue, id Identity, action string, extra map[string]any) error {
	name := "issues"
	body := map[string]any{}
	if i.Pull != nil {
		name = "pull_request"
		body["number"], body["pull_request"] = i.number, sc.pull(i)
	} else {
		body["issue"] = sc.issue(i)
	}
	return sc.tellAs(out, name, action, i, id, body, extra)
}

// tellAs puts an event with a name of its own about the issue into the outbox.
func (sc *scene) tellAs(out *outbox, name, action string, i *issue, id Identity, bodies ...map[string]any) error {
	all := map[string]any{}
	for _, body := range bodies {
		for k, v := range body {
			all[k] = v
		}
	}
	payload, err := sc.f.payloadOf(sc.json, id.Actor, action, all)
	if err != nil {
		return err
	}
	e := Event{Repo: sc.repo.full(), Name: name, Action: action, Actor: id.Actor, Cause: id.Cause, Payload: payload}
	if i.Pull != nil && strings.HasPrefix(name, "pull_request") {
		e.Fork = i.fork()
		e.Ref, e.Commit = i.at()
	}
	return out.add(e)
}

func (sc *scene) issuesOf(all []*issue) []issueJSON {
	list := []issueJSON{}
	for _, i := range all {
		list = append(list, sc.issue(i))
	}
	return list
}

// labelsOf are the labels of an issue in their order.
func (sc *scene) labelsOf(i *issue) []labelJSON {
	list := []labelJSON{}
	for _, name := range i.Labels {
		if l, ok := sc.labels[strings.ToLower(name)]; ok {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b labelJSON) int { return strings.Compare(a.Name, b.Name) })
	return list
}
