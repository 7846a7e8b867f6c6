package az

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

const (
	clusterKind    = "Microsoft.ContainerService/managedClusters"
	clusterVersion = "2024-05-01"
)

func clusterCommands() map[string]command {
	flags := shim.Flags{shim.F("--name", "-n"), shim.F("--resource-group", "-g"), shim.F("--ids"), shim.B("--admin", "-a"), shim.F("--file", "-f"), shim.F("--context"),
		shim.B("--overwrite-existing"), shim.B("--public-fqdn"), shim.F("--format")}
	return map[string]command{
		"aks list": {flags, func(ctx context.Context, c *call) (any, error) {
			return c.listOf(ctx, clusterKind, clusterVersion, true)
		}},
		"aks show":            {flags, func(ctx context.Context, c *call) (any, error) { return c.show(ctx, clusterKind, clusterVersion, true) }},
		"aks get-credentials": {flags, getCredentials},
	}
}

// getCredentials merges the cluster's kubeconfig into a file, or prints it.
func getCredentials(ctx context.Context, c *call) (any, error) {
	if err := c.need("name", "resource-group"); err != nil {
		return nil, err
	}
	scope, err := c.scope()
	if err != nil {
		return nil, err
	}
	which := "listClusterUserCredential"
	if c.On("admin") {
		which = "listClusterAdminCredential"
	}
	var answer struct {
		Kubeconfigs []struct{ Name, Value string } `json:"kubeconfigs"`
	}
	route := scope + "/resourceGroups/" + url.PathEscape(c.Get("resource-group")) + "/providers/" + clusterKind + "/" + url.PathEscape(c.Get("name")) + "/" + which + "?api-version=" + clusterVersion
	if err := c.arm(ctx, http.MethodPost, route, nil, &answer); err != nil {
		return nil, err
	}
	if len(answer.Kubeconfigs) == 0 {
		return nil, errors.New("No Kubernetes credentials found.") //nolint:staticcheck // the text of az
	}
	data, err := base64.StdEncoding.DecodeString(answer.Kubeconfigs[0].Value)
	if err != nil {
		return nil, fmt.Errorf("the cluster's kubeconfig is not base64: %w", err)
	}
	file := c.Get("file")
	if file == "-" {
		_, err := c.Stdout.Write(data)
		return nil, err
	}
	if file == "" {
		file = filepath.Join(c.Getenv("HOME"), ".kube", "config")
	}
	name, err := mergeKubeconfig(c.Path(file), data, c.Get("context"), c.On("overwrite-existing"))
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c.Stderr, "Merged %q as current context in %s\n", name, file)
	return nil, err
}

// kubeconfig keeps what it does not know.
type kubeconfig struct {
	Clusters       []namedItem    `yaml:"clusters"`
	Users          []namedItem    `yaml:"users"`
	Contexts       []namedItem    `yaml:"contexts"`
	CurrentContext string         `yaml:"current-context"`
	Rest           map[string]any `yaml:",inline"`
}

type namedItem struct {
	Name string         `yaml:"name"`
	Rest map[string]any `yaml:",inline"`
}

// mergeKubeconfig adds a kubeconfig to a file and makes its context the current
// one. Without overwrite a different entry of the same name is refused.
func mergeKubeconfig(file string, data []byte, context string, overwrite bool) (string, error) {
	var added, all kubeconfig
	if err := yaml.Unmarshal(data, &added); err != nil {
		return "", fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	if context != "" && len(added.Contexts) > 0 {
		added.Contexts[0].Name, added.CurrentContext = context, context
	}
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := yaml.Unmarshal(old, &all); err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	if all.Rest == nil {
		all.Rest = map[string]any{"apiVersion": "v1", "kind": "Config", "preferences": map[string]any{}}
	}
	for _, lists := range [][2]*[]namedItem{{&all.Clusters, &added.Clusters}, {&all.Users, &added.Users}, {&all.Contexts, &added.Contexts}} {
		for _, item := range *lists[1] {
			if err := put(lists[0], item, overwrite); err != nil {
				return "", fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	all.CurrentContext = added.CurrentContext
	out, err := yaml.Marshal(all)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".kubeconfig-")
	if err != nil {
		return "", err
	}
	_, err = f.Write(out)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return added.CurrentContext, err
}

func put(list *[]namedItem, item namedItem, overwrite bool) error {
	for i, old := range *list {
		if old.Name != item.Name {
			continue
		}
		if !overwrite && fmt.Sprint(old.Rest) != fmt.Sprint(item.Rest) {
			return fmt.Errorf("a different object named %s already exists in your kubeconfig file; use --overwrite-existing", item.Name)
		}
		(*list)[i] = item
		return nil
	}
	*list = append(*list, item)
	return nil
}
