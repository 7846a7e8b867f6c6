// Package webhook reads what Git hosts say when somebody pushes.
//
// Input: the headers and body of a request of GitHub, GitLab, Gitea (Forgejo,
// Gogs), Bitbucket, Bitbucket Server or Azure DevOps, and the secrets of
// argocd-secret. Output: [Event], which repository and refs moved.
//
// Invariants: a request is believed only when it proves the secret of its
// host, if there is one; an event is a hint to look at the repository, never
// what is read from it.
//
// Start reading at [Parse].
package webhook

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"strings"
)

// ErrForged says that a request does not prove the secret.
var ErrForged = errors.New("the webhook's signature or token is not right; check webhook.* in argocd-secret")

// ErrUnknown says that no known host sends such requests.
var ErrUnknown = errors.New("not a webhook of GitHub, GitLab, Gitea, Bitbucket or Azure DevOps")

// Event is one ref that moved. Before and After are "" when the host does not
// say, and zeroes when there is none.
type Event struct {
	Host          string   // "github", "gitlab", "gitea", "gogs", "bitbucket", "bitbucket-server", "azure-devops"
	URLs          []string // by which the repository may be known
	Ref           string   // full name; "" when it is not known: anything may have moved
	Before, After string
	DefaultBranch string // full name, "" when the host does not say
}

// Secrets prove who sends. An empty one is not asked for.
type Secrets struct {
	GitHub, GitLab, Gogs, BitbucketUUID, BitbucketServer string // Gogs is for Gitea as well
	AzureUser, AzurePassword                             string
}

// SecretsOf reads the data of argocd-secret.
func SecretsOf(data map[string][]byte) Secrets {
	get := func(key string) string { return strings.TrimSpace(string(data[key])) }
	return Secrets{
		GitHub: get("webhook.github.secret"), GitLab: get("webhook.gitlab.secret"), Gogs: get("webhook.gogs.secret"),
		BitbucketUUID: get("webhook.bitbucket.uuid"), BitbucketServer: get("webhook.bitbucketserver.secret"),
		AzureUser: get("webhook.azuredevops.username"), AzurePassword: get("webhook.azuredevops.password"),
	}
}

// String hides the values.
func (Secrets) String() string { return "webhook secrets" }

// GoString hides the values.
func (Secrets) GoString() string { return "webhook secrets" }

// Parse returns what a request says. Events that are no pushes are none.
func Parse(header http.Header, body []byte, s Secrets) ([]Event, error) {
	has := func(name string) bool { return header.Get(name) != "" }
	switch { // Gitea also sends the headers of GitHub and Gogs
	case has("X-Gitea-Event"), has("X-Forgejo-Event"):
		return gitea(header, body, s, "gitea", first(header.Get("X-Gitea-Signature"), header.Get("X-Forgejo-Signature")))
	case has("X-Gogs-Event"):
		return gitea(header, body, s, "gogs", header.Get("X-Gogs-Signature"))
	case has("X-Github-Event"):
		return github(header, body, s)
	case has("X-Gitlab-Event"):
		return gitlab(header, body, s)
	case has("X-Hook-Uuid"):
		return bitbucket(header, body, s)
	case has("X-Event-Key"):
		return bitbucketServer(header, body, s)
	case has("X-Vss-Activityid"):
		return azure(header, body, s)
	}
	return nil, ErrUnknown
}

// signed checks an HMAC in hexadecimal digits.
func signed(body []byte, secret, signature string, kind func() hash.Hash) error {
	if secret == "" {
		return nil
	}
	got, err := hex.DecodeString(signature)
	mac := hmac.New(kind, []byte(secret))
	mac.Write(body)
	if err != nil || !hmac.Equal(got, mac.Sum(nil)) {
		return ErrForged
	}
	return nil
}

func same(secret, got string) error {
	if secret == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(got)) == 1 {
		return nil
	}
	return ErrForged
}

func decode(body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the body of the webhook is not what it should be: %w", err)
	}
	return nil
}

func branch(name string) string {
	if name == "" || strings.HasPrefix(name, "refs/") {
		return name
	}
	return "refs/heads/" + name
}

func urls(all ...string) []string {
	var out []string
	for _, u := range all {
		if u != "" {
			out = append(out, u)
		}
	}
	return out
}

func github(header http.Header, body []byte, s Secrets) ([]Event, error) {
	var err error
	if sig, ok := strings.CutPrefix(header.Get("X-Hub-Signature-256"), "sha256="); ok {
		err = signed(body, s.GitHub, sig, sha256.New)
	} else {
		err = signed(body, s.GitHub, strings.TrimPrefix(header.Get("X-Hub-Signature"), "sha1="), sha1.New)
	}
	if err != nil {
		return nil, err
	}
	return hubPush(header, body, "github", header.Get("X-Github-Event"))
}

func gitea(header http.Header, body []byte, s Secrets, host, signature string) ([]Event, error) {
	if err := signed(body, s.Gogs, signature, sha256.New); err != nil {
		return nil, err
	}
	return hubPush(header, body, host, first(header.Get("X-Gitea-Event"), header.Get("X-Forgejo-Event"), header.Get("X-Gogs-Event")))
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// hubPush reads the form of GitHub, which others have taken.
func hubPush(header http.Header, body []byte, host, event string) ([]Event, error) {
	if event != "push" {
		return nil, nil
	}
	if strings.HasPrefix(header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, errors.New("the body of the webhook is no form")
		}
		body = []byte(form.Get("payload"))
	}
	var p struct {
		Ref, Before, After string
		Repository         struct {
			HTMLURL       string `json:"html_url"`
			CloneURL      string `json:"clone_url"`
			SSHURL        string `json:"ssh_url"`
			DefaultBranch string `json:"default_branch"`
		}
	}
	if err := decode(body, &p); err != nil {
		return nil, err
	}
	return []Event{{
		Host: host, URLs: urls(p.Repository.HTMLURL, p.Repository.CloneURL, p.Repository.SSHURL),
		Ref: branch(p.Ref), Before: p.Before, After: p.After, DefaultBranch: branch(p.Repository.DefaultBranch),
	}}, nil
}

func gitlab(header http.Header, body []byte, s Secrets) ([]Event, error) {
	if err := same(s.GitLab, header.Get("X-Gitlab-Token")); err != nil {
		return nil, err
	}
	var p struct {
		Kind               string `json:"object_kind"`
		Event              string `json:"event_name"`
		Ref, Before, After string
		Project            struct {
			WebURL        string `json:"web_url"`
			HTTP          string `json:"git_http_url"`
			SSH           string `json:"git_ssh_url"`
			DefaultBranch string `json:"default_branch"`
		}
	}
	if err := decode(body, &p); err != nil {
		return nil, err
	}
	switch {
	case p.Kind == "push", p.Kind == "tag_push", p.Event == "push", p.Event == "tag_push":
	default:
		return nil, nil
	}
	return []Event{{
		Host: "gitlab", URLs: urls(p.Project.WebURL, p.Project.HTTP, p.Project.SSH),
		Ref: branch(p.Ref), Before: p.Before, After: p.After, DefaultBranch: branch(p.Project.DefaultBranch),
	}}, nil
}

func bitbucket(header http.Header, body []byte, s Secrets) ([]Event, error) {
	if err := same(strings.Trim(s.BitbucketUUID, "{}"), strings.Trim(header.Get("X-Hook-Uuid"), "{}")); err != nil {
		return nil, err
	}
	if header.Get("X-Event-Key") != "repo:push" {
		return nil, nil
	}
	type state struct {
		Name, Type string
		Target     struct{ Hash string }
	}
	var p struct {
		Push struct {
			Changes []struct{ New, Old *state }
		}
		Repository struct {
			FullName string `json:"full_name"`
			Links    struct{ HTML struct{ Href string } }
		}
	}
	if err := decode(body, &p); err != nil {
		return nil, err
	}
	web := p.Repository.Links.HTML.Href
	list := urls(web)
	if web == "" && p.Repository.FullName != "" {
		list = []string{"https://bitbucket.org/" + p.Repository.FullName}
	}
	var events []Event
	for _, c := range p.Push.Changes {
		e := Event{Host: "bitbucket", URLs: list}
		for _, side := range []struct {
			state *state
			id    *string
		}{{c.Old, &e.Before}, {c.New, &e.After}} {
			if side.state == nil {
				*side.id = strings.Repeat("0", 40)
				continue
			}
			*side.id = side.state.Target.Hash
			e.Ref = "refs/heads/" + side.state.Name
			if strings.HasSuffix(side.state.Type, "tag") {
				e.Ref = "refs/tags/" + side.state.Name
			}
		}
		events = append(events, e)
	}
	return events, nil
}

func bitbucketServer(header http.Header, body []byte, s Secrets) ([]Event, error) {
	if err := signed(body, s.BitbucketServer, strings.TrimPrefix(header.Get("X-Hub-Signature"), "sha256="), sha256.New); err != nil {
		return nil, err
	}
	if header.Get("X-Event-Key") != "repo:refs_changed" {
		return nil, nil
	}
	var p struct {
		Changes []struct {
			Ref              struct{ ID string }
			FromHash, ToHash string
		}
		Repository struct {
			Links struct {
				Clone []struct{ Href string }
				Self  []struct{ Href string }
			}
		}
	}
	if err := decode(body, &p); err != nil {
		return nil, err
	}
	var list []string
	for _, l := range p.Repository.Links.Clone {
		list = append(list, urls(l.Href)...)
	}
	for _, l := range p.Repository.Links.Self {
		list = append(list, urls(l.Href)...)
	}
	var events []Event
	for _, c := range p.Changes {
		events = append(events, Event{Host: "bitbucket-server", URLs: list, Ref: branch(c.Ref.ID), Before: c.FromHash, After: c.ToHash})
	}
	return events, nil
}

func azure(header http.Header, body []byte, s Secrets) ([]Event, error) {
	if s.AzureUser != "" || s.AzurePassword != "" {
		user, password, _ := (&http.Request{Header: header}).BasicAuth()
		if same(s.AzureUser+"\x00"+s.AzurePassword, user+"\x00"+password) != nil {
			return nil, ErrForged
		}
	}
	var p struct {
		EventType string
		Resource  struct {
			RefUpdates []struct{ Name, OldObjectID, NewObjectID string }
			Repository struct{ RemoteURL, WebURL, SSHURL, DefaultBranch string }
		}
	}
	if err := decode(body, &p); err != nil {
		return nil, err
	}
	if p.EventType != "git.push" {
		return nil, nil
	}
	r := p.Resource.Repository
	var events []Event
	for _, u := range p.Resource.RefUpdates {
		events = append(events, Event{
			Host: "azure-devops", URLs: urls(r.RemoteURL, r.WebURL, r.SSHURL), Ref: branch(u.Name),
			Before: u.OldObjectID, After: u.NewObjectID, DefaultBranch: branch(r.DefaultBranch),
		})
	}
	return events, nil
}
