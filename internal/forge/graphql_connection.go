package forge

import (
	"strconv"
	"strings"
	"time"
)

// connection is the part of a list that the arguments first, last, after and
// before ask for. A cursor is the place in the list, from 1.
func connection(kind string, args map[string]any, nodes []gqlObject) gqlObject {
	number := func(name string) (int, bool) {
		switch v := args[name].(type) {
		case float64:
			return min(max(int(v), 0), 100), true
		case int:
			return v, true
		}
		return 0, false
	}
	place := func(name string, otherwise int) int {
		text, _ := args[name].(string)
		if n, err := strconv.Atoi(strings.TrimSuffix(text, "=")); err == nil {
			return min(max(n, 0), len(nodes))
		}
		return otherwise
	}
	from, to := place("after", 0), place("before", len(nodes)+1)-1
	to = min(max(to, from), len(nodes))
	if n, ok := number("first"); ok {
		to = min(to, from+n)
	} else if n, ok := number("last"); ok {
		from = max(from, to-n)
	} else {
		to = min(to, from+100)
	}
	edges := make([]gqlObject, 0, to-from)
	for n := from; n < to; n++ {
		edges = append(edges, gqlObject{"__typename": kind + "Edge", "cursor": strconv.Itoa(n + 1), "node": nodes[n]})
	}
	return gqlObject{
		"__typename": kind + "Connection", "totalCount": len(nodes), "nodes": nodes[from:to], "edges": edges, "issueCount": len(nodes),
		"pageInfo": gqlObject{
			"__typename": "PageInfo", "hasNextPage": to < len(nodes), "hasPreviousPage": from > 0,
			"startCursor": strconv.Itoa(from + 1), "endCursor": strconv.Itoa(to),
		},
	}
}

// gqlList is a field with a connection of nodes that are made when it is asked
// for.
func gqlList(kind string, nodes func(args map[string]any) ([]gqlObject, error)) gqlField {
	return func(args map[string]any) (any, error) {
		all, err := nodes(args)
		if err != nil {
			return nil, err
		}
		return connection(kind, args, all), nil
	}
}

// empty is a field with a connection of what the forge never has.
func emptyConnection(kind string) gqlField {
	return gqlList(kind, func(map[string]any) ([]gqlObject, error) { return nil, nil })
}

// gqlLater is a field without arguments that is worked out when it is asked for.
func gqlLater(value func() (any, error)) gqlField {
	return func(map[string]any) (any, error) { return value() }
}

// gqlTime is nil for the zero time.
func gqlTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Truncate(time.Second)
}

// gqlText is nil for "".
func gqlText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func gqlString(args map[string]any, name string) string {
	s, _ := args[name].(string)
	return s
}

// gqlStrings reads a list of texts, or one text in place of a list.
func gqlStrings(args map[string]any, name string) []string {
	switch v := args[name].(type) {
	case string:
		return []string{v}
	case []any:
		list := []string{}
		for _, one := range v {
			if s, ok := one.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}

// gqlInterfaces are GitHub's interfaces and unions, with the types of them that
// there are here.
var gqlInterfaces = map[string][]string{
	"Node":                     nil, // all
	"RepositoryOwner":          {"User", "Organization"},
	"ProfileOwner":             {"User", "Organization"},
	"Actor":                    {"User", "Organization", "Bot"},
	"RequestedReviewer":        {"User", "Team"},
	"Assignee":                 {"User", "Bot"},
	"IssueOrPullRequest":       {"Issue", "PullRequest"},
	"Assignable":               {"Issue", "PullRequest"},
	"Labelable":                {"Issue", "PullRequest"},
	"Closable":                 {"Issue", "PullRequest"},
	"Comment":                  {"Issue", "PullRequest", "IssueComment", "PullRequestReview", "PullRequestReviewComment"},
	"Reactable":                {"Issue", "PullRequest", "IssueComment", "PullRequestReview", "PullRequestReviewComment"},
	"SearchResultItem":         {"Issue", "PullRequest", "Repository"},
	"StatusCheckRollupContext": {"CheckRun", "StatusContext"},
	"GitObject":                {"Commit", "Tree", "Blob", "Tag"},
}

// gqlTypes are the fields that clients look for before they use them.
var gqlTypes = map[string][]string{
	"Issue":                              {"id", "number", "title", "state", "stateReason", "body", "url"},
	"PullRequest":                        {"id", "number", "title", "state", "body", "url", "autoMergeRequest", "mergeStateStatus", "reviewDecision", "statusCheckRollup"},
	"StatusCheckRollupContextConnection": {"nodes", "edges", "pageInfo", "totalCount", "checkRunCount", "checkRunCountsByState", "statusContextCount", "statusContextCountsByState"},
	"WorkflowRun":                        {"id", "event", "workflow"},
	"Repository":                         {"id", "name", "visibility", "autoMergeAllowed"},
	"Release":                            {"id", "name"},
}

// gqlType answers __type, by which clients find out what a server can do.
func gqlType(name string) any {
	names, ok := gqlTypes[name]
	if !ok {
		return nil
	}
	fields := []gqlObject{}
	for _, n := range names {
		fields = append(fields, gqlObject{"__typename": "__Field", "name": n})
	}
	return gqlObject{"__typename": "__Type", "name": name, "kind": "OBJECT", "fields": fields, "inputFields": []gqlObject{}, "enumValues": []gqlObject{}}
}
