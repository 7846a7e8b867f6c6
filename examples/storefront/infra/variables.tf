variable "location" {
  description = "Azure region of every resource."
  type        = string
  default     = "westeurope"
}

variable "registry_name" {
  description = "Name of the container registry; its host is <name>.azurecr.io, unique in all of Azure."
  type        = string
  default     = "storefront"
}

variable "vault_name" {
  description = "Name of the key vault; its host is <name>.vault.azure.net, unique in all of Azure."
  type        = string
  default     = "storefront-kv"
}

variable "payment_key" {
  description = "The secret that the storefront reads. Kept out of the state."
  type        = string
  sensitive   = true
  ephemeral   = true
}
