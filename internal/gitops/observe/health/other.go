package health

import (
	"encoding/json"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// builtin are the kinds of Kubernetes itself.
var builtin = map[schema.GroupKind]func(object) Status{
	{Group: "apps", Kind: "Deployment"}:                               deployment,
	{Group: "apps", Kind: "StatefulSet"}:                              statefulSet,
	{Group: "apps", Kind: "DaemonSet"}:                                daemonSet,
	{Group: "apps", Kind: "ReplicaSet"}:                               replicaSet,
	{Kind: "Pod"}:                                                     pod,
	{Group: "batch", Kind: "Job"}:                                     job,
	{Group: "batch", Kind: "CronJob"}:                                 cronJob,
	{Kind: "Service"}:                                                 service,
	{Group: "networking.k8s.io", Kind: "Ingress"}:                     ingress,
	{Group: "extensions", Kind: "Ingress"}:                            ingress,
	{Kind: "PersistentVolumeClaim"}:                                   claim,
	{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}:           autoscaler,
	{Group: "apiregistration.k8s.io", Kind: "APIService"}:             apiService,
	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}: definition,
	{Group: "policy", Kind: "PodDisruptionBudget"}:                    disruptionBudget,
	{Group: "argoproj.io", Kind: "Application"}:                       application,
}

func service(o object) Status {
	if o.text("spec", "type") != "LoadBalancer" {
		return healthy("")
	}
	return balanced(o, "the load balancer has no address yet")
}

func ingress(o object) Status {
	return balanced(o, "the ingress has no address yet: its controller has not taken it up")
}

func balanced(o object, waiting string) Status {
	if len(o.list("status", "loadBalancer", "ingress")) > 0 {
		return healthy("")
	}
	return progressing("%s", waiting)
}

func claim(o object) Status {
	switch phase := o.text("status", "phase"); phase {
	case "Bound":
		return healthy("")
	case "Lost":
		return degraded("the volume is lost")
	case "Pending", "":
		return progressing("the claim is not bound to a volume")
	default:
		return unknown("the claim's phase is " + phase)
	}
}

// blind are the reasons of ScalingActive for an autoscaler that cannot work.
var blind = []string{
	"FailedGetResourceMetric", "FailedGetContainerResourceMetric", "FailedGetObjectMetric", "FailedGetPodsMetric",
	"FailedGetExternalMetric", "FailedComputeMetricsReplicas", "InvalidSelector", "InvalidMetricSourceType",
}

func autoscaler(o object) Status {
	list := o.list("status", "conditions")
	if o.text("apiVersion") == "autoscaling/v1" {
		// The first version has no conditions; the API server writes them into an
		// annotation.
		if text := annotation(o, "autoscaling.alpha.kubernetes.io/conditions"); text != "" && json.Unmarshal([]byte(text), &list) != nil {
			return unknown("the annotation autoscaling.alpha.kubernetes.io/conditions cannot be read")
		}
	}
	able, _ := conditionIn(list, "AbleToScale")
	active, _ := conditionIn(list, "ScalingActive")
	limited, _ := conditionIn(list, "ScalingLimited")
	switch {
	case able.reason == "FailedGetScale" || able.reason == "FailedUpdateScale":
		return degraded("%s", able.message)
	case slices.Contains(blind, active.reason):
		return degraded("%s", active.message)
	case able.status == "True":
		return healthy(able.message)
	case limited.status == "True":
		return healthy(limited.message)
	}
	return progressing("waiting to autoscale")
}

func apiService(o object) Status {
	switch c := o.condition("Available"); c.status {
	case "True":
		return healthy("")
	case "":
		return progressing("waiting to be available")
	default:
		return progressing("%s", c.why())
	}
}

func definition(o object) Status {
	if c := o.condition("Terminating"); c.status == "True" {
		return progressing("being deleted: %s", c.message)
	}
	if c := o.condition("NamesAccepted"); c.status == "False" {
		return degraded("the names are taken: %s", c.message)
	}
	if c := o.condition("Established"); c.status != "True" {
		return progressing("waiting for the API server to serve the kind")
	}
	if c := o.condition("NonStructuralSchema"); c.status == "True" {
		return degraded("the schema is not structural: %s", c.message)
	}
	return healthy("")
}

func disruptionBudget(o object) Status {
	list := o.list("status", "conditions")
	for _, item := range list {
		m, _ := item.(map[string]any)
		// Too few pods is what a budget for one replica always reports.
		if c := conditionOf(m); c.status == "False" && c.reason != "InsufficientPods" {
			return degraded("%s", c.why())
		}
	}
	if len(list) == 0 {
		return progressing("waiting for the budget to be counted")
	}
	return healthy("")
}

// application is the health of an Application that is deployed by another one.
func application(o object) Status {
	if o.text("status", "operationState", "phase") == "Running" {
		return progressing("a sync runs")
	}
	if !compared(o) {
		return progressing("waiting for the application to be compared with its newest source")
	}
	code, message := o.text("status", "health", "status"), o.text("status", "health", "message")
	s := Status{Message: message}
	if s.Code = codeOf(code); !known(s.Code) {
		return progressing("waiting for the application to be looked at")
	}
	return s
}

// compared reports whether the last comparison was with the source that the
// Application has now.
func compared(o object) bool {
	was, is := o.at("status", "sync", "comparedTo", "source"), o.at("spec", "source")
	if was == nil || is == nil {
		return true
	}
	a, _ := was.(map[string]any)
	b, _ := is.(map[string]any)
	for _, field := range []string{"repoURL", "path", "targetRevision", "chart"} {
		if object(a).text(field) != object(b).text(field) {
			return false
		}
	}
	return true
}
