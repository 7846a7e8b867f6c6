output "tenant_id" {
  description = "For deploy/base/secretproviderclass.yaml."
  value       = data.azurerm_client_config.current.tenant_id
}

output "storefront_client_id" {
  description = "For deploy/base: the identity that reads the secret."
  value       = azurerm_user_assigned_identity.storefront.client_id
}

output "registry" {
  description = "For the repository variable REGISTRY."
  value       = azurerm_container_registry.storefront.login_server
}
