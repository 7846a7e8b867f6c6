package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

func mac(secret, body string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(body))
	return hex.EncodeToString(h.Sum(nil))
}

var secrets = Secrets{GitHub: "gh", GitLab: "gl", Gogs: "gg", BitbucketUUID: "{abc-1}", BitbucketServer: "bs", AzureUser: "u", AzurePassword: "p"}

const hub = `{"ref":"refs/heads/main","before":"b","after":"a","repository":{"html_url":"https://h/o/r","clone_url":"https://h/o/r.git","ssh_url":"git@h:o/r.git","default_branch":"main"}}`

var cases = []struct {
	name   string
	header map[string]string
	body   string
	want   []Event
	forged string // header that a forged request has another value of
}{
	{"github", map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + mac("gh", hub)}, hub,
		[]Event{{"github", []string{"https://h/o/r", "https://h/o/r.git", "git@h:o/r.git"}, "refs/heads/main", "b", "a", "refs/heads/main"}}, "X-Hub-Signature-256"},
	{"github form", map[string]string{"X-GitHub-Event": "push", "Content-Type": "application/x-www-form-urlencoded", "X-Hub-Signature-256": "sha256=" + mac("gh", "payload="+url.QueryEscape(hub))}, "payload=" + url.QueryEscape(hub),
		[]Event{{"github", []string{"https://h/o/r", "https://h/o/r.git", "git@h:o/r.git"}, "refs/heads/main", "b", "a", "refs/heads/main"}}, "X-Hub-Signature-256"},
	{"github ping", map[string]string{"X-GitHub-Event": "ping", "X-Hub-Signature-256": "sha256=" + mac("gh", "{}")}, "{}", nil, "X-Hub-Signature-256"},
	{"gitea", map[string]string{"X-Gitea-Event": "push", "X-GitHub-Event": "push", "X-Gogs-Event": "push", "X-Gitea-Signature": mac("gg", hub)}, hub,
		[]Event{{"gitea", []string{"https://h/o/r", "https://h/o/r.git", "git@h:o/r.git"}, "refs/heads/main", "b", "a", "refs/heads/main"}}, "X-Gitea-Signature"},
	{"gogs", map[string]string{"X-Gogs-Event": "push", "X-Gogs-Signature": mac("gg", hub)}, hub,
		[]Event{{"gogs", []string{"https://h/o/r", "https://h/o/r.git", "git@h:o/r.git"}, "refs/heads/main", "b", "a", "refs/heads/main"}}, "X-Gogs-Signature"},
	{"gitlab", map[string]string{"X-Gitlab-Event": "Tag Push Hook", "X-Gitlab-Token": "gl"},
		`{"object_kind":"tag_push","ref":"refs/tags/v1","before":"b","after":"a","project":{"web_url":"https://g/o/r","git_ssh_url":"git@g:o/r.git","default_branch":"dev"}}`,
		[]Event{{"gitlab", []string{"https://g/o/r", "git@g:o/r.git"}, "refs/tags/v1", "b", "a", "refs/heads/dev"}}, "X-Gitlab-Token"},
	{"gitlab issue", map[string]string{"X-Gitlab-Event": "Issue Hook", "X-Gitlab-Token": "gl"}, `{"object_kind":"issue"}`, nil, "X-Gitlab-Token"},
	{"bitbucket", map[string]string{"X-Event-Key": "repo:push", "X-Hook-UUID": "abc-1"},
		`{"push":{"changes":[{"old":null,"new":{"name":"v1","type":"tag","target":{"hash":"a"}}},{"old":{"name":"x","type":"branch","target":{"hash":"b"}},"new":null}]},"repository":{"full_name":"o/r","links":{"html":{"href":"https://bitbucket.org/o/r"}}}}`,
		[]Event{{"bitbucket", []string{"https://bitbucket.org/o/r"}, "refs/tags/v1", strings.Repeat("0", 40), "a", ""}, {"bitbucket", []string{"https://bitbucket.org/o/r"}, "refs/heads/x", "b", strings.Repeat("0", 40), ""}}, "X-Hook-UUID"},
	{"bitbucket server", map[string]string{"X-Event-Key": "repo:refs_changed", "X-Hub-Signature": "sha256=" + mac("bs", server)}, server,
		[]Event{{"bitbucket-server", []string{"https://s/scm/p/r.git", "ssh://git@s:7999/p/r.git"}, "refs/heads/main", "b", "a", ""}}, "X-Hub-Signature"},
	{"azure", map[string]string{"X-Vss-Activityid": "1", "Authorization": "Basic dTpw"},
		`{"eventType":"git.push","resource":{"refUpdates":[{"name":"refs/heads/main","oldObjectId":"b","newObjectId":"a"}],"repository":{"remoteUrl":"https://dev.azure.com/o/p/_git/r","defaultBranch":"refs/heads/main"}}}`,
		[]Event{{"azure-devops", []string{"https://dev.azure.com/o/p/_git/r"}, "refs/heads/main", "b", "a", "refs/heads/main"}}, "Authorization"},
}

const server = `{"changes":[{"ref":{"id":"refs/heads/main"},"fromHash":"b","toHash":"a"}],"repository":{"links":{"clone":[{"href":"https://s/scm/p/r.git"},{"href":"ssh://git@s:7999/p/r.git"}]}}}`

func headers(m map[string]string) http.Header {
	h := http.Header{}
	for k, v := range m {
		h.Set(k, v)
	}
	return h
}

func TestParse(t *testing.T) {
	for _, c := range cases {
		got, err := Parse(headers(c.header), []byte(c.body), secrets)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
		if got, err := Parse(headers(c.header), []byte(c.body), Secrets{}); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s without secrets: %+v, %v", c.name, got, err)
		}
		for _, bad := range []string{"", "sha256=00", "Basic dTpx", "zz"} {
			h := headers(c.header)
			h.Set(c.forged, bad)
			if bad == "" {
				h.Del(c.forged)
			}
			if got, err := Parse(h, []byte(c.body), secrets); err == nil {
				t.Errorf("%s forged with %q: %+v", c.name, bad, got)
			}
		}
	}
	if _, err := Parse(http.Header{}, []byte("{}"), secrets); !errors.Is(err, ErrUnknown) {
		t.Errorf("no host: %v", err)
	}
	if fmt.Sprintf("%v %+v %#v", secrets, secrets, secrets) != "webhook secrets webhook secrets webhook secrets" {
		t.Error("the secrets are shown")
	}
}

func TestHandler(t *testing.T) {
	var got []Event
	h := Handler(slog.New(slog.DiscardHandler), func() Secrets { return secrets }, func(e Event) { got = append(got, e) })
	call := func(method string, header map[string]string, body string) int {
		r := httptest.NewRequest(method, "/api/webhook", strings.NewReader(body))
		r.Header = headers(header)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	push := cases[0]
	if code := call("POST", push.header, push.body); code != 200 || len(got) != 1 {
		t.Errorf("push: %d, %v", code, got)
	}
	for want, c := range map[int][3]string{405: {"GET"}, 400: {"POST", "X-Nothing", "{}"}, 401: {"POST", "X-GitHub-Event", hub}} {
		if code := call(c[0], map[string]string{c[1] + "X": "", c[1]: "push"}, c[2]); code != want {
			t.Errorf("%v: %d, want %d", c, code, want)
		}
	}
	if code := call("POST", push.header, push.body+" "); code != 401 {
		t.Errorf("changed body: %d", code)
	}
	if len(got) != 1 {
		t.Errorf("events: %v", got)
	}
}

func FuzzParse(f *testing.F) {
	for i, c := range cases {
		f.Add(i, []byte(c.body))
	}
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		c := cases[uint(i)%uint(len(cases))]
		events, err := Parse(headers(c.header), body, Secrets{})
		if err != nil && len(events) > 0 {
			t.Error("events with an error")
		}
	})
}
