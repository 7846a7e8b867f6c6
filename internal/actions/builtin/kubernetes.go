package builtin

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kubernetesActions are Azure's actions around a cluster. They run the job's
// own az, kubectl, helm and kustomize.
func kubernetesActions() []Action {
	return []Action{
		{Name: "azure/aks-set-context", Inputs: map[string]string{"resource-group": "", "cluster-name": "", "subscription": "", "admin": "false", "use-kubelogin": "false",
			"resource-type": "Microsoft.ContainerService/managedClusters", "public-fqdn": "false"}, Run: runAKSContext},
		{Name: "azure/k8s-set-context", Inputs: map[string]string{"method": "kubeconfig", "kubeconfig": "", "context": "", "kubeconfig-encoding": "plaintext", "k8s-url": "",
			"k8s-secret": "", "cluster-type": "generic", "cluster-name": "", "resource-group": "", "token": ""}, Run: runKubernetesContext},
		{Name: "azure/k8s-deploy", Inputs: map[string]string{"namespace": "", "manifests": "", "images": "", "imagepullsecrets": "", "pull-images": "true", "strategy": "basic",
			"action": "deploy", "force": "false", "timeout": "10m", "private-cluster": "false", "server-side": "false"},
			NoEffect: map[string]string{"route-method": "only for canary and blue-green", "version-switch-buffer": "only for canary and blue-green",
				"traffic-split-method": "only for canary", "traffic-split-annotations": "only for canary", "baseline-and-canary-replicas": "only for canary", "percentage": "only for canary",
				"annotate-resources": "resources are not annotated", "annotate-namespace": "the namespace is not annotated", "skip-tls-verify": "the kubeconfig decides",
				"token": "nothing is asked of the forge", "resource-group": "the context is used as it is", "name": "the context is used as it is", "resource-type": "the context is used as it is"},
			Run: runDeploy},
		{Name: "azure/k8s-bake", Inputs: map[string]string{"renderengine": "", "helmchart": "", "overridefiles": "", "overrides": "", "releasename": "", "namespace": "",
			"kustomizationpath": "", "dockercomposefile": "", "arguments": "", "silent": "false"},
			NoEffect: map[string]string{"helm-version": "the helm of this job is used", "kubectl-version": "the kubectl of this job is used"}, Run: runBake},
		{Name: "azure/docker-login", Inputs: map[string]string{"login-server": "https://index.docker.io/v1/", "username": "", "password": ""}, Post: postLogin, Run: func(ctx context.Context, c *Call) error {
			c.With["registry"], c.With["logout"] = c.With["login-server"], "true"
			return runLogin(ctx, c)
		}},
	}
}

// useKubeconfig makes a file the kubeconfig of the steps that follow.
func (c *Call) useKubeconfig(file string) {
	c.SetEnv("KUBECONFIG", file)
	c.SetEnv("KUBE_CONFIG_PATH", file)
	c.Logf("KUBECONFIG is %s", file)
}

func runAKSContext(ctx context.Context, c *Call) error {
	if missing := empty(map[string]string{"resource-group": c.With["resource-group"], "cluster-name": c.With["cluster-name"]}); len(missing) > 0 {
		return c.errorf("", "azure/aks-set-context needs %s", strings.Join(missing, " and "))
	}
	if t := c.With["resource-type"]; !strings.EqualFold(t, "Microsoft.ContainerService/managedClusters") {
		return c.errorf("", "input resource-type: %s is not supported", t)
	}
	admin, err := c.flag("admin")
	if err != nil {
		return err
	}
	login, err := c.flag("use-kubelogin")
	if err != nil {
		return err
	}
	file := path.Join(c.Job.TempPath, "kubeconfig-"+c.With["cluster-name"])
	args := []string{"az", "aks", "get-credentials", "--resource-group", c.With["resource-group"], "--name", c.With["cluster-name"], "--file", file, "--overwrite-existing"}
	if admin {
		args = append(args, "--admin")
	}
	if s := c.With["subscription"]; s != "" {
		args = append(args, "--subscription", s)
	}
	if err := c.run(ctx, c.Job.Workspace, args...); err != nil {
		return c.errorf("sign in with azure/login before, and check the names", "set the AKS context: %w", err)
	}
	c.useKubeconfig(file)
	if login {
		if err := c.script(ctx, c.Job.Workspace, `KUBECONFIG=$1 kubelogin convert-kubeconfig -l azurecli`, file); err != nil {
			return c.errorf("install kubelogin on this machine, or leave use-kubelogin out", "kubelogin: %w", err)
		}
	}
	return nil
}

func runKubernetesContext(ctx context.Context, c *Call) error {
	if t := c.With["cluster-type"]; t != "" && t != "generic" {
		return c.errorf("use azure/aks-set-context for AKS", "input cluster-type: %s is not supported", t)
	}
	config := c.With["kubeconfig"]
	var err error
	switch method := strings.ToLower(c.With["method"]); method {
	case "", "kubeconfig", "default":
		if config == "" {
			return c.errorf("set the secret that the workflow takes it from", "input kubeconfig is empty")
		}
		if c.With["kubeconfig-encoding"] == "base64" {
			decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(config))
			if err != nil {
				return c.errorf("", "input kubeconfig is not base64")
			}
			config = string(decoded)
		}
	case "service-account":
		if config, err = serviceAccountConfig(c); err != nil {
			return err
		}
	default:
		return c.errorf("use kubeconfig or service-account", "input method: %s is not supported", method)
	}
	name := "kubeconfig-" + strconv.Itoa(c.Line)
	if err := c.Job.Temp.WriteFile(name, []byte(config), 0o600); err != nil {
		return err
	}
	file := path.Join(c.Job.TempPath, name)
	if name := c.With["context"]; name != "" {
		if err := c.run(ctx, c.Job.Workspace, "kubectl", "--kubeconfig", file, "config", "use-context", name); err != nil {
			return c.errorf("", "choose the context %q: %w", name, err)
		}
	}
	c.useKubeconfig(file)
	return nil
}

// serviceAccountConfig makes a kubeconfig of a service account's Secret.
func serviceAccountConfig(c *Call) (string, error) {
	var secret struct {
		Data map[string]string `yaml:"data"`
	}
	if err := yaml.Unmarshal([]byte(c.With["k8s-secret"]), &secret); err != nil || secret.Data["token"] == "" || secret.Data["ca.crt"] == "" {
		return "", c.errorf("kubectl get secret … -o yaml", "input k8s-secret is no Secret of a service account")
	}
	if u, err := url.Parse(c.With["k8s-url"]); err != nil || u.Host == "" {
		return "", c.errorf("", "input k8s-url %q is no address", c.With["k8s-url"])
	}
	token, err := base64.StdEncoding.DecodeString(secret.Data["token"])
	if err != nil {
		return "", c.errorf("", "input k8s-secret: its token is not base64")
	}
	c.Job.Mask(string(token))
	named := func(name, kind string, value any) []any { return []any{map[string]any{"name": name, kind: value}} }
	out, err := yaml.Marshal(map[string]any{"apiVersion": "v1", "kind": "Config", "current-context": "loaded-context",
		"clusters": named("default", "cluster", map[string]string{"server": c.With["k8s-url"], "certificate-authority-data": secret.Data["ca.crt"]}),
		"users":    named("default-user", "user", map[string]string{"token": string(token)}),
		"contexts": named("loaded-context", "context", map[string]string{"cluster": "default", "user": "default-user"})})
	return string(out), err
}

var imageLine = regexp.MustCompile(`(?m)^(\s*-?\s*["']?image["']?\s*:\s*)["']?([^\s"'#]+)["']?`)

// replaceImages puts references of the same repository in the place of those
// in a manifest, as the real action does: by text.
func replaceImages(manifest string, images []string) string {
	bare := func(ref string) string {
		ref, _, _ = strings.Cut(ref, "@")
		if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
			ref = ref[:i]
		}
		return ref
	}
	return imageLine.ReplaceAllStringFunc(manifest, func(line string) string {
		m := imageLine.FindStringSubmatch(line)
		for _, image := range images {
			if bare(image) == bare(m[2]) {
				return m[1] + image
			}
		}
		return line
	})
}

func runDeploy(ctx context.Context, c *Call) error {
	if s := strings.ToLower(c.With["strategy"]); s != "" && s != "basic" && s != "none" {
		return c.errorf("use strategy: basic", "input strategy: %s is not supported", s)
	}
	if a := strings.ToLower(c.With["action"]); a != "" && a != "deploy" {
		return c.errorf("use action: deploy", "input action: %s is not supported", a)
	}
	manifests := c.list("manifests", true)
	if len(manifests) == 0 {
		return c.errorf("", "input manifests is required")
	}
	found, err := c.glob(ctx, manifests, true)
	if err != nil {
		return err
	}
	defer found.close()
	const dir = "_lockstep/deploy"
	if err := c.Job.Temp.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var files []string
	for i, f := range found.files {
		if e := path.Ext(f.name); e != ".yaml" && e != ".yml" && e != ".json" {
			continue
		}
		data, err := readFile(f.tree.root, f.name, 16<<20)
		if err != nil {
			return err
		}
		name := path.Join(dir, fmt.Sprintf("%d-%d-%s", c.Line, i, path.Base(f.name)))
		if err := c.Job.Temp.WriteFile(name, []byte(replaceImages(string(data), c.list("images", true))), 0o644); err != nil {
			return err
		}
		files = append(files, path.Join(c.Job.TempPath, name))
	}
	if len(files) == 0 {
		return c.errorf("check the input manifests", "no manifest was found in %s", strings.Join(manifests, ", "))
	}
	return c.kubectlDeploy(ctx, files)
}

// kubectlDeploy applies files and waits for what they roll out.
func (c *Call) kubectlDeploy(ctx context.Context, files []string) error {
	namespace := []string{}
	if n := c.With["namespace"]; n != "" {
		namespace = []string{"--namespace", n}
	}
	for _, secret := range c.list("imagepullsecrets", true) {
		c.Logf("##[warning]imagepullsecrets: %s has to stand in the manifests; they are applied as they are", secret)
	}
	args := append([]string{"kubectl", "apply"}, namespace...)
	for name, flag := range map[string]string{"force": "--force", "server-side": "--server-side"} {
		on, err := c.flag(name)
		if err != nil {
			return err
		}
		if on {
			args = append(args, flag)
		}
	}
	for _, f := range files {
		args = append(args, "-f", f)
	}
	out, err := c.capture(ctx, c.Job.Workspace, append(args, "-o", "name")...)
	if err != nil {
		return c.errorf("set the cluster's context before", "deploy: %w", err)
	}
	for line := range strings.Lines(out) {
		object := strings.TrimSpace(line)
		c.Logf("%s applied", object)
		kind, _, _ := strings.Cut(object, "/")
		if strings.HasPrefix(kind, "deployment.") || strings.HasPrefix(kind, "statefulset.") || strings.HasPrefix(kind, "daemonset.") {
			if err := c.run(ctx, c.Job.Workspace, append([]string{"kubectl", "rollout", "status", object, "--timeout", c.With["timeout"]}, namespace...)...); err != nil {
				return c.errorf("kubectl describe "+object, "%s did not become ready: %w", object, err)
			}
		}
	}
	return nil
}

func runBake(ctx context.Context, c *Call) error {
	var args []string
	switch engine := strings.ToLower(c.With["renderengine"]); engine {
	case "helm":
		args = []string{"helm", "template"}
		if n := c.With["releasename"]; n != "" {
			args = append(args, n)
		}
		if c.With["helmchart"] == "" {
			return c.errorf("", "renderEngine helm needs helmChart")
		}
		args = append(args, c.With["helmchart"])
		if n := c.With["namespace"]; n != "" {
			args = append(args, "--namespace", n)
		}
		for _, f := range c.list("overridefiles", false) {
			args = append(args, "--values", f)
		}
		for _, o := range c.list("overrides", false) {
			key, value, ok := strings.Cut(o, ":")
			if !ok {
				return c.errorf("", "input overrides: %q is not name:value", o)
			}
			args = append(args, "--set", strings.TrimSpace(key)+"="+strings.TrimSpace(value))
		}
	case "kustomize":
		if c.With["kustomizationpath"] == "" {
			return c.errorf("", "renderEngine kustomize needs kustomizationPath")
		}
		args = []string{"kustomize", "build", c.With["kustomizationpath"]}
	default:
		return c.errorf("use helm or kustomize", "input renderEngine: %q is not supported", engine)
	}
	args = append(args, strings.Fields(c.With["arguments"])...)
	name := fmt.Sprintf("baked-template-%d.yaml", c.Line)
	file := path.Join(c.Job.TempPath, name)
	if err := c.script(ctx, c.Job.Workspace, `out=$1; shift; exec "$@" >"$out"`, append([]string{file}, args...)...); err != nil {
		return c.errorf("", "%s failed: %w", args[0], err)
	}
	c.SetOutput("manifestsBundle", file)
	c.Logf("The manifests are in %s", file)
	return nil
}
