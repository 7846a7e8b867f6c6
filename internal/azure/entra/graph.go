package entra

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

var appIDFilter = regexp.MustCompile(`^\s*appId\s+eq\s+'([0-9a-fA-F-]{36})'\s*$`)

// Graph serves the part of graph.microsoft.com with which clients look up
// service principals: by object id, or filtered by application id.
func (s *Server) Graph() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			graphError(w, http.StatusUnauthorized, "InvalidAuthenticationToken", "Access token is empty.")
			return
		}
		var refused *TokenError
		if _, err := s.Verify(r.Context(), token, AudienceGraph); errors.As(err, &refused) {
			graphError(w, http.StatusUnauthorized, "InvalidAuthenticationToken", refused.Reason)
			return
		} else if err != nil {
			s.graphTrouble(w, err)
			return
		}
		path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		if r.Method != http.MethodGet || len(path) < 2 || len(path) > 3 || path[1] != "servicePrincipals" {
			graphError(w, http.StatusBadRequest, "BadRequest", fmt.Sprintf("Lockstep's Microsoft Graph only reads servicePrincipals, by id or with $filter=appId eq '…'; %s %s is not supported", r.Method, r.URL.Path))
			return
		}
		if len(path) == 3 {
			p, err := s.ByObjectID(r.Context(), path[2])
			switch {
			case err != nil:
				s.graphTrouble(w, err)
			case p == nil:
				graphError(w, http.StatusNotFound, "Request_ResourceNotFound", fmt.Sprintf("Resource '%s' does not exist or one of its queried reference-property objects are not present.", path[2]))
			default:
				writeJSON(w, http.StatusOK, s.graphPrincipal(p))
			}
			return
		}
		m := appIDFilter.FindStringSubmatch(r.URL.Query().Get("$filter"))
		if m == nil {
			graphError(w, http.StatusBadRequest, "Request_UnsupportedQuery", "Lockstep's Microsoft Graph lists servicePrincipals only with $filter=appId eq '…'")
			return
		}
		p, err := s.ByClientID(r.Context(), m[1])
		if err != nil {
			s.graphTrouble(w, err)
			return
		}
		value := []any{}
		if p != nil {
			value = append(value, s.graphPrincipal(p))
		}
		writeJSON(w, http.StatusOK, map[string]any{"value": value})
	})
}

func (s *Server) graphPrincipal(p *Principal) map[string]any {
	kind := "Application"
	if p.Managed {
		kind = "ManagedIdentity"
	}
	return map[string]any{
		"id": p.ObjectID, "appId": p.AppID, "displayName": p.Name, "appDisplayName": p.Name, "accountEnabled": true,
		"servicePrincipalType": kind, "appOwnerOrganizationId": s.cfg.TenantID,
	}
}

// graphTrouble answers for an error of our own.
func (s *Server) graphTrouble(w http.ResponseWriter, err error) {
	s.deps.Log.Error("graph", "err", err)
	graphError(w, http.StatusServiceUnavailable, "ServiceNotAvailable", "Lockstep could not answer; its log says why. Try again.")
}

func graphError(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]any{"code": code, "message": message}})
}
