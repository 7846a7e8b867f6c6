package builtin

import (
	"context"
	"errors"
	"io/fs"
	"regexp"
	"strings"
)

func setupTerraform() Action {
	return Action{
		Name: "hashicorp/setup-terraform",
		Inputs: map[string]string{"cli_config_credentials_hostname": "app.terraform.io", "cli_config_credentials_token": "",
			"terraform_version": "latest", "terraform_wrapper": "true"},
		Run: runSetupTerraform,
	}
}

var terraform = tool{
	name: "Terraform", find: []string{"terraform", "/usr/local/bin/terraform", "/opt/hostedtoolcache/terraform/*/*/terraform"}, version: []string{"version"},
	pattern: regexp.MustCompile(`Terraform v(\d+\.\d+\.\d+\S*)`), install: "install Terraform on this machine, in /usr/local/bin",
}

// terraformWrapper runs Terraform and gives what it said to the step as the
// outputs stdout, stderr and exitcode. As with the real wrapper, 2 (changes,
// by -detailed-exitcode) is no failure.
const terraformWrapper = `#!/bin/sh
dir=$(mktemp -d "${RUNNER_TEMP:-/tmp}/terraform.XXXXXX") || exit 1
{ { PROGRAM "$@" 3>&-; echo $? >"$dir/code"; } 2>&1 >&3 | tee "$dir/err" >&2; } 3>&1 | tee "$dir/out"
code=$(cat "$dir/code")
if [ -n "$GITHUB_OUTPUT" ]; then
	mark=ghadelimiter_$(cat /proc/sys/kernel/random/uuid)
	for pair in stdout:out stderr:err; do
		printf '%s<<%s\n' "${pair%:*}" "$mark"; cat "$dir/${pair#*:}"; printf '\n%s\n' "$mark"
	done >>"$GITHUB_OUTPUT"
	printf 'exitcode=%s\n' "$code" >>"$GITHUB_OUTPUT"
fi
rm -rf "$dir"
case $code in
0|2) exit 0;;
esac
echo "::error::Terraform exited with code $code." >&2
exit "$code"
`

func runSetupTerraform(ctx context.Context, c *Call) error {
	wrapper, err := c.flag("terraform_wrapper")
	if err != nil {
		return err
	}
	have, err := terraform.pick(ctx, c, "terraform_version", c.With["terraform_version"])
	if err != nil {
		return err
	}
	c.Logf("Using Terraform %s of this machine (%s)", have.text, have.path)
	if wrapper {
		dir, err := c.shimFolder("terraform", map[string]string{
			"terraform":     strings.Replace(terraformWrapper, "PROGRAM", quote(have.path), 1),
			"terraform-bin": "#!/bin/sh\nexec " + quote(have.path) + " \"$@\"\n",
		})
		if err != nil {
			return err
		}
		c.AddPath(dir)
		c.SetEnv("TERRAFORM_CLI_PATH", dir)
	} else {
		c.onPath(ctx, have.path)
	}
	return terraformCredentials(c)
}

// terraformCredentials writes ~/.terraformrc, as the real action does.
func terraformCredentials(c *Call) error {
	token := c.With["cli_config_credentials_token"]
	if token == "" {
		return nil
	}
	c.Job.Mask(token)
	host := c.With["cli_config_credentials_hostname"]
	if strings.ContainsAny(host+token, "\"\\\n$%{}") {
		return c.errorf("", "cli_config_credentials_hostname or cli_config_credentials_token has a character that Terraform's configuration cannot hold")
	}
	const file = ".terraformrc"
	old, err := readFile(c.Job.Home, file, 1<<20)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := string(old) + "credentials \"" + host + "\" {\n  token = \"" + token + "\"\n}\n"
	c.Logf("Writing credentials for %s to ~/%s", host, file)
	return c.Job.Home.WriteFile(file, []byte(text), 0o600)
}
