package syntax

import "slices"

// eventKind is what GitHub lets a workflow say about one event.
type eventKind struct {
	name string
	// types are the activities that exist; nil: the event has none.
	types []string
	// usual are the activities that start a run when none are named; nil: all.
	usual   []string
	filters []string
}

var (
	changes     = []string{"created", "edited", "deleted"}
	refFilters  = []string{"branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore"}
	baseFilters = []string{"branches", "branches-ignore", "paths", "paths-ignore"}
	pullTypes   = []string{"assigned", "unassigned", "labeled", "unlabeled", "opened", "edited", "closed", "reopened", "synchronize",
		"converted_to_draft", "locked", "unlocked", "enqueued", "dequeued", "milestoned", "demilestoned", "ready_for_review",
		"review_requested", "review_request_removed", "auto_merge_enabled", "auto_merge_disabled", "stacked"}
	pullUsual = []string{"opened", "synchronize", "reopened"}
)

var eventKinds = []eventKind{
	{name: "branch_protection_rule", types: changes},
	{name: "check_run", types: []string{"completed", "created", "rerequested", "requested_action"}},
	{name: "check_suite", types: []string{"completed"}},
	{name: "create"}, {name: "delete"}, {name: "deployment"}, {name: "deployment_status"},
	{name: "discussion", types: []string{"created", "edited", "deleted", "transferred", "pinned", "unpinned", "labeled", "unlabeled",
		"locked", "unlocked", "category_changed", "answered", "unanswered"}},
	{name: "discussion_comment", types: changes},
	{name: "fork"}, {name: "gollum"},
	{name: "image_version", types: []string{"created", "ready", "deleted"}, filters: []string{"names", "versions"}},
	{name: "issue_comment", types: changes},
	{name: "issues", types: []string{"opened", "edited", "deleted", "transferred", "pinned", "unpinned", "closed", "reopened", "assigned",
		"unassigned", "labeled", "unlabeled", "locked", "unlocked", "milestoned", "demilestoned", "typed", "untyped", "field_added", "field_removed"}},
	{name: "label", types: changes},
	{name: "merge_group", types: []string{"checks_requested"}, filters: []string{"branches", "branches-ignore"}},
	{name: "milestone", types: []string{"created", "closed", "opened", "edited", "deleted"}},
	{name: "page_build"},
	{name: "project", types: []string{"created", "closed", "reopened", "edited", "deleted"}},
	{name: "project_card", types: []string{"created", "moved", "converted", "edited", "deleted"}},
	{name: "project_column", types: []string{"created", "updated", "moved", "deleted"}},
	{name: "public"},
	{name: "pull_request", types: pullTypes, usual: pullUsual, filters: baseFilters},
	{name: "pull_request_comment", types: changes},
	{name: "pull_request_review", types: []string{"submitted", "edited", "dismissed"}},
	{name: "pull_request_review_comment", types: changes},
	{name: "pull_request_target", types: pullTypes, usual: pullUsual, filters: baseFilters},
	{name: "push", filters: refFilters},
	{name: "registry_package", types: []string{"published", "updated"}},
	{name: "release", types: []string{"published", "unpublished", "created", "edited", "deleted", "prereleased", "released"}},
	{name: "repository_dispatch"}, {name: "schedule"}, {name: "status"},
	{name: "watch", types: []string{"started"}},
	{name: "workflow_call"}, {name: "workflow_dispatch"},
	{name: "workflow_run", types: []string{"completed", "requested", "in_progress"}, filters: []string{"workflows", "branches", "branches-ignore"}},
}

func kindOf(event string) *eventKind {
	for i := range eventKinds {
		if eventKinds[i].name == event {
			return &eventKinds[i]
		}
	}
	return nil
}

// ActiveTypes are the activities of an event that start a run: those that are
// named, or the usual ones. Nil means every activity.
func (e *Event) ActiveTypes() []string {
	if e.Types != nil {
		return e.Types
	}
	if kind := kindOf(e.Name); kind != nil {
		return slices.Clone(kind.usual)
	}
	return nil
}

// triggers is the shape of `on`.
func triggers() *shape {
	on := &shape{scalar: text}
	for _, kind := range eventKinds {
		on.keys = append(on.keys, entry{kind.name, kind.shape()})
		on.values = append(on.values, kind.name)
	}
	on.item = &shape{scalar: text, values: on.values}
	return on
}

func (kind eventKind) shape() *shape {
	s := &shape{scalar: null, tolerant: true, keys: []entry{}}
	switch kind.name {
	case "schedule":
		return &shape{item: &shape{required: []string{"cron"}, keys: []entry{{"cron", someText}, {"timezone", someText}}}}
	case "repository_dispatch":
		s.keys = []entry{{"types", someTexts}}
	case "workflow_dispatch":
		s.keys = []entry{{"inputs", &shape{scalar: null, loose: &shape{scalar: null, tolerant: true, keys: []entry{
			{"description", anyText}, {"type", oneOf("string", "boolean", "number", "environment", "choice")}, {"required", aScalar},
			{"default", aScalar}, {"options", &shape{item: anyText}}, {"deprecationMessage", anyText},
		}}}}}
	case "workflow_call":
		s.keys = callKeys()
		s.tolerant = false
	}
	if kind.types != nil {
		activity := shape{scalar: text, values: kind.types, tolerant: true}
		list := activity
		list.item = &activity
		s.keys = append(s.keys, entry{"types", &list})
	}
	for _, f := range kind.filters {
		s.keys = append(s.keys, entry{f, &shape{scalar: text | null, nonEmpty: true, item: someText}})
	}
	return s
}

func callKeys() []entry {
	return []entry{
		{"inputs", &shape{scalar: null, loose: &shape{required: []string{"type"}, keys: []entry{
			{"description", anyText}, {"type", oneOf("string", "boolean", "number")}, {"required", aBoolean}, {"deprecationMessage", anyText},
			{"default", aScalar.in("on.workflow_call.inputs.<inputs_id>.default", runContexts)},
		}}}},
		{"secrets", &shape{scalar: null, loose: &shape{scalar: null, keys: []entry{{"description", anyText}, {"required", aBoolean}}}}},
		{"outputs", &shape{scalar: null, loose: &shape{required: []string{"value"}, keys: []entry{
			{"description", anyText}, {"value", anyText.in("on.workflow_call.outputs.<output_id>.value", append([]string{"jobs"}, runContexts...))},
		}}}},
	}
}
