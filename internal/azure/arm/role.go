package arm

import "strings"

// role is a built-in role definition.
type role struct {
	ID, Name, Description             string
	Actions, NotActions               []string
	DataActions, NotDataActions       []string
	actions, notActions, data, notDat []string // lower case
}

// roles are the built-in definitions. Their ids are the same in every tenant of Azure.
var roles = builtin([]role{
	{ID: "8e3af657-a8ff-443c-a75c-2fe8c4bcb635", Name: "Owner", Description: "Grants full access to manage all resources, including the ability to assign roles in Azure RBAC.",
		Actions: []string{"*"}},
	{ID: "b24988ac-6180-42a0-ab88-20f7382dd24c", Name: "Contributor", Description: "Grants full access to manage all resources, but does not allow you to assign roles in Azure RBAC.",
		Actions: []string{"*"}, NotActions: []string{"Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write", "Microsoft.Authorization/elevateAccess/Action"}},
	{ID: "acdd72a7-3385-48ef-bd42-f606fba81ae7", Name: "Reader", Description: "View all resources, but does not allow you to make any changes.",
		Actions: []string{"*/read"}},
	{ID: "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", Name: "User Access Administrator", Description: "Lets you manage user access to Azure resources.",
		Actions: []string{"*/read", "Microsoft.Authorization/*"}},
	{ID: "f58310d9-a9f6-439a-9e8d-f62e7b41a168", Name: "Role Based Access Control Administrator", Description: "Manage access to Azure resources by assigning roles using Azure RBAC.",
		Actions: []string{"*/read", "Microsoft.Authorization/roleAssignments/write", "Microsoft.Authorization/roleAssignments/delete"}},

	{ID: "00482a5a-887f-4fb3-b363-3b7fe8e74483", Name: "Key Vault Administrator", Description: "Perform all data plane operations on a key vault and all objects in it.",
		Actions: vaultManagement, DataActions: []string{"Microsoft.KeyVault/vaults/*"}},
	{ID: "b86a8fe4-44ce-4948-aee5-eccb2c155cd7", Name: "Key Vault Secrets Officer", Description: "Perform any action on the secrets of a key vault, except manage permissions.",
		Actions: vaultManagement, DataActions: []string{"Microsoft.KeyVault/vaults/secrets/*"}},
	{ID: "4633458b-17de-408a-b874-0445c86b69e6", Name: "Key Vault Secrets User", Description: "Read secret contents.",
		DataActions: []string{"Microsoft.KeyVault/vaults/secrets/getSecret/action", "Microsoft.KeyVault/vaults/secrets/readMetadata/action"}},
	{ID: "21090545-7ca7-4776-b22c-e363652d74d2", Name: "Key Vault Reader", Description: "Read metadata of key vaults and its certificates, keys, and secrets.",
		Actions: vaultManagement, DataActions: []string{"Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/secrets/readMetadata/action"}},
	{ID: "f25e0fa2-a7c8-4377-a976-54943a77a395", Name: "Key Vault Contributor", Description: "Lets you manage key vaults, but not access to them.",
		Actions: []string{"Microsoft.Authorization/*/read", "Microsoft.KeyVault/*", "Microsoft.Resources/subscriptions/resourceGroups/read"}},
	{ID: "a4417e6f-fecd-4de8-b567-7b0420556985", Name: "Key Vault Certificates Officer", Description: "Perform any action on the certificates of a key vault, except manage permissions.",
		Actions: vaultManagement, DataActions: []string{"Microsoft.KeyVault/vaults/certificates/*", "Microsoft.KeyVault/vaults/certificatecas/*"}},
	{ID: "14b46e9e-c2b7-41b4-b07b-48a6ebf60603", Name: "Key Vault Crypto Officer", Description: "Perform any action on the keys of a key vault, except manage permissions.",
		Actions: vaultManagement, DataActions: []string{"Microsoft.KeyVault/vaults/keys/*"}},

	{ID: "7f951dda-4ed3-4680-a7ca-43fe172d538d", Name: "AcrPull", Description: "acr pull",
		Actions: []string{"Microsoft.ContainerRegistry/registries/pull/read"}},
	{ID: "8311e382-0749-4cb8-b61a-304f252e45ec", Name: "AcrPush", Description: "acr push",
		Actions: []string{"Microsoft.ContainerRegistry/registries/pull/read", "Microsoft.ContainerRegistry/registries/push/write"}},
	{ID: "c2f4ef07-c644-48eb-af81-4b1b4947fb11", Name: "AcrDelete", Description: "acr delete",
		Actions: []string{"Microsoft.ContainerRegistry/registries/artifacts/delete"}},

	{ID: "f1a07417-d97a-45cb-824c-7a7467783830", Name: "Managed Identity Operator", Description: "Read and Assign User Assigned Identity",
		Actions: []string{"Microsoft.ManagedIdentity/userAssignedIdentities/*/read", "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action", "Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/resourceGroups/read"}},
	{ID: "e40ec5ca-96e0-45a2-b4ff-59039f2c2b59", Name: "Managed Identity Contributor", Description: "Create, Read, Update, and Delete User Assigned Identity",
		Actions: []string{"Microsoft.ManagedIdentity/userAssignedIdentities/*", "Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/resourceGroups/read"}},
	{ID: "4d97b98b-1d4f-4787-a291-c67834d212e7", Name: "Network Contributor", Description: "Lets you manage networks, but not access to them.",
		Actions: []string{"Microsoft.Authorization/*/read", "Microsoft.Network/*", "Microsoft.Resources/subscriptions/resourceGroups/read"}},
	{ID: "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b", Name: "Azure Kubernetes Service RBAC Cluster Admin", Description: "Lets you manage all resources in the cluster.",
		Actions: []string{"Microsoft.Authorization/*/read", "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action"}, DataActions: []string{"Microsoft.ContainerService/managedClusters/*"}},
	{ID: "4abbcc35-e782-43d8-92c5-2d3f1bd2253f", Name: "Azure Kubernetes Service Cluster User Role", Description: "List cluster user credential action.",
		Actions: []string{"Microsoft.ContainerService/managedClusters/listClusterUserCredential/action", "Microsoft.ContainerService/managedClusters/read"}},
	{ID: "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8", Name: "Azure Kubernetes Service Cluster Admin Role", Description: "List cluster admin credential action.",
		Actions: []string{"Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action", "Microsoft.ContainerService/managedClusters/accessProfiles/listCredential/action", "Microsoft.ContainerService/managedClusters/read"}},
	{ID: "ba92f5b4-2d11-453d-a403-e96b0029c9fe", Name: "Storage Blob Data Contributor", Description: "Allows for read, write and delete access to Azure Storage blob containers and data",
		Actions: []string{"Microsoft.Storage/storageAccounts/blobServices/containers/*"}, DataActions: []string{"Microsoft.Storage/storageAccounts/blobServices/containers/blobs/*"}},
})

// vaultManagement is what the data roles of Key Vault may do in the resource manager.
var vaultManagement = []string{
	"Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/resourceGroups/read",
	"Microsoft.KeyVault/checkNameAvailability/read", "Microsoft.KeyVault/deletedVaults/read",
	"Microsoft.KeyVault/locations/*/read", "Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/operations/read",
}

// builtin prepares the definitions for matching.
func builtin(list []role) []role {
	lower := func(in []string) []string {
		out := make([]string, len(in))
		for i, s := range in {
			out[i] = strings.ToLower(s)
		}
		return out
	}
	for i := range list {
		r := &list[i]
		r.actions, r.notActions, r.data, r.notDat = lower(r.Actions), lower(r.NotActions), lower(r.DataActions), lower(r.NotDataActions)
	}
	return list
}

// roleByID finds a definition by its GUID, or nil.
func roleByID(id string) *role {
	for i := range roles {
		if strings.EqualFold(roles[i].ID, id) {
			return &roles[i]
		}
	}
	return nil
}

// allows reports whether the role gives an action, or a data action.
func (r *role) allows(action string, data bool) bool {
	action = strings.ToLower(action)
	if data {
		return matchAny(r.data, action) && !matchAny(r.notDat, action)
	}
	return matchAny(r.actions, action) && !matchAny(r.notActions, action)
}

func matchAny(patterns []string, action string) bool {
	for _, p := range patterns {
		if matchAction(p, action) {
			return true
		}
	}
	return false
}

// matchAction matches "*" with any text, slashes included.
func matchAction(pattern, action string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == action
	}
	action, ok := strings.CutPrefix(action, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, rest, found := strings.Cut(action, part)
		if !found {
			return false
		}
		action = rest
	}
	return strings.HasSuffix(action, parts[len(parts)-1])
}

// body shows the definition at a scope.
func (r *role) body(subscription string) map[string]any {
	list := func(s []string) []string {
		if s == nil {
			return []string{}
		}
		return s
	}
	const built = "2015-02-02T21:55:09.8806423Z"
	return map[string]any{
		"id":   "/subscriptions/" + subscription + "/providers/Microsoft.Authorization/roleDefinitions/" + r.ID,
		"name": r.ID, "type": "Microsoft.Authorization/roleDefinitions",
		"properties": map[string]any{
			"roleName": r.Name, "type": "BuiltInRole", "description": r.Description, "assignableScopes": []string{"/"},
			"permissions": []any{map[string]any{
				"actions": list(r.Actions), "notActions": list(r.NotActions), "dataActions": list(r.DataActions), "notDataActions": list(r.NotDataActions),
			}},
			"createdOn": built, "updatedOn": built, "createdBy": nil, "updatedBy": nil,
		},
	}
}
