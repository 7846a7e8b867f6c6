package helm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// fiveObjects is a chart as `helm create` makes them: Deployment, Service,
// ServiceAccount, Ingress and ConfigMap, with helpers.
func fiveObjects() map[string]string {
	kind := func(apiVersion, kind, rest string) string {
		return "apiVersion: " + apiVersion + "\nkind: " + kind + "\nmetadata:\n  name: {{ include \"app.fullname\" . }}\n  labels:\n    {{- include \"app.labels\" . | nindent 4 }}\n" + rest
	}
	return map[string]string{
		"Chart.yaml": "apiVersion: v2\nname: app\ndescription: an app\ntype: application\nversion: 0.1.0\nappVersion: \"1.0\"\n",
		"values.yaml": "replicaCount: 0\nimage: {repository: nginx, tag: \"\", pullPolicy: IfNotPresent}\nnameOverride: \"\"\nfullnameOverride: \"\"\n" +
			"serviceAccount: {create: true, annotations: {}, name: \"\"}\nservice: {type: ClusterIP, port: 80}\ningress: {enabled: true, hosts: [{host: a.example, paths: [{path: /, pathType: Prefix}]}]}\n" +
			"resources: {limits: {cpu: 100m, memory: 128Mi}}\nsettings: {a: b, c: d}\n",
		"README.md": "docs\n",
		"templates/_helpers.tpl": `{{- define "app.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- define "app.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}
{{- define "app.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- define "app.labels" -}}
helm.sh/chart: {{ include "app.chart" . }}
{{ include "app.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "app.selectorLabels" -}}
app.kubernetes.io/name: {{ include "app.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
`,
		"templates/deployment.yaml": kind("apps/v1", "Deployment", `spec:
  replicas: {{ .Values.replicaCount }}
  selector:
    matchLabels:
      {{- include "app.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "app.labels" . | nindent 8 }}
    spec:
      serviceAccountName: {{ include "app.fullname" . }}
      containers:
        - name: {{ .Chart.Name }}
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          ports: [{name: http, containerPort: {{ .Values.service.port }}}]
          resources:
            {{- toYaml .Values.resources | nindent 12 }}
`),
		"templates/service.yaml":        kind("v1", "Service", "spec:\n  type: {{ .Values.service.type }}\n  ports:\n    - {port: {{ .Values.service.port }}, targetPort: http}\n  selector:\n    {{- include \"app.selectorLabels\" . | nindent 4 }}\n"),
		"templates/serviceaccount.yaml": "{{- if .Values.serviceAccount.create -}}\n" + kind("v1", "ServiceAccount", "automountServiceAccountToken: false\n") + "{{- end }}\n",
		"templates/ingress.yaml": "{{- if .Values.ingress.enabled -}}\n" + kind("networking.k8s.io/v1", "Ingress", `spec:
  rules:
    {{- range .Values.ingress.hosts }}
    - host: {{ .host | quote }}
      http:
        paths:
          {{- range .paths }}
          - path: {{ .path }}
            pathType: {{ .pathType }}
            backend: {service: {name: {{ include "app.fullname" $ }}, port: {number: {{ $.Values.service.port }}}}}
          {{- end }}
    {{- end }}
`) + "{{- end }}\n",
		"templates/configmap.yaml": kind("v1", "ConfigMap", "data:\n  {{- range $k, $v := .Values.settings }}\n  {{ $k }}: {{ $v | quote }}\n  {{- end }}\n"),
		"templates/NOTES.txt":      "See {{ include \"app.fullname\" . }}.\n",
	}
}

// commitOf puts files into a bare repository.
func commitOf(b *testing.B, files map[string]string) (*git.Repository, string) {
	b.Helper()
	work := b.TempDir()
	run := func(args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = work, git.Env()
		out, err := cmd.Output()
		if err != nil {
			b.Fatalf("git %v: %v", args, err)
		}
		return string(out[:max(0, len(out)-1)])
	}
	run("init", "-q", "-b", "main")
	for name, content := range files {
		p := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	run("add", "-A")
	run("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "c")
	repo, err := git.Open(filepath.Join(work, ".git"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(repo.Close)
	return repo, run("rev-parse", "HEAD")
}

// BenchmarkRender renders a chart of five objects out of a repository.
func BenchmarkRender(b *testing.B) {
	files := map[string]string{}
	for name, content := range fiveObjects() {
		files["charts/app/"+name] = content
	}
	files["env/a.yaml"] = "replicaCount: 2\n"
	repo, commit := commitOf(b, files)
	req := golden{Dir: "charts/app", Helm: &v1alpha1.SourceHelm{ValueFiles: []string{"/env/a.yaml"}}}.request()
	render := func(b *testing.B, r *Renderer) {
		objects, _, err := r.Render(context.Background(), source.NewTree(repo, commit), req)
		if err != nil || len(objects) != 5 {
			b.Fatal(len(objects), err)
		}
	}
	b.Run("cold", func(b *testing.B) { // nothing parsed before
		b.ReportAllocs()
		for b.Loop() {
			render(b, &Renderer{})
		}
	})
	b.Run("warm", func(b *testing.B) { // the templates were parsed for another application
		r := &Renderer{}
		render(b, r)
		b.ReportAllocs()
		for b.Loop() {
			render(b, r)
		}
	})
	b.Run("read", func(b *testing.B) { // of which reading the chart
		for b.Loop() {
			l := &chartLoader{ctx: b.Context(), tree: source.NewTree(repo, commit), places: map[*byte]string{}, lazy: map[*byte]string{}}
			if _, err := l.chart("charts/app"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		r := &Renderer{}
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				render(b, r)
			}
		})
	})
	b.Run("fleet", func(b *testing.B) { // charts of different names, each with the same templates
		r := &Renderer{}
		fleet := map[string]string{}
		const n = 200
		for i := range n {
			for name, content := range fiveObjects() {
				if name == "Chart.yaml" {
					content = fmt.Sprintf("apiVersion: v2\nname: app%d\nversion: 0.1.0\nappVersion: \"1.0\"\n", i)
				}
				fleet[fmt.Sprintf("charts/app%d/%s", i, name)] = content
			}
		}
		repo, commit := commitOf(b, fleet)
		i := 0
		for b.Loop() {
			req := golden{Dir: fmt.Sprintf("charts/app%d", i%n)}.request()
			if _, _, err := r.Render(context.Background(), source.NewTree(repo, commit), req); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
}
