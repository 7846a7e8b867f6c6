package azure

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// parameters are what a SecretProviderClass says for this provider.
type parameters struct {
	vault    string
	tenant   string // "" when the class leaves it to the cluster
	clientID string // "" when the class leaves it to the service account
	objects  []object
	warnings []string
}

var vaultName = regexp.MustCompile(`^[-A-Za-z0-9]{3,24}$`)

// unsupportedModes are ways to an identity that this provider has not got.
var unsupportedModes = []struct{ key, why string }{
	{"usePodIdentity", "AAD Pod Identity is retired"},
	{"useVMManagedIdentity", "managed identities of the node's machine are not supported"},
	{"useAzureTokenProxy", "AKS identity bindings are not supported yet"},
}

// parseParameters reads and checks the attributes. Its errors are about the
// class and say what to change.
func parseParameters(attributes map[string]string) (parameters, error) {
	get := func(key string) string { return strings.TrimSpace(attributes[key]) }
	p := parameters{vault: get("keyvaultName"), tenant: get("tenantID"), clientID: get("clientID")}
	if p.tenant == "" {
		p.tenant = get("tenantId")
	}
	if p.vault == "" {
		return p, errors.New("parameter keyvaultName is not set")
	}
	if !vaultName.MatchString(p.vault) {
		return p, fmt.Errorf("parameter keyvaultName %q must be 3 to 24 letters, digits and dashes, the vault's name without its domain", p.vault)
	}
	for _, mode := range unsupportedModes {
		if get(mode.key) == "" {
			continue
		}
		on, err := strconv.ParseBool(get(mode.key))
		if err != nil {
			return p, fmt.Errorf("parameter %s must be true or false, not %q", mode.key, get(mode.key))
		}
		if on {
			return p, fmt.Errorf("parameter %s: %s; use workload identity: set it to \"false\" and give clientID", mode.key, mode.why)
		}
	}
	if cloud := get("cloudName"); cloud != "" && !strings.EqualFold(cloud, "AzurePublicCloud") && !strings.EqualFold(cloud, "AzureCloud") {
		return p, fmt.Errorf("parameter cloudName %q is not supported, only AzurePublicCloud is", cloud)
	}
	if get("userAssignedIdentityID") != "" {
		p.warnings = append(p.warnings, "parameter userAssignedIdentityID is ignored: it belongs to useVMManagedIdentity")
	}
	var err error
	var warnings []string
	p.objects, warnings, err = parseObjects(attributes["objects"])
	p.warnings = append(p.warnings, warnings...)
	return p, err
}
