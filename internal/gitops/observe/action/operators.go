package action

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	strimzi = "kafka.strimzi.io"
	cnpg    = "postgresql.cnpg.io"

	kedaPaused   = "autoscaling.keda.sh/paused"
	kedaReplicas = "autoscaling.keda.sh/paused-replicas"
)

var strimziPause = annotationToggle("pause", "resume", "strimzi.io/pause-reconciliation", "true")

// operators are the actions of other projects.
var operators = map[schema.GroupKind][]action{
	{Group: "external-secrets.io", Kind: "ExternalSecret"}:        {stamp("refresh", "fa fa-fw fa-sync", "force-sync", nil)},
	{Group: "external-secrets.io", Kind: "PushSecret"}:            {stamp("push", "fa fa-fw fa-sync", "force-sync", nil)},
	{Group: "external-secrets.io", Kind: "ClusterExternalSecret"}: {stamp("refresh", "fa fa-fw fa-sync", "force-sync", nil)},

	// As cmctl renew does: the condition Issuing starts it.
	{Group: "cert-manager.io", Kind: "Certificate"}: {{name: "renew", icon: "fa fa-fw fa-sync", status: true, disabled: issuing, do: renew}},

	{Group: "keda.sh", Kind: "ScaledObject"}: list(annotationToggle("pause", "resume", kedaPaused, "true")[0], action{
		name: "resume", icon: "fa fa-fw fa-play", disabled: not(scalePaused),
		do: func(r *run) error {
			r.unset("metadata", "annotations", kedaPaused)
			r.unset("metadata", "annotations", kedaReplicas)
			return nil
		},
	}, action{
		name: "paused-replicas", icon: "fa fa-fw fa-pause",
		params: func(o fields) []Param {
			return []Param{{Name: "replicas", Default: o.annotation(kedaReplicas)}}
		},
		do: func(r *run) error {
			if _, err := r.count("replicas", 1<<31-1); err != nil {
				return err
			}
			return r.annotate(kedaReplicas, strings.TrimSpace(r.params["replicas"]))
		},
	}),
	{Group: "keda.sh", Kind: "ScaledJob"}: annotationToggle("pause", "resume", kedaPaused, "true"),

	{Group: cnpg, Kind: "Cluster"}: list(
		stamp("restart", "fa fa-fw fa-sync", "kubectl.kubernetes.io/restartedAt", nil),
		stamp("reload", "fa fa-fw fa-redo", "cnpg.io/reloadedAt", nil),
		annotationToggle("suspend", "resume", "cnpg.io/reconciliationLoop", "disabled"),
		annotationToggle("hibernate", "wake", "cnpg.io/hibernation", "on"),
		action{
			name: "promote", icon: "fa fa-fw fa-arrow-circle-up", status: true,
			params: func(o fields) []Param { return []Param{{Name: "instance", Default: candidate(o)}} },
			do:     promote,
		}),
	{Group: cnpg, Kind: "ScheduledBackup"}: toggle("suspend", "resume", "spec", "suspend"),

	{Group: strimzi, Kind: "Kafka"}:             strimziPause,
	{Group: strimzi, Kind: "KafkaTopic"}:        strimziPause,
	{Group: strimzi, Kind: "KafkaUser"}:         strimziPause,
	{Group: strimzi, Kind: "KafkaBridge"}:       strimziPause,
	{Group: strimzi, Kind: "KafkaConnect"}:      strimziPause,
	{Group: strimzi, Kind: "KafkaMirrorMaker2"}: strimziPause,
	{Group: strimzi, Kind: "KafkaConnector"}:    list(strimziPause, annotate("restart", "strimzi.io/restart", "true")),
	{Group: strimzi, Kind: "KafkaRebalance"}: {
		annotate("approve", "strimzi.io/rebalance", "approve"), annotate("refresh", "strimzi.io/rebalance", "refresh"), annotate("stop", "strimzi.io/rebalance", "stop"),
	},
	{Group: "core.strimzi.io", Kind: "StrimziPodSet"}: {annotate("rolling-update", "strimzi.io/manual-rolling-update", "true")},

	{Group: "apps.kruise.io", Kind: "CloneSet"}:     list(restart, scale("replicas", "spec", "replicas"), toggle("pause", "resume", "spec", "updateStrategy", "paused")),
	{Group: "velero.io", Kind: "Schedule"}:          toggle("pause", "unpause", "spec", "paused"),
	{Group: "cluster.x-k8s.io", Kind: "Cluster"}:    toggle("pause", "resume", "spec", "paused"),
	{Group: "kueue.x-k8s.io", Kind: "ClusterQueue"}: {setField("hold", "fa fa-fw fa-pause", nil, "Hold", "spec", "stopPolicy"), setField("resume", "fa fa-fw fa-play", nil, "None", "spec", "stopPolicy")},
	{Group: "kargo.akuity.io", Kind: "Warehouse"}:   {stamp("refresh", "fa fa-fw fa-sync", "kargo.akuity.io/refresh", nil)},
	{Group: "kargo.akuity.io", Kind: "Stage"}:       {stamp("refresh", "fa fa-fw fa-sync", "kargo.akuity.io/refresh", nil)},
}

func scalePaused(o fields) bool {
	return o.annotation(kedaPaused) == "true" || o.annotation(kedaReplicas) != ""
}

func issuing(o fields) bool {
	conditions, _ := o.at("status", "conditions").([]any)
	for _, item := range conditions {
		c, _ := item.(map[string]any)
		if c["type"] == "Issuing" && c["status"] == "True" {
			return true
		}
	}
	return false
}

func renew(r *run) error {
	conditions, _ := fields(r.object).at("status", "conditions").([]any)
	var out []any
	for _, item := range conditions {
		if c, ok := item.(map[string]any); !ok || c["type"] != "Issuing" {
			out = append(out, item)
		}
	}
	out = append(out, map[string]any{
		"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "a renewal was asked for",
		"lastTransitionTime": r.stamp(), "observedGeneration": fields(r.object).number(0, "metadata", "generation"),
	})
	return r.set(out, "status", "conditions")
}

// candidate is an instance that is not the primary.
func candidate(o fields) string {
	names, _ := o.at("status", "instanceNames").([]any)
	for _, n := range names {
		if name, ok := n.(string); ok && name != o.text("status", "currentPrimary") {
			return name
		}
	}
	return ""
}

// promote switches over to another instance, as kubectl cnpg promote does.
func promote(r *run) error {
	f := fields(r.object)
	name := r.params["instance"]
	if name == "" {
		name = candidate(f)
	}
	if err := promotable(f, name); err != nil {
		return err
	}
	if err := r.set(name, "status", "targetPrimary"); err != nil {
		return err
	}
	if err := r.set(r.stamp(), "status", "targetPrimaryTimestamp"); err != nil {
		return err
	}
	if err := r.set("Switchover in progress", "status", "phase"); err != nil {
		return err
	}
	return r.set("Switching over to "+name, "status", "phaseReason")
}

func promotable(o fields, name string) error {
	names, _ := o.at("status", "instanceNames").([]any)
	switch {
	case name == "":
		return errors.New("there is no other instance to promote")
	case name == o.text("status", "currentPrimary"):
		return fmt.Errorf("%s is the primary already", name)
	case !slices.Contains(names, any(name)):
		return fmt.Errorf("there is no instance %s; there are %v", name, names)
	}
	return nil
}
