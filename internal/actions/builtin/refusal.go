package builtin

import (
	"fmt"
	"strings"
)

// refused are well-known actions that cannot do here what they are for, and
// what to do instead. A trailing "/" means every action of that owner.
var refused = []struct{ name, why, hint string }{
	{"azure/webapps-deploy", "there is no App Service here", "deploy to the cluster"},
	{"azure/webapps-container-deploy", "there is no App Service here", "deploy to the cluster"},
	{"azure/functions-action", "there are no Functions here", "deploy to the cluster"},
	{"azure/functions-container-action", "there are no Functions here", "deploy to the cluster"},
	{"azure/container-apps-deploy-action", "there are no Container Apps here", "deploy to the cluster"},
	{"azure/static-web-apps-deploy", "there are no Static Web Apps here", "deploy to the cluster"},
	{"azure/powershell", "there is no Azure PowerShell here", "use azure/cli"},
	{"azure/arm-deploy", "templates are not deployed here", "use Terraform or az"},
	{"azure/bicep-deploy", "templates are not deployed here", "use Terraform or az"},
	{"azure/sql-action", "there is no Azure SQL here", "run the database in the cluster"},
	{"azure/get-keyvault-secrets", "the action is retired", "use az keyvault secret show"},
	{"azure/k8s-create-secret", "it is not part of this engine", "use kubectl create secret"},
	{"azure/k8s-lint", "it is not part of this engine", "use kubectl apply --dry-run=server"},
	{"azure/container-scan", "there is no scanner here", "leave it out"},
	{"aws-actions/", "there is no AWS here", "leave it out"},
	{"google-github-actions/", "there is no Google Cloud here", "leave it out"},
	{"actions/deploy-pages", "there are no pages here", "leave it out"},
	{"actions/upload-pages-artifact", "there are no pages here", "leave it out"},
	{"actions/attest-build-provenance", "attestations are made by the image builder", "use provenance of docker/build-push-action"},
	{"github/codeql-action/init", "CodeQL is not here: nothing is scanned", "leave it out"},
	{"github/codeql-action/analyze", "CodeQL is not here: nothing is scanned", "leave it out"},
	{"sigstore/cosign-installer", "cosign is not downloaded", "install cosign on this machine and call it in a step"},
}

// Refusal says why a well-known action cannot work here, or nil. It is asked
// when the action cannot be had from anywhere else.
func Refusal(uses string) error {
	name, _, _ := strings.Cut(strings.ToLower(uses), "@")
	for _, r := range refused {
		if name == r.name || strings.HasSuffix(r.name, "/") && strings.HasPrefix(name, r.name) {
			return &Error{Msg: fmt.Sprintf("action %q cannot run here: %s", uses, r.why), Hint: r.hint}
		}
	}
	return nil
}
