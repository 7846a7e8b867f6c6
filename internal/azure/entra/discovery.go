package entra

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Host is the authority's name.
const Host = "login.microsoftonline.com"

// instance answers MSAL's question whether an authority is genuine.
func (s *Server) instance(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": "https://" + Host + "/" + s.cfg.TenantID + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata": []any{map[string]any{
			"preferred_network": Host,
			"preferred_cache":   "login.windows.net",
			"aliases":           []string{Host, "login.windows.net", "login.microsoft.com", "sts.windows.net"},
		}},
	})
}

// openIDConfiguration is the discovery document of the tenant.
func (s *Server) openIDConfiguration(w http.ResponseWriter, _ *http.Request, tenant string, v2 bool) {
	base := "https://" + Host + "/" + tenant
	if strings.EqualFold(tenant, s.cfg.TenantID) {
		tenant = s.cfg.TenantID
		base = "https://" + Host + "/" + tenant
	} else {
		tenant = "{tenantid}" // as Entra does for /common
	}
	version, keys, issuer := "", "/discovery/keys", "https://sts.windows.net/"+tenant+"/"
	if v2 {
		version, keys, issuer = "/v2.0", "/discovery/v2.0/keys", "https://"+Host+"/"+tenant+"/v2.0"
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                issuer,
		"token_endpoint":                        base + "/oauth2" + version + "/token",
		"authorization_endpoint":                base + "/oauth2" + version + "/authorize",
		"device_authorization_endpoint":         base + "/oauth2" + version + "/devicecode",
		"end_session_endpoint":                  base + "/oauth2" + version + "/logout",
		"jwks_uri":                              base + keys,
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		"response_modes_supported":              []string{"query", "fragment", "form_post"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"response_types_supported":              []string{"code", "id_token", "code id_token", "token"},
		"scopes_supported":                      []string{"openid"},
		"claims_supported":                      []string{"sub", "iss", "aud", "exp", "iat", "nbf", "appid", "oid", "tid", "ver"},
		"tenant_region_scope":                   nil,
		"cloud_instance_name":                   "microsoftonline.com",
		"cloud_graph_host_name":                 "graph.windows.net",
		"msgraph_host":                          "graph.microsoft.com",
		"rbac_url":                              "https://pas.windows.net",
	})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails only when the client is gone
}
