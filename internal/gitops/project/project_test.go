package project

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

func parse(t *testing.T, spec string) *v1alpha1.AppProject {
	t.Helper()
	p := &v1alpha1.AppProject{}
	p.Name = "web"
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

func compile(t *testing.T, spec string) *Project {
	t.Helper()
	p, err := Compile(parse(t, spec))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var local = Cluster{Name: "in-cluster", Server: "https://kubernetes.default.svc"}

func TestSources(t *testing.T) {
	for _, c := range []struct {
		repos, url string
		want       bool
	}{
		{`[]`, "https://github.com/a/b", false},
		{`["*"]`, "https://github.com/a/b", true},
		{`["*"]`, "git@github.com:a/b.git", true},
		{`["https://github.com/a/b"]`, "https://github.com/a/b.git", true},
		{`["https://github.com/a/b.git"]`, "https://GitHub.com/A/B", true},
		{`["https://github.com/a/*"]`, "https://github.com/a/b", true},
		{`["https://github.com/a/*"]`, "https://github.com/a/b/c", false}, // * does not cross a slash
		{`["https://github.com/a/**"]`, "https://github.com/a/b/c", true},
		{`["git@github.com:a/b.git"]`, "ssh://git@github.com/a/b", true},
		{`["!https://github.com/a/b", "*"]`, "https://github.com/a/b", false},
		{`["*", "!https://github.com/a/b"]`, "https://github.com/a/b.git", false},
		{`["*", "!https://github.com/a/b"]`, "https://github.com/a/c", true},
		{`["!https://github.com/a/**"]`, "https://github.com/c/d", true}, // a denial permits what it does not match
		{`["!https://github.com/a/**"]`, "https://github.com/a/d/e", false},
		{`["https://github.com/{a,b}/c"]`, "https://github.com/b/c", true},
		{`["https://github.com/[!a]/c"]`, "https://github.com/a/c", false},
		{`["oci://ghcr.io/a/*"]`, "oci://ghcr.io/a/b", true},
	} {
		if got := compile(t, "sourceRepos: "+c.repos).PermitsSource(c.url); got != c.want {
			t.Errorf("%s, %s: %v", c.repos, c.url, got)
		}
	}
}

func TestDestinations(t *testing.T) {
	prod := Cluster{Name: "prod", Server: "https://prod.example.com", Project: "web"}
	for _, c := range []struct {
		spec      string
		cluster   Cluster
		namespace string
		field     string // "" where it is permitted
	}{
		{`destinations: []`, local, "web", "destinations"},
		{`destinations: [{server: "*", namespace: "*"}]`, local, "web", ""},
		{`destinations: [{server: "*", namespace: "*"}]`, local, "", ""},
		{`destinations: [{server: "https://kubernetes.default.svc", namespace: web}]`, local, "web", ""},
		{`destinations: [{server: "https://kubernetes.default.svc", namespace: web}]`, local, "other", "destinations"},
		{`destinations: [{server: "https://kubernetes.default.svc", namespace: web}]`, prod, "web", "destinations"},
		{`destinations: [{name: in-cluster, namespace: "web-*"}]`, local, "web-a", ""},
		{`destinations: [{name: "pr?d", namespace: "*"}]`, prod, "web", ""},
		{`destinations: [{server: "*", namespace: "!kube-system"}]`, local, "web", ""},
		{`destinations: [{server: "*", namespace: "!kube-system"}]`, local, "kube-system", "destinations[0]"},
		{`destinations: [{server: "*", namespace: "*"}, {server: "https://prod.example.com", namespace: "!kube-*"}]`, local, "kube-system", "destinations[1]"}, // whatever the server
		{`destinations: [{server: "*", namespace: "*"}, {server: "!https://prod.*", namespace: "*"}]`, prod, "web", "destinations[1]"},
		{`destinations: [{server: "*", namespace: "*"}, {name: "!prod", namespace: "*"}]`, prod, "web", "destinations[1]"},
		{`destinations: [{server: "*", namespace: "*"}, {name: "!prod", namespace: "*"}]`, local, "web", ""},
		{`{destinations: [{server: "*", namespace: "*"}], permitOnlyProjectScopedClusters: true}`, prod, "web", ""},
		{`{destinations: [{server: "*", namespace: "*"}], permitOnlyProjectScopedClusters: true}`, local, "web", "permitOnlyProjectScopedClusters"},
	} {
		v := compile(t, c.spec).checkDestination(c.cluster, c.namespace)
		if got := fieldOf(v); got != c.field {
			t.Errorf("%s, %s %q: %q, want %q", c.spec, c.cluster.Name, c.namespace, got, c.field)
		}
	}
}

func fieldOf(v *Violation) string {
	if v == nil {
		return ""
	}
	return v.Field
}

func TestApplications(t *testing.T) {
	p := compile(t, `{sourceRepos: ["https://github.com/a/*"], sourceNamespaces: [team-*, /^dev-\d+$/], destinations: [{server: "*", namespace: web}]}`)
	app := func(edit func(*v1alpha1.Application)) *v1alpha1.Application {
		a := &v1alpha1.Application{}
		a.Name, a.Namespace = "shop", "argocd"
		a.Spec.Source = &v1alpha1.ApplicationSource{RepoURL: "https://github.com/a/b"}
		a.Spec.Destination.Namespace = "web"
		edit(a)
		return a
	}
	for _, c := range []struct {
		name string
		edit func(*v1alpha1.Application)
		want []string
	}{
		{"all well", func(*v1alpha1.Application) {}, nil},
		{"namespace by glob", func(a *v1alpha1.Application) { a.Namespace = "team-a" }, nil},
		{"namespace by expression", func(a *v1alpha1.Application) { a.Namespace = "dev-12" }, nil},
		{"namespace", func(a *v1alpha1.Application) { a.Namespace = "dev-x" }, []string{"sourceNamespaces"}},
		{"several sources win over one", func(a *v1alpha1.Application) {
			a.Spec.Source.RepoURL = "https://elsewhere"
			a.Spec.Sources = []*v1alpha1.ApplicationSource{{RepoURL: "https://github.com/a/b"}, {RepoURL: "https://github.com/a/c", Ref: "values"}}
		}, nil},
		{"one of several sources", func(a *v1alpha1.Application) {
			a.Spec.Sources = []*v1alpha1.ApplicationSource{{RepoURL: "https://github.com/a/b"}, {RepoURL: "https://charts.example.com", Chart: "c"}}
		}, []string{"sourceRepos"}},
		{"everything", func(a *v1alpha1.Application) {
			a.Namespace, a.Spec.Source.RepoURL, a.Spec.Destination.Namespace = "x", "y", "z"
		}, []string{"sourceNamespaces", "sourceRepos", "destinations"}},
	} {
		var got []string
		for _, v := range p.CheckApplication(app(c.edit), local, "argocd") {
			got = append(got, v.Field)
		}
		if strings.Join(got, " ") != strings.Join(c.want, " ") {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	v := p.CheckApplication(app(func(a *v1alpha1.Application) { a.Spec.Source.RepoURL = "https://x" }), local, "argocd")[0]
	if want := "AppProject web does not permit the repository https://x (sourceRepos)"; v.Error() != want {
		t.Errorf("%s, want %s", v, want)
	}
}

func TestObjects(t *testing.T) {
	const anywhere = `destinations: [{server: "*", namespace: "web*"}]`
	for _, c := range []struct{ spec, kind, namespace, name, field string }{
		{``, "/ConfigMap", "web", "a", ""}, // without a whitelist every namespaced kind
		{`namespaceResourceWhitelist: []`, "/ConfigMap", "web", "a", "namespaceResourceWhitelist"},
		{`namespaceResourceWhitelist: [{group: "", kind: ConfigMap}]`, "/ConfigMap", "web", "a", ""},
		{`namespaceResourceWhitelist: [{group: "*", kind: "Config*"}]`, "/ConfigMap", "web", "a", ""},
		{`namespaceResourceWhitelist: [{group: apps, kind: "*"}]`, "/ConfigMap", "web", "a", "namespaceResourceWhitelist"},
		{`namespaceResourceBlacklist: [{group: "", kind: Secret}]`, "/Secret", "web", "a", "namespaceResourceBlacklist"},
		{`namespaceResourceBlacklist: [{group: "", kind: Secret}]`, "/ConfigMap", "web", "a", ""},
		{``, "/ConfigMap", "other", "a", "destinations"},
		{``, "/Namespace", "", "web", "clusterResourceWhitelist"}, // without a whitelist no cluster-scoped kind
		{`clusterResourceWhitelist: [{group: "*", kind: "*"}]`, "/Namespace", "", "web", ""},
		{`clusterResourceWhitelist: [{group: "", kind: Namespace, name: "web-*"}]`, "/Namespace", "", "web-a", ""},
		{`clusterResourceWhitelist: [{group: "", kind: Namespace, name: "web-*"}]`, "/Namespace", "", "other", "clusterResourceWhitelist"},
		{`clusterResourceWhitelist: [{group: "*", kind: "*"}], clusterResourceBlacklist: [{group: "", kind: Namespace, name: kube-system}]`, "/Namespace", "", "kube-system", "clusterResourceBlacklist"},
		{`clusterResourceWhitelist: [{group: "*", kind: "*"}], clusterResourceBlacklist: [{group: "", kind: Namespace, name: kube-system}]`, "/Namespace", "", "web", ""},
		{`clusterResourceWhitelist: [{group: rbac.*, kind: ClusterRole}]`, "rbac.authorization.k8s.io/ClusterRole", "", "a", ""},
	} {
		spec := "{" + anywhere + "}"
		if c.spec != "" {
			spec = "{" + anywhere + ", " + c.spec + "}"
		}
		group, kind, _ := strings.Cut(c.kind, "/")
		v := compile(t, spec).CheckObject(schema.GroupVersionKind{Group: group, Version: "v1", Kind: kind}, c.namespace, c.name, local)
		if fieldOf(v) != c.field {
			t.Errorf("%s: %s %s/%s: %q, want %q", c.spec, c.kind, c.namespace, c.name, fieldOf(v), c.field)
		}
	}
}

func TestBadProjects(t *testing.T) {
	for spec, want := range map[string]string{
		`sourceRepos: ["https://[x"]`:                                                              "spec.sourceRepos[0]",
		`sourceRepos: ["!*"]`:                                                                      "denies everything",
		`destinations: [{server: "*", namespace: "{a"}]`:                                           "spec.destinations[0].namespace",
		`sourceNamespaces: ["/(/"]`:                                                                "spec.sourceNamespaces[0]",
		`clusterResourceWhitelist: [{group: "[", kind: "*"}]`:                                      "spec.clusterResourceWhitelist[0].group",
		`syncWindows: [{kind: maybe, schedule: "* * * * *", duration: 1h}]`:                        "syncWindows[0].kind",
		`syncWindows: [{kind: deny, schedule: "61 * * * *", duration: 1h}]`:                        "syncWindows[0].schedule",
		`syncWindows: [{kind: deny, schedule: "TZ=Asia/Tokyo 1 * * * *", duration: 1h}]`:           "timeZone",
		`syncWindows: [{kind: deny, schedule: "1 * * * *", duration: soon}]`:                       "syncWindows[0].duration",
		`syncWindows: [{kind: deny, schedule: "1 * * * *", duration: -1h}]`:                        "syncWindows[0].duration",
		`syncWindows: [{kind: deny, schedule: "1 * * * *", duration: 1h, timeZone: Mars/Base}]`:    "syncWindows[0].timeZone",
		`destinationServiceAccounts: [{server: "*", namespace: "*", defaultServiceAccount: "a*"}]`: "defaultServiceAccount",
		`destinationServiceAccounts: [{server: "!x", defaultServiceAccount: a}]`:                   "cannot deny",
		`signatureKeys: [{keyID: xyz}]`:                                                            "spec.signatureKeys[0]",
		`sourceIntegrity: {git: {policies: [{repos: [{url: "*"}], gpg: {mode: strict}}]}}`:         "not supported; use head",
		`sourceIntegrity: {git: {policies: [{repos: [{url: "*"}]}]}}`:                              "gpg: is missing",
		`sourceIntegrity: {helm: {policies: []}}`:                                                  "provenance of charts",
	} {
		_, err := Compile(parse(t, spec))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "AppProject web") {
			t.Errorf("%s: %v, want %q", spec, err, want)
		}
	}
}

func TestGlobals(t *testing.T) {
	globals, err := ParseGlobals(`
- projectName: base
  labelSelector: {matchExpressions: [{key: tier, operator: In, values: [prod]}]}
- projectName: missing
  labelSelector: {matchLabels: {tier: dev}}
`)
	if err != nil {
		t.Fatal(err)
	}
	base := parse(t, `{sourceRepos: [b], namespaceResourceBlacklist: [{group: "", kind: Secret}], destinations: [{server: "*", namespace: b}], syncWindows: [{kind: deny, schedule: "* * * * *", duration: 1m, applications: ["*"]}], roles: [{name: r}]}`)
	base.Name = "base"
	find := func(name string) (*v1alpha1.AppProject, bool) { return base, name == "base" }
	p := parse(t, `{sourceRepos: [a], destinations: [{server: "*", namespace: a}]}`)
	if got, err := Merge(p, globals, find); err != nil || len(got.Spec.SourceRepos) != 1 {
		t.Errorf("not selected: %+v, %v", got, err)
	}
	p.Labels = map[string]string{"tier": "prod"}
	got, err := Merge(p, globals, find)
	if err != nil {
		t.Fatal(err)
	}
	s := got.Spec
	if strings.Join(s.SourceRepos, " ") != "a b" || len(s.Destinations) != 2 || len(s.NamespaceResourceBlacklist) != 1 || len(s.SyncWindows) != 1 || len(s.Roles) != 0 || s.NamespaceResourceWhitelist != nil {
		t.Errorf("%+v", s)
	}
	if len(p.Spec.SourceRepos) != 1 {
		t.Error("the project itself was changed")
	}
	if got, err := Merge(base, globals, find); err != nil || len(got.Spec.SourceRepos) != 1 {
		t.Error("a global project inherits from itself")
	}
	p.Labels = map[string]string{"tier": "dev"}
	if _, err := Merge(p, globals, find); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a global project that does not exist: %v", err)
	}
	for _, bad := range []string{"{", "- labelSelector: {}", "- {projectName: a, labelSelector: {matchExpressions: [{key: a, operator: Maybe}]}}"} {
		if _, err := ParseGlobals(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestOrphans(t *testing.T) {
	live := []Key{
		{"", "ConfigMap", "web", "kube-root-ca.crt"}, {"", "ServiceAccount", "web", "default"}, {"", "Service", "default", "kubernetes"},
		{"", "ConfigMap", "web", "mine"}, {"", "ConfigMap", "web", "lost"}, {"", "Secret", "web", "denied"}, {"cert-manager.io", "Certificate", "web", "tls-a"}, {"", "Service", "web", "kubernetes"},
	}
	owned := func(k Key) bool { return k.Name == "mine" }
	p := compile(t, `{orphanedResources: {warn: true, ignore: [{group: cert-manager.io, kind: Certificate, name: "tls-*"}]}, namespaceResourceBlacklist: [{group: "", kind: Secret}]}`)
	got := p.Orphans(live, owned)
	if len(got) != 2 || got[0].Name != "lost" || got[1].Name != "kubernetes" {
		t.Errorf("%v", got)
	}
	if look, warn := p.Monitored(); !look || !warn {
		t.Error("not monitored")
	}
	if look, warn := compile(t, `orphanedResources: {}`).Monitored(); !look || warn {
		t.Error("an empty orphanedResources looks, and does not warn")
	}
	if got := compile(t, `orphanedResources: {ignore: [{kind: ConfigMap}]}`).Orphans(live, owned); len(got) != 3 {
		t.Errorf("ignoring a kind of the core group leaves %v", got)
	}
	if compile(t, `{}`).Orphans(live, owned) != nil {
		t.Error("orphans are looked for without orphanedResources")
	}
}

func TestRoles(t *testing.T) {
	p := compile(t, `
roles:
- name: ci
  groups: [deployers]
  policies:
  - p, proj:web:ci, applications, sync, web/*, allow
  - p, proj:web:ci, applications, *, web/dev-*, allow
  - p, proj:web:ci, applications, sync, web/prod, deny
  - p, proj:web:ci, applications, action/apps/Deployment/restart, web/*, allow
- name: broken
  groups: [deployers]
  policies: ["p, proj:web:broken, applications, *, */*, allow", "p, proj:web:broken, applications, *, web/*, allow"]
`)
	if len(p.Warnings()) != 1 || !strings.Contains(p.Warnings()[0], "roles[1].policies[0]") {
		t.Errorf("warnings: %v", p.Warnings())
	}
	for _, c := range []struct {
		subject, group, resource, action, object string
		want                                     bool
	}{
		{"proj:web:ci", "", "applications", "sync", "web/shop", true},
		{"ada", "deployers", "applications", "sync", "web/shop", true},
		{"deployers", "", "applications", "sync", "web/shop", true},
		{"ada", "", "applications", "sync", "web/shop", false},
		{"proj:web:ci", "", "applications", "sync", "web/prod", false},
		{"proj:web:ci", "", "applications", "delete", "web/shop", false},
		{"proj:web:ci", "", "applications", "delete", "web/dev-a", true},
		{"proj:web:ci", "", "applications", "action/apps/Deployment/restart", "web/shop", true},
		{"proj:web:ci", "", "applications", "action/apps/Deployment/stop", "web/shop", false},
		{"proj:web:ci", "", "projects", "get", "web", true},
		{"proj:web:ci", "", "projects", "get", "other", false},
		{"proj:other:ci", "", "applications", "sync", "web/shop", false},
		{"proj:web:broken", "", "applications", "sync", "web/shop", false},
	} {
		if got := p.Allows(c.subject, []string{c.group}, c.resource, c.action, c.object); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if got := p.Roles([]string{"deployers"}); len(got) != 1 || got[0] != "ci" {
		t.Errorf("roles: %v", got)
	}
}

func TestServiceAccounts(t *testing.T) {
	p := compile(t, `destinationServiceAccounts: [{server: "https://prod*", namespace: web, defaultServiceAccount: deployer}, {server: "https://kubernetes.default.svc", namespace: "*", defaultServiceAccount: "ops:robot"}]`)
	for _, c := range []struct{ server, namespace, want string }{
		{"https://prod.example.com", "web", "system:serviceaccount:web:deployer"},
		{"https://kubernetes.default.svc", "x", "system:serviceaccount:ops:robot"},
		{"https://kubernetes.default.svc", "", "system:serviceaccount:ops:robot"},
		{"https://prod.example.com", "x", ""},
	} {
		got, err := p.ServiceAccount(Cluster{Server: c.server}, c.namespace, "argocd")
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s %s: %s, %v", c.server, c.namespace, got, err)
		}
	}
	if compile(t, `{}`).Impersonates() || !p.Impersonates() {
		t.Error("Impersonates")
	}
}

// TestGlobNeverFails: a pattern either is refused or matches without trouble,
// and text without special characters matches itself only.
func TestGlobNeverFails(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[a-c*?/{},!\[\]\\^.-]{0,12}`).Draw(t, "pattern")
		value := rapid.StringMatching(`[a-c/.-]{0,8}`).Draw(t, "value")
		for _, separator := range []byte{0, '/'} {
			m, err := glob(pattern, separator)
			if err != nil {
				continue
			}
			got := m.match(value)
			if !strings.ContainsAny(pattern, `*?[]{}\`) && got != (pattern == value) {
				t.Fatalf("%q matches %q: %v", pattern, value, got)
			}
		}
	})
}
