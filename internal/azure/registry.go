package azure

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/lockstep-gitops/lockstep/internal/azure/entra"
)

// ErrRegistryLogin is wrapped by every refusal of VerifyRegistryLogin; other
// errors are this machine's own.
var ErrRegistryLogin = errors.New("registry login refused")

// tokenUser is the user name with which a token is given as the password.
const tokenUser = "00000000-0000-0000-0000-000000000000"

// adminPrefix marks the principal of a registry's admin user.
const adminPrefix = "admin:"

// RegistryExists reports whether a container registry resource has the login
// server ("storefront.azurecr.io").
func (a *Azure) RegistryExists(ctx context.Context, loginServer string) (bool, error) {
	r, err := a.arm.Registry(ctx, loginServer)
	return r != nil, err
}

// VerifyRegistryLogin checks a user name and password for the registry at host:
// its admin user, a service principal's client id and secret, or the all-zero
// GUID with an Entra access token or a token of RegistryToken. It returns the
// principal for AllowedRegistry. A refusal wraps ErrRegistryLogin.
func (a *Azure) VerifyRegistryLogin(ctx context.Context, host, user, password string) (principal string, err error) {
	r, err := a.arm.Registry(ctx, host)
	if err != nil {
		return "", err
	}
	if r == nil {
		return "", fmt.Errorf("%w: there is no container registry %q; create the Microsoft.ContainerRegistry/registries resource first", ErrRegistryLogin, host)
	}
	switch {
	case strings.EqualFold(user, tokenUser):
		p, err := a.entra.VerifyRegistry(ctx, password, r.LoginServer)
		if err != nil {
			return "", loginError(err)
		}
		return p.ObjectID, nil
	case uuid.Validate(user) == nil:
		p, err := a.entra.CheckSecret(ctx, user, password)
		if err != nil {
			return "", loginError(err)
		}
		return p.ObjectID, nil
	case strings.EqualFold(user, r.Name):
		if !r.AdminEnabled {
			return "", fmt.Errorf("%w: the admin user of the registry %q is disabled; set adminUserEnabled, or sign in with an identity", ErrRegistryLogin, r.Name)
		}
		ok, err := a.arm.CheckAdmin(r, password)
		if err != nil {
			return "", err
		}
		if ok {
			return adminPrefix + strings.ToLower(r.Name), nil
		}
	}
	return "", fmt.Errorf("%w: wrong user name or password for %q", ErrRegistryLogin, host)
}

// RegistryToken exchanges an Entra access token for a refresh token of the
// registry at host, as ACR's /oauth2/exchange does. A refusal wraps
// ErrRegistryLogin.
func (a *Azure) RegistryToken(ctx context.Context, host, accessToken string) (string, error) {
	r, err := a.arm.Registry(ctx, host)
	if err != nil {
		return "", err
	}
	if r == nil {
		return "", fmt.Errorf("%w: there is no container registry %q", ErrRegistryLogin, host)
	}
	p, err := a.entra.Verify(ctx, accessToken, entra.AudienceRegistry)
	if err != nil {
		return "", loginError(err)
	}
	return a.entra.RegistryToken(p, r.LoginServer)
}

// loginError marks refusals of the token service, and leaves its troubles alone.
func loginError(err error) error {
	if entra.Refused(err) {
		return fmt.Errorf("%w: %w", ErrRegistryLogin, err)
	}
	return err
}

// registryActions are the permissions that role assignments speak of.
var registryActions = map[string]string{
	"pull":   "Microsoft.ContainerRegistry/registries/pull/read",
	"push":   "Microsoft.ContainerRegistry/registries/push/write",
	"delete": "Microsoft.ContainerRegistry/registries/artifacts/delete",
}

// AllowedRegistry reports whether a principal of VerifyRegistryLogin may "pull",
// "push" or "delete" in the registry at host.
func (a *Azure) AllowedRegistry(ctx context.Context, principal, host, action string) (bool, error) {
	permission := registryActions[action]
	if permission == "" {
		return false, fmt.Errorf("registry action %q is not one of pull, push, delete", action)
	}
	r, err := a.arm.Registry(ctx, host)
	if err != nil || r == nil {
		return false, err
	}
	if name, ok := strings.CutPrefix(principal, adminPrefix); ok {
		return r.AdminEnabled && strings.EqualFold(name, r.Name), nil
	}
	return a.arm.Allowed(ctx, principal, permission, r.ID, false)
}
