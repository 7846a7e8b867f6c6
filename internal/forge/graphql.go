package forge

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// The part of GitHub's GraphQL that gh needs for repositories, issues, pull
// requests and checks, and createCommitOnBranch. Any other field is answered
// with an error that names it. A new field is a new key of an object; a new
// mutation is a case of gqlMutations.

// gqlObject is an object whose fields are at hand. The key "__typename" is its
// type. A field may be a gqlField, which is worked out when it is asked for.
type gqlObject map[string]any

type gqlField func(args map[string]any) (any, error)

// gqlError is one error of an answer.
type gqlError struct {
	Type    string   `json:"type,omitempty"`
	Path    []string `json:"path,omitempty"`
	Message string   `json:"message"`
}

// maxGraphQLFields bounds an answer: fragments can multiply.
const maxGraphQLFields = 5000

// gqlExecution is the run of one operation.
type gqlExecution struct {
	f         *Forge
	r         *http.Request
	doc       gqlDocument
	variables map[string]any
	errors    []gqlError
	fields    int
	scenes    map[int64]*scene // by repository.id
}

func (f *Forge) apiGraphQL(_ http.ResponseWriter, r *http.Request) (any, error) {
	if IdentityFrom(r.Context()).Anonymous() {
		return nil, errNoToken
	}
	var in struct {
		Query         string         `json:"query"`
		OperationName string         `json:"operationName"`
		Variables     map[string]any `json:"variables"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	doc, err := parseGraphQL(in.Query)
	if err != nil {
		return map[string]any{"errors": []gqlError{{Message: "Parse error: " + err.Error()}}}, nil
	}
	op := doc.operations[0]
	for _, o := range doc.operations {
		if in.OperationName != "" && o.name == in.OperationName {
			op = o
		}
	}
	e := &gqlExecution{f: f, r: r, doc: doc, variables: op.defaults}
	for name, value := range in.Variables {
		e.variables[name] = value
	}
	resolve := e.query
	root := "Query"
	if op.kind == "mutation" {
		resolve, root = e.mutation, "Mutation"
	}
	data := map[string]any{}
	e.selectInto(data, op.selection, root, nil, 0, resolve)
	answer := map[string]any{"data": data}
	if len(e.errors) > 0 {
		answer["errors"] = e.errors
	}
	return answer, nil
}

// resolver gives the value of a field of an object.
type gqlResolver func(s gqlSelection, args map[string]any) (any, error)

var errNoField = errors.New("no such field")

// gqlNotFound is answered with null and GitHub's error type NOT_FOUND.
type gqlNotFound string

func (e gqlNotFound) Error() string { return string(e) }

// selectInto puts the selected fields of an object of the type into out.
func (e *gqlExecution) selectInto(out map[string]any, selection []gqlSelection, typeName string, path []string, depth int, resolve gqlResolver) {
	if depth > maxGraphQLDepth {
		e.fail("", path, "the query is nested too deeply")
		return
	}
	for _, s := range selection {
		if e.fields++; e.fields > maxGraphQLFields {
			e.fail("", path, fmt.Sprintf("the query asks for more than %d fields", maxGraphQLFields))
			return
		}
		if e.skipped(s) {
			continue
		}
		if s.spread != "" || s.inline != nil {
			fragment, ok := e.doc.fragments[s.spread]
			if s.inline != nil {
				fragment, ok = *s.inline, true
			}
			if !ok {
				e.fail("", path, "Fragment "+s.spread+" was used, but not defined")
			} else if gqlMatches(fragment.on, typeName) {
				e.selectInto(out, fragment.selection, typeName, path, depth+1, resolve)
			}
			continue
		}
		at := append(append([]string{}, path...), s.alias)
		if s.name == "__typename" {
			out[s.alias] = typeName
			continue
		}
		args, _ := e.bind(s.args).(map[string]any)
		value, err := resolve(s, args)
		var missing gqlNotFound
		switch {
		case errors.As(err, &missing):
			e.fail("NOT_FOUND", at, err.Error())
			out[s.alias] = nil
		case errors.Is(err, errNoField):
			e.fail("", at, fmt.Sprintf("Lockstep's forge doesn't support the field '%s' of '%s'", s.name, typeName))
		case err != nil:
			e.fail("UNPROCESSABLE", at, err.Error())
			out[s.alias] = nil
		default:
			out[s.alias] = e.complete(value, s, at, depth)
		}
	}
}

// gqlMatches reports whether a fragment on one type or interface is for an
// object of a type.
func gqlMatches(on, typeName string) bool {
	types, known := gqlInterfaces[on]
	return on == "" || on == typeName || known && (types == nil || slices.Contains(types, typeName))
}

// complete selects from a value what was asked of it.
func (e *gqlExecution) complete(value any, s gqlSelection, path []string, depth int) any {
	if list, ok := value.([]gqlObject); ok {
		out := make([]any, len(list))
		for i := range list {
			out[i] = e.complete(list[i], s, path, depth)
		}
		return out
	}
	object, ok := value.(gqlObject)
	if !ok {
		return value
	}
	if len(s.selection) == 0 {
		e.fail("", path, "Field '"+s.name+"' must have a selection of subfields")
		return nil
	}
	typeName, _ := object["__typename"].(string)
	out := map[string]any{}
	e.selectInto(out, s.selection, typeName, path, depth+1, func(s gqlSelection, args map[string]any) (any, error) {
		v, ok := object[s.name]
		if !ok {
			return nil, errNoField
		}
		if field, ok := v.(gqlField); ok {
			return field(args)
		}
		return v, nil
	})
	return out
}

// skipped reports whether @skip or @include leave a selection out.
func (e *gqlExecution) skipped(s gqlSelection) bool {
	for _, c := range s.conditions {
		if on, _ := e.bind(c.value).(bool); on == c.skip {
			return true
		}
	}
	return false
}

func (e *gqlExecution) fail(kind string, path []string, message string) {
	if len(e.errors) < 20 {
		e.errors = append(e.errors, gqlError{Type: kind, Path: path, Message: message})
	}
}

// bind replaces variables by their values.
func (e *gqlExecution) bind(v any) any {
	switch v := v.(type) {
	case gqlVariable:
		return e.variables[string(v)]
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = e.bind(v[i])
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(v))
		for k := range v {
			m[k] = e.bind(v[k])
		}
		return m
	}
	return v
}

func (e *gqlExecution) query(s gqlSelection, args map[string]any) (any, error) {
	text := func(name string) string { t, _ := args[name].(string); return t }
	switch s.name {
	case "viewer":
		return e.account(IdentityFrom(e.r.Context()).User), nil
	case "user", "organization", "repositoryOwner":
		login := text("login")
		if !ownerName.MatchString(login) {
			return nil, gqlNotFound("Could not resolve to an owner with the login of '" + login + "'.")
		}
		account := e.account(login)
		if s.name == "user" && account["__typename"] == "Organization" {
			owned, err := e.f.list(e.r.Context(), login)
			if err != nil {
				return nil, err
			}
			if len(owned) == 0 { // anybody may be asked for a review
				account["__typename"] = "User"
			}
		}
		if s.name == "user" && account["__typename"] != "User" || s.name == "organization" && account["__typename"] != "Organization" {
			return nil, gqlNotFound("Could not resolve to a " + s.name + " with the login of '" + login + "'.")
		}
		return account, nil
	case "__type":
		return gqlType(text("name")), nil
	case "node":
		return e.node(text("id"))
	case "search":
		return e.search(args)
	case "rateLimit":
		return gqlObject{"__typename": "RateLimit", "limit": rateLimit, "remaining": rateLimit, "cost": 1, "used": 0, "resetAt": gqlTime(e.f.deps.Now().Add(time.Hour))}, nil
	case "repository":
		full := text("owner") + "/" + text("name")
		repo, err := e.f.find(e.r.Context(), full)
		if errors.Is(err, ErrNotFound) || err == nil && !IdentityFrom(e.r.Context()).mayRead(repo) {
			return nil, gqlNotFound("Could not resolve to a Repository with the name '" + full + "'.")
		}
		if err != nil {
			return nil, err
		}
		return e.repository(repo)
	}
	return nil, errNoField
}

func (e *gqlExecution) createRepository(in map[string]any) (gqlObject, error) {
	text := func(name string) string { t, _ := in[name].(string); return t }
	owner := IdentityFrom(e.r.Context()).User
	if id := text("ownerId"); id != "" {
		name, ok := nameOfNode(id, "UO")
		if !ok {
			return nil, gqlNotFound("Could not resolve to a node with the global id of '" + id + "'")
		}
		owner = name
	}
	repo, err := e.f.createFor(e.r, RepositorySpec{
		Name: owner + "/" + text("name"), Description: text("description"), Private: text("visibility") != "PUBLIC",
	})
	if err != nil {
		return nil, err
	}
	object, err := e.repository(repo)
	return gqlObject{"repository": object}, err
}

func (e *gqlExecution) account(login string) gqlObject {
	a := e.f.account(apiBase(e.r), login)
	return gqlObject{
		"__typename": a.Type, "id": a.NodeID, "login": a.Login, "name": a.Login, "databaseId": a.ID,
		"url": a.HTMLURL, "viewerCanCreateRepositories": IdentityFrom(e.r.Context()).Write,
		"repositories": gqlField(func(args map[string]any) (any, error) { return e.repositories(login, args) }),
	}
}

// repositories is one page of an owner's repositories. The cursor is the name of
// the last one.
func (e *gqlExecution) repositories(login string, args map[string]any) (any, error) {
	all, err := e.f.list(e.r.Context(), login)
	if err != nil {
		return nil, err
	}
	after, _ := args["after"].(string)
	privacy, _ := args["privacy"].(string)
	forks, _ := args["isFork"].(bool)
	first := 30
	if n, ok := args["first"].(float64); ok {
		first = min(max(int(n), 0), 100)
	}
	id, total, more, last := IdentityFrom(e.r.Context()), 0, false, ""
	nodes := []gqlObject{}
	for _, repo := range all {
		if !id.mayRead(repo) || forks || privacy != "" && privacy != strings.ToUpper(visibility(repo)) {
			continue
		}
		total++
		if repo.key <= after {
			continue
		}
		if more = len(nodes) == first; more {
			continue
		}
		node, err := e.repository(repo)
		if err != nil {
			return nil, err
		}
		nodes, last = append(nodes, node), repo.key
	}
	return gqlObject{
		"__typename": "RepositoryConnection", "nodes": nodes, "totalCount": total,
		"pageInfo": gqlObject{"__typename": "PageInfo", "hasNextPage": more, "endCursor": last},
	}, nil
}

func (e *gqlExecution) repository(repo *repository) (gqlObject, error) {
	ctx := e.r.Context()
	permission := "READ"
	if IdentityFrom(ctx).mayWrite(repo.key) {
		permission = "ADMIN"
	}
	o := gqlObject{
		"__typename": "Repository", "id": nodeID("Repository", repo.full()), "databaseId": repo.id,
		"name": repo.name, "nameWithOwner": repo.full(), "owner": e.account(repo.owner),
		"description": repo.description, "homepageUrl": nil, "isPrivate": repo.private, "visibility": strings.ToUpper(visibility(repo)),
		"url": e.f.cfg.URL + "/" + repo.full(), "sshUrl": "", "isFork": false, "isArchived": false, "isInOrganization": e.account(repo.owner)["__typename"] == "Organization",
		"isTemplate": false, "isMirror": false, "isEmpty": true, "isDisabled": false, "isLocked": false,
		"hasIssuesEnabled": true, "hasWikiEnabled": false, "hasProjectsEnabled": false, "hasDiscussionsEnabled": false,
		"mergeCommitAllowed": repo.settings.AllowMergeCommit, "rebaseMergeAllowed": repo.settings.AllowRebaseMerge, "squashMergeAllowed": repo.settings.AllowSquashMerge,
		"deleteBranchOnMerge": repo.settings.DeleteBranchOnMerge, "autoMergeAllowed": repo.settings.AllowAutoMerge, "viewerDefaultMergeMethod": "MERGE",
		"viewerPermission": permission, "viewerCanAdminister": permission == "ADMIN", "parent": nil, "templateRepository": nil,
		"defaultBranchRef": nil, "createdAt": repo.created, "updatedAt": repo.created, "pushedAt": nil,
		"stargazerCount": 0, "forkCount": 0, "primaryLanguage": nil, "licenseInfo": nil, "latestRelease": nil,
	}
	if !repo.pushed.IsZero() {
		o["pushedAt"], o["updatedAt"] = repo.pushed, repo.pushed
	}
	e.discussions(repo, o)
	head, err := e.f.head(ctx, repo)
	if err != nil {
		return nil, err
	}
	id, err := repo.git.Resolve(ctx, "refs/heads/"+head)
	if errors.Is(err, git.ErrNotFound) {
		return o, nil
	}
	o["isEmpty"] = false
	o["defaultBranchRef"] = gqlObject{
		"__typename": "Ref", "name": head, "prefix": "refs/heads/",
		"target": gqlObject{"__typename": "Commit", "oid": id},
	}
	return o, err
}
