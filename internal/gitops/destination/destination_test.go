package destination

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

const hidden = "s3cr3t-v4lue"

func secret(name, server, config string) Secret {
	return Secret{Namespace: "argocd", Name: "cluster-" + name, Data: map[string][]byte{"name": []byte(name), "server": []byte(server), "config": []byte(config)}}
}

var local = &rest.Config{Host: "https://127.0.0.1:6443"}

func TestParse(t *testing.T) {
	s := secret("prod", "https://prod.example.com:6443/", `{"bearerToken":"`+hidden+`","tlsClientConfig":{"insecure":true,"serverName":"api"},"proxyUrl":"http://u:`+hidden+`@proxy:3128","disableCompression":true}`)
	s.Data["namespaces"], s.Data["clusterResources"], s.Data["project"], s.Data["shard"] = []byte("a, b,"), []byte("true"), []byte("web"), []byte("1")
	c, err := Parse(s, local)
	if err != nil {
		t.Fatal(err)
	}
	if c.Server != "https://prod.example.com:6443" || c.Project != "web" || strings.Join(c.Namespaces, "+") != "a+b" || !c.ClusterResources || c.Secret != "argocd/cluster-prod" {
		t.Errorf("%+v", c)
	}
	if r := c.Config; r.Host != c.Server || r.BearerToken != hidden || !r.Insecure || r.ServerName != "api" || r.Proxy == nil || !r.DisableCompression || r.QPS != -1 {
		t.Error("the configuration lacks something")
	}
	for namespace, want := range map[string]bool{"a": true, "c": false, "": true} {
		if c.Permits(namespace) != want {
			t.Errorf("Permits(%q) is %v", namespace, !want)
		}
	}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "cluster", c)
	for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%v", *c), logged.String()} {
		if strings.Contains(text, hidden) {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestExec(t *testing.T) {
	c, err := Parse(secret("eks", "https://eks", `{"awsAuthConfig":{"clusterName":"x"},"execProviderConfig":{"command":"aws","args":["eks","get-token"],"env":{"B":"2","A":"1"},"apiVersion":"client.authentication.k8s.io/v1"}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	e := c.Config.ExecProvider
	if e == nil || e.Command != "aws" || len(e.Env) != 2 || e.Env[0].Name != "A" || e.InteractiveMode == "" {
		t.Errorf("%+v", e)
	}
}

func TestBadSecrets(t *testing.T) {
	for _, c := range []struct{ server, config, want string }{
		{"", `{}`, "server is missing"},
		{"prod", `{}`, "server is not an address"},
		{"https://ada:" + hidden + "@prod", `{}`, "must not have credentials"},
		{"https://prod", `{"bearerToken":"` + hidden + `"`, "not JSON"},
		{"https://prod", `{"bearerToken":["` + hidden + `"]}`, "bearerToken is not a string"},
		{"https://prod", `{"tlsClientConfig":{"insecure":"` + hidden + `"}}`, "tlsClientConfig.insecure is not a bool"},
		{"https://prod", `{"tlsClientConfig":{"caData":"!` + hidden + `!"}}`, "base64"},
		{"https://prod", `{"tlsClientConfig":{"caData":"` + base64.StdEncoding.EncodeToString([]byte(hidden)) + `"}}`, "not PEM"},
		{"https://prod", `{"tlsClientConfig":{"caData":"YQ==","insecure":true}}`, "both insecure and caData"},
		{"https://prod", `{"tlsClientConfig":{"certData":"YQ=="}}`, "certData and keyData together"},
		{"https://prod", `{"awsAuthConfig":{"clusterName":"x"}}`, "awsAuthConfig is not supported"},
		{"https://prod", `{"execProviderConfig":{}}`, "command is missing"},
		{"https://prod", `{"execProviderConfig":{"command":"x"}}`, "apiVersion is missing"},
		{"https://prod", `{"bearerToken":"` + hidden + `","username":"ada"}`, "both bearerToken and username"},
		{"https://prod", `{"proxyUrl":"ftp://` + hidden + `"}`, "proxyUrl"},
		{"https://prod", `{"proxyUrl":"http://%` + hidden + `"}`, "proxyUrl"},
		{"https://prod", strings.Repeat(" ", maxSecret) + `{}`, "at most"},
	} {
		_, err := Parse(secret("prod", c.server, c.config), local)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: %v, want %q", c.config, err, c.want)
		} else if strings.Contains(err.Error(), hidden) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func TestFind(t *testing.T) {
	set := NewSet(local, []Secret{
		secret("prod", "https://prod", `{}`), secret("twin", "https://b", `{}`), secret("twin2", "https://a", `{}`),
		secret("broken", "https://broken", `{`), secret("copy", "https://prod/", `{}`),
	})
	twins := NewSet(local, []Secret{{Namespace: "argocd", Name: "a", Data: map[string][]byte{"name": []byte("twin"), "server": []byte("https://a")}}, {Namespace: "argocd", Name: "b", Data: map[string][]byte{"name": []byte("twin"), "server": []byte("https://b")}}})
	for _, c := range []struct {
		set    *Set
		d      v1alpha1.Destination
		server string
		err    string
	}{
		{set, v1alpha1.Destination{Server: LocalServer}, LocalServer, ""},
		{set, v1alpha1.Destination{Server: LocalServer + "/"}, LocalServer, ""},
		{set, v1alpha1.Destination{Name: LocalName}, LocalServer, ""},
		{set, v1alpha1.Destination{Name: "twin"}, "https://b", ""},
		{set, v1alpha1.Destination{Server: "https://a/"}, "https://a", ""},
		{set, v1alpha1.Destination{}, "", "names no cluster"},
		{set, v1alpha1.Destination{Name: "prod", Server: "https://prod"}, "", "twice"},
		{set, v1alpha1.Destination{Name: "nowhere"}, "", "no cluster named nowhere"},
		{set, v1alpha1.Destination{Server: "https://ada:" + hidden + "@nowhere"}, "", "there is no cluster https://ada:xxxxx@nowhere"},
		{set, v1alpha1.Destination{Name: "broken"}, "", "cluster Secret argocd/cluster-broken: config is not JSON"},
		{set, v1alpha1.Destination{Server: "https://broken"}, "", "cluster Secret argocd/cluster-broken"},
		{twins, v1alpha1.Destination{Name: "twin"}, "", "2 clusters are named twin (https://a, https://b)"},
		{NewSet(nil, nil), v1alpha1.Destination{Name: LocalName}, "", "no cluster named in-cluster"},
	} {
		got, err := c.set.Find(c.d)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: %v, want %q", c.d, err, c.err)
			}
			continue
		}
		if err != nil || got.Server != c.server {
			t.Errorf("%+v: %v, %v", c.d, got, err)
		}
	}
	// Of two Secrets for one server the first by name counts.
	if c, err := set.Find(v1alpha1.Destination{Server: "https://prod"}); err != nil || c.Secret != "argocd/cluster-copy" {
		t.Errorf("%v, %v", c, err)
	}
	if len(set.Problems()) != 2 || len(set.All()) != 4 {
		t.Errorf("%v, %v", set.Problems(), set.All())
	}
}

func TestLocalClusterWithSecret(t *testing.T) {
	named := secret("home", LocalServer, `{"tlsClientConfig":{"insecure":false}}`)
	named.Labels = map[string]string{"env": "dev"}
	set := NewSet(local, []Secret{named})
	for _, d := range []v1alpha1.Destination{{Server: LocalServer}, {Name: "home"}, {Name: LocalName}} {
		if c, err := set.Find(d); err != nil || c.Config != local || c.Labels["env"] != "dev" {
			t.Errorf("%+v: %v, %v", d, c, err)
		}
	}
	if _, err := NewSet(nil, []Secret{named}).Find(v1alpha1.Destination{Server: LocalServer}); err == nil || !strings.Contains(err.Error(), "inClusterEnabled") {
		t.Errorf("a local cluster that must not be used: %v", err)
	}
}

func TestSecretOf(t *testing.T) {
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"c","namespace":"argocd","uid":"u","resourceVersion":"7","labels":{"argocd.argoproj.io/secret-type":"cluster","env":"prod"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"`+hidden+`","note":"x"}},"data":{"name":"cHJvZA==","server":"aHR0cHM6Ly9wcm9k","config":"e30="}}`), &o.Object); err != nil {
		t.Fatal(err)
	}
	s, ok := SecretOf(o)
	if !ok {
		t.Fatal("not taken for a cluster")
	}
	c, err := Parse(s, nil)
	if err != nil || c.Name != "prod" || c.Server != "https://prod" || c.Version != "u/7" || c.Labels["env"] != "prod" || len(c.Annotations) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	o.SetLabels(map[string]string{SecretTypeLabel: "repository"})
	if _, ok := SecretOf(o); ok {
		t.Error("a repository is taken for a cluster")
	}
}

// TestConfigReachesACluster makes a request with what Parse gives.
func TestConfigReachesACluster(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+hidden {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	ca := "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(server.Certificate().Raw) + "\n-----END CERTIFICATE-----\n"
	c, err := Parse(secret("prod", server.URL, `{"bearerToken":"`+hidden+`","tlsClientConfig":{"caData":"`+base64.StdEncoding.EncodeToString([]byte(ca))+`"}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("https://prod:6443/", `{"username":"a","password":"b","tlsClientConfig":{"insecure":true}}`, "a,b")
	f.Add("http://[::1]", `{"execProviderConfig":{"command":"x","args":null,"env":{"":""},"apiVersion":"v1"}}`, ",")
	f.Add(LocalServer, `null`, "")
	f.Add("https://a", `{"proxyUrl":"socks5://x","awsAuthConfig":null}`, "")
	f.Fuzz(func(t *testing.T, server, config, namespaces string) {
		s := secret("x", server, config)
		s.Data["namespaces"] = []byte(namespaces)
		c, err := Parse(s, local)
		if err != nil {
			return
		}
		if c.Config == nil || c.Server == "" {
			t.Errorf("%q %q: %v", server, config, c)
		}
		if found, err := NewSet(nil, []Secret{s}).Find(v1alpha1.Destination{Server: server}); !c.IsLocal() && (err != nil || found.Server != c.Server) {
			t.Errorf("%q is not found: %v", server, err)
		}
		if _, err := rest.TransportFor(c.Config); err != nil && c.Config.ExecProvider == nil {
			t.Errorf("%q: no transport: %v", config, err)
		}
	})
}
