package builtin

import (
	"context"
	"encoding/json"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// setups are the actions that bring a tool into the PATH.
func setups() []Action {
	return []Action{setupGo(), setupNode(), setupPython(), setupJava(), setupDotnet(), setupTerraform(),
		setupProgram("azure/setup-kubectl", "kubectl", kubectl), setupProgram("azure/setup-helm", "helm", helm, "token", "downloadbaseurl"),
		setupProgram("imranismail/setup-kustomize", "kustomize", kustomizeTool, "kustomize-version", "github-token"),
		setupProgram("azure/use-kubelogin", "kubelogin", kubelogin, "kubelogin-version", "skip-cache"),
		setupProgram("terraform-linters/setup-tflint", "tflint", tflint, "tflint_version", "github_token", "checksums", "cache", "tflint_wrapper"),
	}
}

const cacheKept = "the tool's own caches are kept between runs of the repository"

// cacheTools is where tools of RUNNER_TOOL_CACHE lie in the sandbox.
const cacheTools = "/opt/hostedtoolcache"

var (
	node = tool{name: "Node.js", find: []string{"node", "nodejs", "/usr/local/bin/node", "/usr/bin/node", "/opt/node*/bin/node", cacheTools + "/node/*/*/bin/node"},
		version: []string{"--version"}, pattern: regexp.MustCompile(`v(\d+\.\d+\.\d+\S*)`), install: "install that Node.js on this machine"}
	python = tool{name: "Python", find: []string{"python3", "python", "/usr/local/bin/python3.*", "/usr/bin/python3", "/usr/bin/python3.*", "/opt/python*/bin/python3", cacheTools + "/Python/*/*/bin/python3"},
		version: []string{"--version"}, pattern: regexp.MustCompile(`Python (\d+\.\d+\.\d+)`), install: "install that Python on this machine"}
	java = tool{name: "Java", find: []string{"java", "/usr/lib/jvm/*/bin/java", "/opt/java*/bin/java", "/opt/jdk*/bin/java", cacheTools + "/*jdk/*/*/bin/java"},
		version: []string{"-version"}, pattern: regexp.MustCompile(`version "(\d+(?:\.\d+){0,2})[^"]*"`), install: "install that JDK on this machine"}
	dotnet = tool{name: ".NET SDK", find: []string{"dotnet", "/usr/share/dotnet/dotnet", "/usr/lib/dotnet/dotnet", "/opt/dotnet/dotnet"},
		version: []string{"--version"}, pattern: regexp.MustCompile(`(?m)^(\d+\.\d+\.\d+\S*)`), install: "install that .NET SDK on this machine"}
	kubectl = tool{name: "kubectl", find: []string{"kubectl", "/usr/local/bin/kubectl", cacheTools + "/kubectl/*/*/kubectl"},
		version: []string{"version", "--client"}, pattern: regexp.MustCompile(`v(\d+\.\d+\.\d+\S*?)["\s]`), install: "install that kubectl on this machine"}
	helm = tool{name: "Helm", find: []string{"helm", "/usr/local/bin/helm", cacheTools + "/helm/*/*/helm", cacheTools + "/helm/*/*/linux-*/helm"},
		version: []string{"version", "--short"}, pattern: regexp.MustCompile(`v(\d+\.\d+\.\d+[^+\s]*)`), install: "install that Helm on this machine"}
	kustomizeTool = tool{name: "kustomize", find: []string{"kustomize", "/usr/local/bin/kustomize"},
		version: []string{"version"}, pattern: regexp.MustCompile(`(?:v|^|\s)(\d+\.\d+\.\d+|\(devel\))`), install: "install that kustomize on this machine"}
	kubelogin = tool{name: "kubelogin", find: []string{"kubelogin", "/usr/local/bin/kubelogin"},
		version: []string{"--version"}, pattern: regexp.MustCompile(`v?(\d+\.\d+\.\d+)`), install: "install kubelogin on this machine, or use credentials that need none (az aks get-credentials --admin)"}
	tflint = tool{name: "TFLint", find: []string{"tflint", "/usr/local/bin/tflint"},
		version: []string{"--version"}, pattern: regexp.MustCompile(`(\d+\.\d+\.\d+)`), install: "install TFLint on this machine"}
)

// setupProgram finds one program. further are inputs besides version; one that
// ends in version is another name for it, the others change nothing.
func setupProgram(action, program string, t tool, further ...string) Action {
	inputs, none, wantedBy := map[string]string{"version": ""}, map[string]string{}, "version"
	for _, name := range further {
		if strings.HasSuffix(name, "version") {
			inputs[name], wantedBy = "", name
			continue
		}
		none[name] = "nothing is downloaded"
	}
	return Action{Name: action, Inputs: inputs, NoEffect: none, Run: func(ctx context.Context, c *Call) error {
		wanted := c.With[wantedBy]
		if wanted == "" {
			wanted = c.With["version"]
		}
		have, err := t.pick(ctx, c, wantedBy, wanted)
		if err != nil {
			return err
		}
		c.Logf("Using %s %s of this machine (%s)", t.name, have.text, have.path)
		c.onPath(ctx, have.path)
		c.SetOutput(program+"-path", have.path)
		c.SetOutput("version", have.text)
		return nil
	}}
}

func setupNode() Action {
	return Action{
		Name: "actions/setup-node",
		Inputs: map[string]string{"node-version": "", "node-version-file": "", "registry-url": "", "scope": "", "always-auth": "false",
			"check-latest": "false", "architecture": ""},
		NoEffect: map[string]string{"cache": cacheKept, "cache-dependency-path": cacheKept, "package-manager-cache": cacheKept,
			"token": "nothing is downloaded", "mirror": "nothing is downloaded", "mirror-token": "nothing is downloaded"},
		Run: runSetupNode,
	}
}

// ltsNames are the code names of Node's long term lines.
var ltsNames = map[string]int{"argon": 4, "boron": 6, "carbon": 8, "dubnium": 10, "erbium": 12, "fermium": 14, "gallium": 16, "hydrogen": 18, "iron": 20, "jod": 22, "krypton": 24}

// nodeRange turns lts/* and code names into ranges. Long term lines are even.
func nodeRange(wanted string) (string, bool) {
	name, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(wanted)), "lts/")
	if !ok {
		return wanted, true
	}
	if major, known := ltsNames[name]; known {
		return strconv.Itoa(major), true
	}
	if name == "*" || strings.HasPrefix(name, "-") {
		var lines []string
		for major := 4; major < 60; major += 2 {
			lines = append(lines, strconv.Itoa(major)+".x")
		}
		return strings.Join(lines, " || "), true
	}
	return "", false
}

func runSetupNode(ctx context.Context, c *Call) error {
	wanted, input, err := versionInput(c, "node-version", "node-version-file", nodeFile)
	if err != nil {
		return err
	}
	text, ok := nodeRange(wanted)
	if !ok {
		return c.errorf("write a number, or lts/*", "input %s: %q is no line of Node.js", input, wanted)
	}
	have, err := node.pick(ctx, c, input, text)
	if err != nil {
		return err
	}
	c.Logf("Using Node.js %s of this machine (%s)", have.text, have.path)
	c.onPath(ctx, have.path)
	c.SetOutput("node-version", "v"+have.text)
	c.SetOutput("cache-hit", "false")
	return npmRegistry(c)
}

// npmRegistry writes the .npmrc that publishes and installs use.
func npmRegistry(c *Call) error {
	registry := strings.TrimSpace(c.With["registry-url"])
	if registry == "" {
		return nil
	}
	if strings.ContainsAny(registry, " \n") || !strings.Contains(registry, "://") {
		return c.errorf("", "input registry-url %q is no address", registry)
	}
	registry = strings.TrimSuffix(registry, "/") + "/"
	scope := c.With["scope"]
	if scope == "" && strings.Contains(registry, "npm.pkg.github.com") {
		scope, _, _ = strings.Cut(c.Job.Repo, "/")
	}
	if scope != "" {
		scope = "@" + strings.ToLower(strings.TrimPrefix(scope, "@")) + ":"
	}
	_, host, _ := strings.Cut(registry, "://")
	text := "//" + host + ":_authToken=${NODE_AUTH_TOKEN}\n" + scope + "registry=" + registry + "\nalways-auth=" + c.With["always-auth"] + "\n"
	if err := c.Job.Temp.WriteFile(".npmrc", []byte(text), 0o600); err != nil {
		return err
	}
	c.SetEnv("NPM_CONFIG_USERCONFIG", c.Job.TempPath+"/.npmrc")
	if c.env("NODE_AUTH_TOKEN") == "" {
		c.SetEnv("NODE_AUTH_TOKEN", "XXXXX-XXXXX-XXXXX-XXXXX") // npm refuses an empty one
	}
	return nil
}

// versionInput reads a version from an input, or from the file that another
// input names. input says which one it was.
func versionInput(c *Call, version, file string, read func(name, text string) string) (wanted, input string, err error) {
	if v := strings.TrimSpace(c.With[version]); v != "" {
		return v, version, nil
	}
	name := c.With[file]
	if name == "" {
		return "", version, nil
	}
	inside, err := within(c, name)
	if err != nil {
		return "", file, err
	}
	data, err := readFile(c.Job.Files, inside, 1<<20)
	if err != nil {
		return "", file, c.errorf("check the repository out before, and check the input", "read %s: %w", file, err)
	}
	wanted = strings.TrimSpace(read(path.Base(inside), string(data)))
	if wanted == "" {
		return "", file, c.errorf("", "%s names no version", name)
	}
	return wanted, file, nil
}

var toolLine = regexp.MustCompile(`(?m)^\s*([a-z]+)\s+([^\s#]+)`)

// toolVersions reads a line of .tool-versions.
func toolVersions(text string, names ...string) string {
	for _, m := range toolLine.FindAllStringSubmatch(text, -1) {
		for _, n := range names {
			if m[1] == n {
				return m[2]
			}
		}
	}
	return ""
}

// firstLine is the first line that is no comment.
func firstLine(text string) string {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}

func nodeFile(name, text string) string {
	switch name {
	case "package.json":
		var p struct {
			Volta      struct{ Node string }
			DevEngines struct{ Runtime json.RawMessage }
			Engines    struct{ Node string }
		}
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return ""
		}
		if p.Volta.Node != "" {
			return p.Volta.Node
		}
		var runtime struct{ Name, Version string }
		if json.Unmarshal(p.DevEngines.Runtime, &runtime) == nil && runtime.Name == "node" && runtime.Version != "" {
			return runtime.Version
		}
		return p.Engines.Node
	case ".tool-versions":
		return toolVersions(text, "nodejs", "node")
	}
	return strings.TrimPrefix(firstLine(text), "node ")
}

func setupPython() Action {
	return Action{
		Name: "actions/setup-python",
		Inputs: map[string]string{"python-version": "", "python-version-file": "", "update-environment": "true", "allow-prereleases": "false",
			"check-latest": "false", "architecture": "", "freethreaded": "false", "pip-version": "", "pip-install": ""},
		NoEffect: map[string]string{"cache": cacheKept, "cache-dependency-path": cacheKept, "token": "nothing is downloaded"},
		Run:      runSetupPython,
	}
}

func runSetupPython(ctx context.Context, c *Call) error {
	if err := c.unsupported(map[string]string{"freethreaded": "leave it out", "pip-version": "leave it out: the machine's pip is used"}); err != nil {
		return err
	}
	wanted, input, err := versionInput(c, "python-version", "python-version-file", pythonFile)
	if err != nil {
		return err
	}
	update, err := c.flag("update-environment")
	if err != nil {
		return err
	}
	// Several versions may be asked for; the last one is the default.
	lines := strings.Fields(wanted)
	if strings.ContainsAny(wanted, "<>=~^|") || len(lines) == 0 {
		lines = []string{wanted}
	}
	var have installed
	for _, line := range lines {
		if strings.HasPrefix(strings.ToLower(line), "pypy") || strings.HasPrefix(strings.ToLower(line), "graalpy") {
			return c.errorf("ask for CPython", "input %s: %s is not supported", input, line)
		}
		if have, err = python.pick(ctx, c, input, strings.TrimSuffix(line, "-dev")); err != nil {
			return err
		}
		c.Logf("Using Python %s of this machine (%s)", have.text, have.path)
	}
	if update {
		dir, err := c.shimFolder("python", map[string]string{
			"python": "#!/bin/sh\nexec " + quote(have.path) + " \"$@\"\n", "python3": "#!/bin/sh\nexec " + quote(have.path) + " \"$@\"\n",
			"pip": "#!/bin/sh\nexec " + quote(have.path) + " -m pip \"$@\"\n", "pip3": "#!/bin/sh\nexec " + quote(have.path) + " -m pip \"$@\"\n",
		})
		if err != nil {
			return err
		}
		c.AddPath(dir)
		location := path.Dir(path.Dir(have.path))
		for _, name := range []string{"pythonLocation", "Python_ROOT_DIR", "Python2_ROOT_DIR", "Python3_ROOT_DIR"} {
			c.SetEnv(name, location)
		}
		c.SetEnv("PKG_CONFIG_PATH", location+"/lib/pkgconfig")
	}
	c.SetOutput("python-version", have.text)
	c.SetOutput("python-path", have.path)
	c.SetOutput("cache-hit", "false")
	if packages := c.With["pip-install"]; packages != "" {
		if err := c.script(ctx, c.Job.Workspace, `exec `+quote(have.path)+` -m pip install $1`, packages); err != nil {
			return c.errorf("", "pip-install: %w", err)
		}
	}
	return nil
}

var requiresPython = regexp.MustCompile(`(?m)^\s*(?:requires-python|python)\s*=\s*["']([^"']+)["']`)

func pythonFile(name, text string) string {
	switch name {
	case "pyproject.toml":
		if m := requiresPython.FindStringSubmatch(text); m != nil {
			return strings.ReplaceAll(strings.ReplaceAll(m[1], "==", "="), "~=", "~")
		}
		return ""
	case "Pipfile":
		if m := regexp.MustCompile(`python_(?:full_)?version\s*=\s*["']([^"']+)`).FindStringSubmatch(text); m != nil {
			return m[1]
		}
		return ""
	case ".tool-versions":
		return toolVersions(text, "python")
	}
	return firstLine(text)
}
