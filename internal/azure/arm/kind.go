package arm

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// kind is a resource type that this resource manager has.
type kind struct {
	Type     string   // canonical: "Microsoft.KeyVault/vaults"
	Versions []string // api-versions that the provider list names; any is accepted
	// Name is the form of the resource's own name; NameRule says it in words.
	Name     *regexp.Regexp
	NameRule string
	Child    bool // lives in a parent resource: no location, no tags
	// Prepare checks what the client sent and fills in what the service adds.
	Prepare func(ctx context.Context, u *update) error
	// Removed cleans up after a resource, in the transaction that deletes it.
	Removed func(ctx context.Context, s *Server, tx *sql.Tx, r *resource) error
	// Actions are the POST operations, by lower-case name.
	Actions map[string]func(c *call, r *resource) error
	// Lists are the fixed collections below a resource, by lower-case name:
	// always empty here, but asked for by clients.
	Lists []string
}

func (k *kind) collection() string { return k.Type[strings.LastIndexByte(k.Type, '/')+1:] }

// update is a PUT or PATCH on its way into the store.
type update struct {
	s    *Server
	tx   *sql.Tx
	path path
	ver  string // api-version
	now  time.Time
	old  *resource      // nil when the resource is new
	uid  string         // of the new resource
	id   string         // canonical
	body map[string]any // whole resource, to be completed
}

// name is the resource's own name.
func (u *update) name() string { return u.path.Names[len(u.path.Names)-1] }

// props returns the "properties" object and makes it when it is missing.
func (u *update) props() (map[string]any, error) {
	switch p := u.body["properties"].(type) {
	case map[string]any:
		return p, nil
	case nil:
		m := map[string]any{}
		u.body["properties"] = m
		return m, nil
	default:
		return nil, badRequest("InvalidRequestContent", "'properties' of %s must be an object.", u.name())
	}
}

// oldProp is a property of the stored resource, or nil.
func (u *update) oldProp(name string) any {
	if u.old == nil {
		return nil
	}
	return u.old.prop(name)
}

// setDefault gives m[name] a value when the client left it out or null.
func setDefault(m map[string]any, name string, value any) {
	if m[name] == nil {
		m[name] = value
	}
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// wantBool reads an optional boolean property.
func wantBool(m map[string]any, name string, missing bool) (bool, error) {
	switch v := m[name].(type) {
	case nil:
		return missing, nil
	case bool:
		return v, nil
	default:
		return false, badRequest("InvalidRequestContent", "'%s' must be true or false, not %v.", name, v)
	}
}

// wantInt reads an optional whole number property within [low, high].
func wantInt(m map[string]any, name string, missing, low, high int) (int, error) {
	if m[name] == nil {
		return missing, nil
	}
	n := 0
	if _, err := fmt.Sscanf(fmt.Sprint(m[name]), "%d", &n); err != nil || fmt.Sprint(n) != fmt.Sprint(m[name]) || n < low || n > high {
		return 0, badRequest("BadRequest", "'%s' must be a whole number from %d to %d, not %v.", name, low, high, m[name])
	}
	return n, nil
}

// normalizeLocation turns "West Europe" into "westeurope".
func normalizeLocation(l string) string { return strings.ToLower(strings.ReplaceAll(l, " ", "")) }

var locationForm = regexp.MustCompile(`^[a-z0-9]{2,40}$`)

// checkLocation sets the normalised location of a resource with one.
func (u *update) checkLocation() error {
	loc := normalizeLocation(text(u.body["location"]))
	if loc == "" && u.old != nil {
		loc = text(u.old.body["location"])
	}
	if !locationForm.MatchString(loc) {
		return badRequest("LocationRequired", "The location property is required for this definition: give the Azure region of '%s', for example '%s'.", u.name(), u.s.cfg.Region)
	}
	if u.old != nil && text(u.old.body["location"]) != loc {
		return refuse(409, "InvalidResourceLocation", "The resource '%s' already exists in location '%s'. A resource with the same name cannot be created in location '%s'. Please select a new resource name.", u.name(), text(u.old.body["location"]), loc)
	}
	u.body["location"] = loc
	return nil
}

// checkTags refuses what cannot be a map of at most 50 strings.
func (u *update) checkTags() error {
	switch tags := u.body["tags"].(type) {
	case nil:
		delete(u.body, "tags")
	case map[string]any:
		if len(tags) > 50 {
			return badRequest("TagsLimitExceeded", "A resource has at most 50 tags, not %d.", len(tags))
		}
		for name, v := range tags {
			if _, ok := v.(string); !ok {
				return badRequest("InvalidTagValue", "The tag '%s' must be a string.", name)
			}
		}
	default:
		return badRequest("InvalidRequestContent", "'tags' must be an object of strings.")
	}
	return nil
}
