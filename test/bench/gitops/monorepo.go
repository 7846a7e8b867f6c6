//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

const (
	repoName = "contoso/monorepo"
	repoURL  = "https://github.com/" + repoName
	home     = "argocd"
)

// app is one application of the monorepo. Its objects are all called object().
type app struct {
	name, namespace, shape string
	config                 string // value in its ConfigMap
	version                string // value in the environment of its Deployment
}

func (a *app) object() string { return a.name + "-web" }

const (
	deployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: $NAME
  labels: {app: $APP}
spec:
  replicas: 0
  selector: {matchLabels: {app: $APP}}
  template:
    metadata: {labels: {app: $APP}}
    spec:
      serviceAccountName: $NAME
      containers:
      - name: web
        image: registry.example.com/web:1.0.0
        ports: [{name: http, containerPort: 8080}]
        env: [{name: VERSION, value: "$VERSION"}]
        envFrom: [{configMapRef: {name: $NAME}}]
        resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 256Mi}}
`
	serviceAccount = `apiVersion: v1
kind: ServiceAccount
metadata:
  name: $NAME
  labels: {app: $APP}
`
	service = `apiVersion: v1
kind: Service
metadata:
  name: $NAME
  labels: {app: $APP}
spec:
  selector: {app: $APP}
  ports: [{name: http, port: 80, targetPort: http}]
`
	ingress = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: $NAME
  labels: {app: $APP}
spec:
  rules:
  - host: $APP.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: $NAME, port: {name: http}}}}]}
`
	configMap = `apiVersion: v1
kind: ConfigMap
metadata:
  name: $NAME
  labels: {app: $APP}
data: {value: "$CONFIG", level: info, region: westeurope}
`
	overlay = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namePrefix: $APP-
labels: [{pairs: {app: $APP}, includeSelectors: true, includeTemplates: true}]
resources: [../../base/web, configmap.yaml]
patches:
- path: version.yaml
- target: {kind: Ingress}
  patch: |-
    - {op: replace, path: /spec/rules/0/host, value: $APP.example.com}
`
	versionPatch = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, env: [{name: VERSION, value: "$VERSION"}]}]}}}
`
)

// manifests are the files of the directory shape, by kind.
var manifests = map[string]string{
	"deployment": deployment, "serviceaccount": serviceAccount, "service": service, "ingress": ingress, "configmap": configMap,
}

func (a *app) fill(text string) string {
	return strings.NewReplacer("$NAME", a.object(), "$APP", a.name, "$VERSION", a.version, "$CONFIG", a.config).Replace(text)
}

// files are what the application has in the repository besides what it shares.
func (a *app) files() map[string]string {
	dir := "apps/" + a.name + "/"
	switch a.shape {
	case "kustomize":
		return map[string]string{
			dir + "kustomization.yaml": a.fill(overlay), dir + "version.yaml": a.fill(versionPatch),
			dir + "configmap.yaml": a.fill(strings.ReplaceAll(configMap, "$NAME", "web")),
		}
	case "helm":
		return map[string]string{dir + "values.yaml": a.fill("config: \"$CONFIG\"\nversion: \"$VERSION\"\n")}
	}
	out := map[string]string{}
	for kind, text := range manifests {
		out[dir+kind+".yaml"] = a.fill(text)
	}
	return out
}

// sharedFiles are the base of the kustomize shape and the chart of helm.
func sharedFiles() map[string]string {
	base := strings.NewReplacer("$NAME", "web", "$APP", "web", "$VERSION", "none")
	chart := strings.NewReplacer("$NAME", "{{ .Release.Name }}-web", "$APP", "{{ .Release.Name }}", "$VERSION", "{{ .Values.version }}", "$CONFIG", "{{ .Values.config }}")
	out := map[string]string{
		"README.md":             "The applications of Contoso.\n",
		"charts/web/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n", "charts/web/values.yaml": "config: none\nversion: none\n",
	}
	resources := []string{}
	for _, kind := range slices.Sorted(maps.Keys(manifests)) {
		out["charts/web/templates/"+kind+".yaml"] = chart.Replace(manifests[kind])
		if kind != "configmap" {
			out["base/web/"+kind+".yaml"] = base.Replace(manifests[kind])
			resources = append(resources, kind+".yaml")
		}
	}
	out["base/web/kustomization.yaml"] = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [" + strings.Join(resources, ", ") + "]\n"
	return out
}

// objects are what the application puts into the cluster, for the bare loop.
func (a *app) objects() ([]wire, error) {
	var out []wire
	for _, kind := range slices.Sorted(maps.Keys(manifests)) {
		data, err := yaml.YAMLToJSON([]byte(a.fill(manifests[kind])))
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", kind, a.name, err)
		}
		var o map[string]any
		if err := json.Unmarshal(data, &o); err != nil {
			return nil, fmt.Errorf("%s of %s: %w", kind, a.name, err)
		}
		meta := o["metadata"].(map[string]any)
		group, _, found := strings.Cut(o["apiVersion"].(string), "/")
		if !found {
			group = ""
		}
		meta["namespace"] = a.namespace
		meta["annotations"] = map[string]any{"argocd.argoproj.io/tracking-id": fmt.Sprintf("%s:%s/%s:%s/%s", a.name, group, o["kind"], a.namespace, a.object())}
		if data, err = json.Marshal(o); err != nil {
			return nil, err
		}
		out = append(out, wire{Resource: resources[kind], Namespace: a.namespace, Name: a.object(), Data: data})
	}
	return out, nil
}

// application is the Application object.
func (a *app) application() map[string]any {
	src := map[string]any{"repoURL": repoURL, "targetRevision": "main", "path": "apps/" + a.name}
	if a.shape == "helm" {
		src["path"] = "charts/web"
		src["helm"] = map[string]any{"releaseName": a.name, "valueFiles": []any{"../../apps/" + a.name + "/values.yaml"}}
	}
	return map[string]any{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
		"metadata": map[string]any{"name": a.name, "namespace": home},
		"spec": map[string]any{
			"project": "default", "source": src,
			"destination": map[string]any{"server": "https://kubernetes.default.svc", "namespace": a.namespace},
			"syncPolicy":  map[string]any{"automated": map[string]any{"prune": true, "selfHeal": true}},
		},
	}
}

// monorepo is the repository and what is in it now.
type monorepo struct {
	git  *git.Repository
	apps []*app
	head string
}

// newMonorepo makes the repository with n applications, perNamespace of them
// in each namespace, and one commit.
func newMonorepo(ctx context.Context, dir string, n, perNamespace int, shapes []string) (*monorepo, error) {
	repo, err := git.Init(ctx, dir, "main")
	if err != nil {
		return nil, err
	}
	m := &monorepo{git: repo, head: git.ZeroID}
	files := sharedFiles()
	for i := range n {
		a := &app{name: fmt.Sprintf("app-%05d", i), namespace: fmt.Sprintf("team-%03d", i/perNamespace), shape: shapes[i%len(shapes)], config: "0", version: "0"}
		m.apps = append(m.apps, a)
		maps.Copy(files, a.files())
	}
	_, _, err = m.commit(ctx, files)
	return m, err
}

func (m *monorepo) namespaces() []string {
	seen := map[string]bool{}
	for _, a := range m.apps {
		seen[a.namespace] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// commit puts files over those of the last commit. It returns both commits.
func (m *monorepo) commit(ctx context.Context, files map[string]string) (before, after string, err error) {
	var in strings.Builder
	in.WriteString("commit refs/heads/main\ncommitter Ada <ada@contoso.com> " + strconv.FormatInt(time.Now().Unix(), 10) + " +0000\ndata 4\ntest\n")
	if m.head != git.ZeroID {
		in.WriteString("from " + m.head + "\n")
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", name, len(files[name]), files[name])
	}
	if _, err := m.git.RunInput(ctx, []byte(in.String()), "fast-import", "--quiet"); err != nil {
		return "", "", err
	}
	before = m.head
	m.head, err = m.git.Resolve(ctx, "refs/heads/main")
	return before, m.head, err
}
