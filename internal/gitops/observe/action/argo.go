package action

import "k8s.io/apimachinery/pkg/runtime/schema"

const argoGroup = "argoproj.io"

// argo are the actions of Argo Rollouts, Argo Workflows and Argo CD.
var argo = map[schema.GroupKind][]action{
	{Group: argoGroup, Kind: "Rollout"}: {
		setStamp("restart", "spec", "restartAt"),
		{name: "pause", icon: "fa fa-fw fa-pause", disabled: rolloutPaused, do: func(r *run) error { return r.set(true, "spec", "paused") }},
		{name: "resume", icon: "fa fa-fw fa-play", disabled: not(rolloutPaused), status: true, do: func(r *run) error {
			r.unset("status", "pauseConditions")
			if fields(r.object).flag("spec", "paused") {
				return r.set(false, "spec", "paused")
			}
			return nil
		}},
		{name: "abort", icon: "fa fa-fw fa-times", status: true, disabled: func(o fields) bool { return promoted(o) || o.flag("status", "abort") },
			do: func(r *run) error { return r.set(true, "status", "abort") }},
		{name: "retry", icon: "fa fa-fw fa-redo", status: true, disabled: func(o fields) bool { return promoted(o) || !o.flag("status", "abort") },
			do: func(r *run) error { return r.set(false, "status", "abort") }},
		{name: "promote-full", icon: "fa fa-fw fa-arrow-circle-up", status: true, disabled: promoted,
			do: func(r *run) error { return r.set(true, "status", "promoteFull") }},
		{name: "skip-current-step", icon: "fa fa-fw fa-step-forward", status: true,
			disabled: func(o fields) bool { return o.at("status", "currentStepIndex") == nil || promoted(o) }, do: skipStep},
	},
	{Group: argoGroup, Kind: "AnalysisRun"}: {
		setField("terminate", "fa fa-fw fa-stop", func(o fields) bool { return over(o.text("status", "phase")) }, true, "spec", "terminate"),
	},
	{Group: argoGroup, Kind: "Workflow"}: {
		setField("stop", "fa fa-fw fa-stop", workflowOver, "Stop", "spec", "shutdown"),
		setField("terminate", "fa fa-fw fa-times", workflowOver, "Terminate", "spec", "shutdown"),
		setField("suspend", "fa fa-fw fa-pause", func(o fields) bool { return workflowOver(o) || o.flag("spec", "suspend") }, true, "spec", "suspend"),
		{name: "resume", icon: "fa fa-fw fa-play", disabled: func(o fields) bool { return workflowOver(o) || !o.flag("spec", "suspend") },
			do: func(r *run) error { r.unset("spec", "suspend"); return nil }},
		{name: "resubmit", icon: "fa fa-fw fa-redo", do: resubmit},
	},
	{Group: argoGroup, Kind: "CronWorkflow"}: list(
		action{name: "create-workflow", icon: "fa fa-fw fa-play", do: func(r *run) error {
			f := fields(r.object)
			meta := map[string]any{"name": r.name(63)}
			for _, k := range []string{"labels", "annotations"} {
				if m, ok := f.at("spec", "workflowMetadata", k).(map[string]any); ok {
					meta[k] = m
				}
			}
			if labels, ok := meta["labels"].(map[string]any); ok {
				labels["workflows.argoproj.io/cron-workflow"] = f.text("metadata", "name")
			} else {
				meta["labels"] = map[string]any{"workflows.argoproj.io/cron-workflow": f.text("metadata", "name")}
			}
			r.created = append(r.created, r.owned(workflow(meta, f.at("spec", "workflowSpec"))))
			return nil
		}},
		toggle("suspend", "resume", "spec", "suspend")),
	{Group: argoGroup, Kind: "WorkflowTemplate"}: {
		{name: "create-workflow", icon: "fa fa-fw fa-play", do: func(r *run) error {
			name := fields(r.object).text("metadata", "name")
			made := workflow(map[string]any{"name": r.name(63), "namespace": fields(r.object).text("metadata", "namespace"),
				"labels": map[string]any{"workflows.argoproj.io/workflow-template": name}},
				map[string]any{"workflowTemplateRef": map[string]any{"name": name}})
			r.created = append(r.created, made)
			return nil
		}},
	},
	{Group: argoGroup, Kind: "Application"}: {
		{name: "refresh", icon: "fa fa-fw fa-sync", do: func(r *run) error { return r.annotate("argocd.argoproj.io/refresh", "normal") }},
		{name: "toggle-auto-sync", icon: "fa fa-fw fa-sync-alt", do: toggleAutoSync},
	},
}

func setStamp(name string, path ...string) action {
	return action{name: name, icon: "fa fa-fw fa-sync", do: func(r *run) error { return r.set(r.stamp(), path...) }}
}

func rolloutPaused(o fields) bool {
	if l, ok := o.at("status", "pauseConditions").([]any); ok && len(l) > 0 {
		return true
	}
	return o.flag("spec", "paused")
}

func promoted(o fields) bool {
	hash := o.text("status", "currentPodHash")
	return hash == "" || hash == o.text("status", "stableRS")
}

func skipStep(r *run) error {
	f := fields(r.object)
	steps, _ := f.at("spec", "strategy", "canary", "steps").([]any)
	next := f.number(0, "status", "currentStepIndex") + 1
	if next > int64(len(steps)) {
		next = int64(len(steps))
	}
	r.unset("status", "pauseConditions")
	return r.set(next, "status", "currentStepIndex")
}

func over(phase string) bool {
	switch phase {
	case "Succeeded", "Successful", "Failed", "Error", "Inconclusive":
		return true
	}
	return false
}

func workflowOver(o fields) bool { return over(o.text("status", "phase")) }

func workflow(meta map[string]any, spec any) map[string]any {
	return map[string]any{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": meta, "spec": spec}
}

// resubmit starts the workflow again as a new one.
func resubmit(r *run) error {
	f := fields(r.object)
	meta := map[string]any{"name": r.name(63), "namespace": f.text("metadata", "namespace"),
		"labels": map[string]any{"workflows.argoproj.io/resubmitted-from-workflow": f.text("metadata", "name")}}
	spec, _ := f.at("spec").(map[string]any)
	fresh := map[string]any{}
	for k, v := range spec {
		if k != "shutdown" && k != "suspend" {
			fresh[k] = v
		}
	}
	r.created = append(r.created, workflow(meta, fresh))
	return nil
}

func toggleAutoSync(r *run) error {
	f := fields(r.object)
	automated, ok := f.at("spec", "syncPolicy", "automated").(map[string]any)
	if !ok {
		return r.set(map[string]any{"enabled": true}, "spec", "syncPolicy", "automated")
	}
	enabled, given := automated["enabled"].(bool)
	automated["enabled"] = given && !enabled
	return nil
}
