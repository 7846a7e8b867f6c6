# What the storefront needs in Azure: a registry for its image, a vault for its
# secret, a cluster to run in, and an identity that may read the one from the other.

terraform {
  required_version = ">= 1.11"
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 5.2"
    }
  }
}

provider "azurerm" {
  features {}
}

data "azurerm_client_config" "current" {}

resource "azurerm_resource_group" "storefront" {
  name     = "storefront"
  location = var.location
}

resource "azurerm_container_registry" "storefront" {
  name                = var.registry_name
  resource_group_name = azurerm_resource_group.storefront.name
  location            = azurerm_resource_group.storefront.location
  sku                 = "Basic"
  admin_enabled       = true # the workflow logs in with it
}

resource "azurerm_key_vault" "storefront" {
  name                          = var.vault_name
  resource_group_name           = azurerm_resource_group.storefront.name
  location                      = azurerm_resource_group.storefront.location
  tenant_id                     = data.azurerm_client_config.current.tenant_id
  sku_name                      = "standard"
  rbac_authorization_enabled    = true
  public_network_access_enabled = true
}

resource "azurerm_kubernetes_cluster" "storefront" {
  name                      = "storefront"
  resource_group_name       = azurerm_resource_group.storefront.name
  location                  = azurerm_resource_group.storefront.location
  dns_prefix                = "storefront"
  oidc_issuer_enabled       = true
  workload_identity_enabled = true

  default_node_pool {
    name       = "system"
    vm_size    = "Standard_D2s_v5"
    node_count = 1
  }

  node_provisioning_profile {
    mode = "Manual"
  }

  key_vault_secrets_provider {
    secret_rotation_enabled  = true
    secret_rotation_interval = "2m"
  }

  identity {
    type = "SystemAssigned"
  }
}

resource "azurerm_user_assigned_identity" "storefront" {
  name                = "storefront"
  resource_group_name = azurerm_resource_group.storefront.name
  location            = azurerm_resource_group.storefront.location
}

resource "azurerm_federated_identity_credential" "storefront" {
  name                      = "storefront"
  user_assigned_identity_id = azurerm_user_assigned_identity.storefront.id
  issuer                    = azurerm_kubernetes_cluster.storefront.oidc_issuer_url
  subject                   = "system:serviceaccount:storefront:storefront"
  audience                  = ["api://AzureADTokenExchange"]
}

# The workload reads its secrets.
resource "azurerm_role_assignment" "storefront_secrets" {
  scope                            = azurerm_key_vault.storefront.id
  role_definition_name             = "Key Vault Secrets User"
  principal_id                     = azurerm_user_assigned_identity.storefront.principal_id
  skip_service_principal_aad_check = true
}

# Whoever applies this writes them.
resource "azurerm_role_assignment" "operator_secrets" {
  scope                = azurerm_key_vault.storefront.id
  role_definition_name = "Key Vault Secrets Officer"
  principal_id         = data.azurerm_client_config.current.object_id
}

# The nodes pull the image.
resource "azurerm_role_assignment" "nodes_pull" {
  scope                            = azurerm_container_registry.storefront.id
  role_definition_name             = "AcrPull"
  principal_id                     = azurerm_kubernetes_cluster.storefront.kubelet_identity[0].object_id
  skip_service_principal_aad_check = true
}

resource "azurerm_key_vault_secret" "payment_key" {
  name             = "payment-key"
  key_vault_id     = azurerm_key_vault.storefront.id
  value_wo         = var.payment_key
  value_wo_version = 1

  depends_on = [azurerm_role_assignment.operator_secrets]
}
