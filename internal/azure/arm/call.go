package arm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/lockstep-gitops/lockstep/internal/azure/entra"
)

const maxBody = 4 << 20

var apiVersionForm = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}(-[a-zA-Z]+(\.\d+)?)?$`)

// call is one request.
type call struct {
	s   *Server
	w   http.ResponseWriter
	r   *http.Request
	ctx context.Context
	now time.Time
	who *entra.Principal
	ver string // api-version
}

// serve authenticates the request and routes it by its path.
func (c *call) serve() error {
	c.w.Header().Set("x-ms-request-id", uuid.NewString())
	if err := c.authenticate(); err != nil {
		return err
	}
	p, ok := parsePath(c.r.URL.Path)
	if !ok {
		return badRequest("InvalidRequestUri", "The request path is not a resource id.")
	}
	c.ver = c.query("api-version")
	if c.ver == "" {
		return badRequest("MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
	}
	if !apiVersionForm.MatchString(c.ver) {
		return badRequest("InvalidApiVersionParameter", "The api-version '%s' is invalid. It has the form YYYY-MM-DD or YYYY-MM-DD-preview.", c.ver)
	}
	if p.Subscription != "" && !strings.EqualFold(p.Subscription, c.s.cfg.SubscriptionID) {
		return refuse(http.StatusNotFound, "SubscriptionNotFound", "The subscription '%s' could not be found. This local Azure has the one subscription '%s'.", p.Subscription, c.s.cfg.SubscriptionID)
	}
	switch ns := strings.ToLower(p.Namespace); {
	case ns == "":
		return c.plain(p)
	case ns == "microsoft.authorization":
		return c.authorization(p)
	case len(p.Types) == 0 || slices.Contains([]string{"register", "unregister"}, strings.ToLower(p.Types[0])):
		return c.provider(p)
	case ns == "microsoft.keyvault" && p.Group == "" && p.Types[0] != "vaults":
		return c.vaultsOfSubscription(p)
	case len(p.Types) == 1 && len(p.Names) == 0 && strings.EqualFold(p.Types[0], "checkNameAvailability"):
		return c.checkName(p)
	case ns == "microsoft.keyvault" && strings.EqualFold(at(p.Types, 1), "accessPolicies"):
		return c.accessPolicies(p)
	}
	return c.resource(p)
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return ""
}

// authenticate reads the bearer token.
func (c *call) authenticate() error {
	header := c.r.Header.Get("Authorization")
	challenge := fmt.Sprintf(`Bearer authorization_uri="https://%s/%s", error="invalid_token"`, entra.Host, c.s.cfg.TenantID)
	if header == "" {
		c.w.Header().Set("WWW-Authenticate", challenge+`, error_description="The authentication failed because of missing 'Authorization' header."`)
		return refuse(http.StatusUnauthorized, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		c.w.Header().Set("WWW-Authenticate", challenge)
		return refuse(http.StatusUnauthorized, "AuthenticationFailedInvalidHeader", "Authentication failed. The 'Authorization' header is provided in an invalid format.")
	}
	who, err := c.s.principals.Verify(c.ctx, strings.TrimSpace(token), entra.AudienceARM)
	var refused *entra.TokenError
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if err != nil {
		c.w.Header().Set("WWW-Authenticate", challenge+`, error_description="The access token is invalid."`)
		return refuse(http.StatusUnauthorized, "InvalidAuthenticationToken", "The access token is invalid: %v.", err)
	}
	c.who = who
	return nil
}

// query reads a query parameter without regard to the case of its name.
func (c *call) query(name string) string {
	values := c.r.URL.Query()
	if v := values.Get(name); v != "" {
		return v
	}
	for k, v := range values {
		if strings.EqualFold(k, name) && len(v) > 0 {
			return v[0]
		}
	}
	return ""
}

// require fails unless the caller may do action at the scope.
func (c *call) require(action, scope string) error {
	ok, err := c.s.Allowed(c.ctx, c.who.ObjectID, action, scope, false)
	if err != nil {
		return err
	}
	if !ok {
		if scope == "" {
			scope = "/"
		}
		return refuse(http.StatusForbidden, "AuthorizationFailed", "The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
			c.who.AppID, c.who.ObjectID, action, scope)
	}
	return nil
}

// body reads the request's JSON object. Numbers keep their form.
func (c *call) body() (map[string]any, error) {
	d := json.NewDecoder(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	d.UseNumber()
	var body map[string]any
	if err := d.Decode(&body); err != nil {
		if err == io.EOF {
			return nil, badRequest("InvalidRequestContent", "The request content is empty; a JSON object is needed.")
		}
		return nil, badRequest("InvalidRequestContent", "The request content was invalid and could not be deserialized: '%v'.", err)
	}
	if body == nil {
		return nil, badRequest("InvalidRequestContent", "The request content is null; a JSON object is needed.")
	}
	if d.More() {
		return nil, badRequest("InvalidRequestContent", "The request content holds more than one JSON value.")
	}
	return body, nil
}

func (c *call) methodNotAllowed() error {
	return refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", "The method %s is not supported for '%s'.", c.r.Method, c.r.URL.Path)
}

// list answers a collection.
func (c *call) list(items []any) error {
	if items == nil {
		items = []any{}
	}
	writeJSON(c.w, http.StatusOK, map[string]any{"value": items})
	return nil
}
