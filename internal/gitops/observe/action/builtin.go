package action

import (
	"strconv"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// action is a built-in one.
type action struct {
	name, icon string
	disabled   func(fields) bool // nil for never
	params     func(fields) []Param
	status     bool // it changes the status, which the kind keeps apart
	do         func(*run) error
}

func (a action) of(o map[string]any) Action {
	out := Action{Name: a.name, Icon: a.icon}
	if a.disabled != nil {
		out.Disabled = a.disabled(o)
	}
	if a.params != nil {
		out.Params = a.params(o)
	}
	return out
}

func not(f func(fields) bool) func(fields) bool { return func(o fields) bool { return !f(o) } }

func flagAt(path ...string) func(fields) bool {
	return func(o fields) bool { return o.flag(path...) }
}

// toggle is a pair of actions that sets a flag and takes it back.
func toggle(on, off string, path ...string) []action {
	is := flagAt(path...)
	return []action{
		{name: on, icon: "fa fa-fw fa-pause", disabled: is, do: func(r *run) error { return r.set(true, path...) }},
		{name: off, icon: "fa fa-fw fa-play", disabled: not(is), do: func(r *run) error { return r.set(false, path...) }},
	}
}

// annotationToggle does so with an annotation.
func annotationToggle(on, off, key, value string) []action {
	is := func(o fields) bool { return o.annotation(key) == value }
	return []action{
		{name: on, icon: "fa fa-fw fa-pause", disabled: is, do: func(r *run) error { return r.annotate(key, value) }},
		{name: off, icon: "fa fa-fw fa-play", disabled: not(is), do: func(r *run) error {
			r.unset("metadata", "annotations", key)
			return nil
		}},
	}
}

// stamp writes the time into an annotation that a controller looks at.
func stamp(name, icon, key string, disabled func(fields) bool) action {
	return action{name: name, icon: icon, disabled: disabled, do: func(r *run) error { return r.annotate(key, r.stamp()) }}
}

func annotate(name, key, value string) action {
	return action{name: name, do: func(r *run) error { return r.annotate(key, value) }}
}

func setField(name, icon string, disabled func(fields) bool, value any, path ...string) action {
	return action{name: name, icon: icon, disabled: disabled, do: func(r *run) error { return r.set(value, path...) }}
}

var restart = action{name: "restart", icon: "fa fa-fw fa-sync", do: func(r *run) error {
	return r.set(r.stamp(), "spec", "template", "metadata", "annotations", "kubectl.kubernetes.io/restartedAt")
}}

func scale(param string, path ...string) action {
	return action{
		name: "scale", icon: "fa fa-fw fa-arrows-alt-v",
		params: func(o fields) []Param {
			return []Param{{Name: param, Default: strconv.FormatInt(o.number(1, path...), 10)}}
		},
		do: func(r *run) error {
			n, err := r.count(param, 1<<31-1)
			if err != nil {
				return err
			}
			return r.set(n, path...)
		},
	}
}

// list joins actions of one kind.
func list(parts ...any) []action {
	var out []action
	for _, p := range parts {
		switch x := p.(type) {
		case action:
			out = append(out, x)
		case []action:
			out = append(out, x...)
		}
	}
	return out
}

func flux(group string, kinds ...string) map[schema.GroupKind][]action {
	out := map[schema.GroupKind][]action{}
	for _, k := range kinds {
		out[schema.GroupKind{Group: group, Kind: k}] = list(
			stamp("reconcile", "fa fa-fw fa-sync", "reconcile.fluxcd.io/requestedAt", flagAt("spec", "suspend")),
			toggle("suspend", "resume", "spec", "suspend"))
	}
	return out
}

// builtin are the actions by kind.
var builtin = merge(
	map[schema.GroupKind][]action{
		{Group: "apps", Kind: "Deployment"}:  list(restart, scale("replicas", "spec", "replicas"), toggle("pause", "resume", "spec", "paused")),
		{Group: "apps", Kind: "StatefulSet"}: list(restart, scale("replicas", "spec", "replicas")),
		{Group: "apps", Kind: "DaemonSet"}:   list(restart),
		{Group: "batch", Kind: "CronJob"}:    list(createJob, toggle("suspend", "resume", "spec", "suspend")),
		{Group: "batch", Kind: "Job"}: {
			setField("suspend", "fa fa-fw fa-pause", func(o fields) bool { return jobEnded(o) || o.flag("spec", "suspend") }, true, "spec", "suspend"),
			setField("resume", "fa fa-fw fa-play", func(o fields) bool { return jobEnded(o) || !o.flag("spec", "suspend") }, false, "spec", "suspend"),
			setField("terminate", "fa fa-fw fa-stop", func(o fields) bool { return jobEnded(o) || o.flag("spec", "suspend") }, int64(1), "spec", "activeDeadlineSeconds"),
		},
	},
	argo,
	flux("source.toolkit.fluxcd.io", "GitRepository", "HelmRepository", "HelmChart", "Bucket", "OCIRepository"),
	flux("kustomize.toolkit.fluxcd.io", "Kustomization"),
	flux("helm.toolkit.fluxcd.io", "HelmRelease"),
	flux("image.toolkit.fluxcd.io", "ImageRepository", "ImageUpdateAutomation"),
	flux("notification.toolkit.fluxcd.io", "Receiver"),
	operators,
)

func merge(parts ...map[schema.GroupKind][]action) map[schema.GroupKind][]action {
	out := map[schema.GroupKind][]action{}
	for _, p := range parts {
		for gk, list := range p {
			out[gk] = append(out[gk], list...)
		}
	}
	return out
}

// jobEnded reports whether a job is complete or has failed.
func jobEnded(o fields) bool {
	conditions, _ := o.at("status", "conditions").([]any)
	for _, item := range conditions {
		c, _ := item.(map[string]any)
		if (c["type"] == "Complete" || c["type"] == "Failed") && c["status"] == "True" {
			return true
		}
	}
	return o.at("status", "completionTime") != nil
}

// createJob starts the job of a CronJob now, as kubectl create job --from does.
var createJob = action{name: "create-job", icon: "fa fa-fw fa-play", do: func(r *run) error {
	template, _ := fields(r.object).at("spec", "jobTemplate").(map[string]any)
	f := fields(template)
	meta := map[string]any{"name": r.name(63), "annotations": map[string]any{"cronjob.kubernetes.io/instantiate": "manual"}}
	if labels, ok := f.at("metadata", "labels").(map[string]any); ok {
		meta["labels"] = labels
	}
	if more, ok := f.at("metadata", "annotations").(map[string]any); ok {
		for k, v := range more {
			meta["annotations"].(map[string]any)[k] = v
		}
	}
	r.created = append(r.created, r.owned(map[string]any{"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": f.at("spec")}))
	return nil
}}
