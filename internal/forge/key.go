package forge

// kindDeploy and kindPersonal are the tokens that people see in lists.
const (
	kindDeploy   = "deploy"
	kindPersonal = "personal"
)
