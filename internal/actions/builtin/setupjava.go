package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"
)

func setupJava() Action {
	const maven = "write it into settings.xml in a step"
	return Action{
		Name: "actions/setup-java",
		Inputs: map[string]string{"distribution": "", "java-version": "", "java-version-file": "", "java-package": "jdk", "check-latest": "false", "architecture": "",
			"jdkfile": "", "server-id": "github", "server-username": "GITHUB_ACTOR", "server-password": "GITHUB_TOKEN", "settings-path": "",
			"overwrite-settings": "true", "gpg-private-key": "", "gpg-passphrase": "", "mvn-toolchain-id": "", "mvn-toolchain-vendor": ""},
		NoEffect: map[string]string{"cache": cacheKept, "cache-dependency-path": cacheKept, "token": "nothing is downloaded", "job-status": maven, "set-default": "the version becomes the default"},
		Run:      runSetupJava,
	}
}

func runSetupJava(ctx context.Context, c *Call) error {
	if err := c.unsupported(map[string]string{"jdkfile": "install the JDK on this machine", "gpg-private-key": "import the key in a step of its own",
		"mvn-toolchain-id": "write toolchains.xml in a step", "mvn-toolchain-vendor": "write toolchains.xml in a step"}); err != nil {
		return err
	}
	wanted, input, err := versionInput(c, "java-version", "java-version-file", javaFile)
	if err != nil {
		return err
	}
	if wanted == "" {
		return c.errorf("write java-version or java-version-file", "actions/setup-java needs a version")
	}
	var have installed
	for _, line := range strings.Fields(wanted) {
		if have, err = java.pick(ctx, c, input, strings.TrimSuffix(line, "-ea")); err != nil {
			return err
		}
		real, err := c.capture(ctx, c.Job.Workspace, "readlink", "-f", have.path)
		if err != nil {
			return c.errorf("", "find the folder of %s: %w", have.path, err)
		}
		have.path = strings.TrimSpace(real)
		home := path.Dir(path.Dir(have.path))
		c.SetEnv("JAVA_HOME", home)
		c.SetEnv("JAVA_HOME_"+fmt.Sprint(have.version.Major())+"_X64", home)
		c.Logf("Using Java %s of this machine (%s); distribution %q is what it is.", have.text, home, c.With["distribution"])
	}
	c.onPath(ctx, have.path)
	c.SetOutput("distribution", c.With["distribution"])
	c.SetOutput("version", have.text)
	c.SetOutput("path", path.Dir(path.Dir(have.path)))
	c.SetOutput("cache-hit", "false")
	return mavenSettings(c)
}

// mavenSettings writes ~/.m2/settings.xml with the server's login, by the names
// of variables.
func mavenSettings(c *Call) error {
	for _, name := range []string{"server-id", "server-username", "server-password"} {
		if strings.ContainsAny(c.With[name], "<>&\"\n") {
			return c.errorf("", "input %s: %q cannot stand in settings.xml", name, c.With[name])
		}
	}
	overwrite, err := c.flag("overwrite-settings")
	if err != nil {
		return err
	}
	const file = ".m2/settings.xml"
	if c.With["settings-path"] != "" {
		return c.errorf("leave it out: ~/.m2 is used", "input settings-path is not supported")
	}
	if _, err := c.Job.Home.Stat(file); err == nil && !overwrite {
		return nil
	}
	text := "<settings xmlns=\"http://maven.apache.org/SETTINGS/1.0.0\">\n  <interactiveMode>false</interactiveMode>\n  <servers>\n    <server>\n      <id>" +
		c.With["server-id"] + "</id>\n      <username>${env." + c.With["server-username"] + "}</username>\n      <password>${env." + c.With["server-password"] +
		"}</password>\n    </server>\n  </servers>\n</settings>\n"
	if err := c.Job.Home.MkdirAll(".m2", 0o755); err != nil {
		return err
	}
	return c.Job.Home.WriteFile(file, []byte(text), 0o600)
}

func javaFile(name, text string) string {
	line := firstLine(text)
	switch name {
	case ".tool-versions":
		line = toolVersions(text, "java")
	case ".sdkmanrc":
		line = regexp.MustCompile(`(?m)^java=(\S+)`).FindString(text)
	}
	if m := regexp.MustCompile(`\d+(?:\.\d+)*`).FindString(line); m != "" {
		major, _, _ := strings.Cut(m, ".")
		return major
	}
	return ""
}

func setupDotnet() Action {
	const source = "packages come from where the machine's configuration says"
	return Action{
		Name:     "actions/setup-dotnet",
		Inputs:   map[string]string{"dotnet-version": "", "global-json-file": "", "dotnet-quality": "", "architecture": "", "workloads": ""},
		NoEffect: map[string]string{"cache": cacheKept, "cache-dependency-path": cacheKept, "source-url": source, "owner": source, "config-file": source},
		Run: func(ctx context.Context, c *Call) error {
			wanted, input, err := versionInput(c, "dotnet-version", "global-json-file", func(_, text string) string {
				var g struct{ SDK struct{ Version string } }
				if err := json.Unmarshal([]byte(text), &g); err != nil {
					return ""
				}
				return g.SDK.Version
			})
			if err != nil {
				return err
			}
			if err := c.unsupported(map[string]string{"workloads": "install workloads in a step"}); err != nil {
				return err
			}
			var have installed
			for _, line := range append(strings.Fields(wanted), "")[:max(1, len(strings.Fields(wanted)))] {
				if have, err = dotnet.pick(ctx, c, input, line); err != nil {
					return err
				}
			}
			c.Logf("Using .NET SDK %s of this machine (%s)", have.text, have.path)
			c.onPath(ctx, have.path)
			c.SetEnv("DOTNET_ROOT", path.Dir(have.path))
			c.SetOutput("dotnet-version", have.text)
			c.SetOutput("cache-hit", "false")
			return nil
		},
	}
}
