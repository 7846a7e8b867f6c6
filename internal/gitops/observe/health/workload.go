package health

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

func deployment(o *unstructured.Unstructured) Status {
	if paused, _, _ := unstructured.NestedBool(o.Object, "spec", "paused"); paused {
		return Status{v1alpha1.HealthSuspended, "the deployment is paused"}
	}
	if !seen(o) {
		return progressing("waiting for the rollout to be observed (generation %d)", o.GetGeneration())
	}
	cs := conditions(o)
	if c := cs["Progressing"]; c.reason == "ProgressDeadlineExceeded" {
		return degraded("the deployment exceeded its progress deadline: %s", c.message)
	}
	want := number(o, 1, "spec", "replicas")
	updated := number(o, 0, "status", "updatedReplicas")
	total := number(o, 0, "status", "replicas")
	available := number(o, 0, "status", "availableReplicas")
	switch {
	case updated < want:
		if c := cs["ReplicaFailure"]; c.status == "True" {
			return progressing("%d of %d new replicas made: %s", updated, want, c.message)
		}
		return progressing("%d of %d new replicas are updated", updated, want)
	case total > updated:
		return progressing("old pods stay until the new ones are available: %d", total-updated)
	case available < updated:
		return progressing("%d of %d updated replicas are available", available, updated)
	}
	return healthy("")
}

func statefulSet(o *unstructured.Unstructured) Status {
	if !seen(o) {
		return progressing("waiting for the rollout to be observed (generation %d)", o.GetGeneration())
	}
	want := number(o, 1, "spec", "replicas")
	ready := number(o, 0, "status", "readyReplicas")
	updated := number(o, 0, "status", "updatedReplicas")
	if ready < want {
		return progressing("%d of %d replicas are ready", ready, want)
	}
	if text(o, "spec", "updateStrategy", "type") == "OnDelete" {
		return healthy("")
	}
	if partition := number(o, 0, "spec", "updateStrategy", "rollingUpdate", "partition"); partition > 0 {
		if updated < want-partition {
			return progressing("partitioned rollout: %d of %d new pods are updated", updated, want-partition)
		}
		return healthy("")
	}
	if text(o, "status", "updateRevision") != text(o, "status", "currentRevision") {
		return progressing("%d of %d pods have the new revision", updated, want)
	}
	return healthy("")
}

func daemonSet(o *unstructured.Unstructured) Status {
	if !seen(o) {
		return progressing("waiting for the rollout to be observed (generation %d)", o.GetGeneration())
	}
	want := number(o, 0, "status", "desiredNumberScheduled")
	updated := number(o, 0, "status", "updatedNumberScheduled")
	available := number(o, 0, "status", "numberAvailable")
	if text(o, "spec", "updateStrategy", "type") != "OnDelete" && updated < want {
		return progressing("%d of %d pods are updated", updated, want)
	}
	if available < want {
		return progressing("%d of %d pods are available", available, want)
	}
	return healthy("")
}

func replicaSet(o *unstructured.Unstructured) Status {
	if !seen(o) {
		return progressing("waiting for generation %d to be observed", o.GetGeneration())
	}
	if c := conditions(o)["ReplicaFailure"]; c.status == "True" {
		return degraded("%s", c.message)
	}
	want := number(o, 1, "spec", "replicas")
	if available := number(o, 0, "status", "availableReplicas"); available < want {
		return progressing("%d of %d replicas are available", available, want)
	}
	return healthy("")
}

func job(o *unstructured.Unstructured) Status {
	cs := conditions(o)
	if c := cs["Failed"]; c.status == "True" {
		return degraded("the job failed: %s", c.message)
	}
	if c := cs["Complete"]; c.status == "True" {
		return healthy(c.message)
	}
	if c := cs["Suspended"]; c.status == "True" {
		return Status{v1alpha1.HealthSuspended, c.message}
	}
	return progressing("the job runs (%d active)", number(o, 0, "status", "active"))
}

func pod(o *unstructured.Unstructured) Status {
	switch phase := text(o, "status", "phase"); phase {
	case "Succeeded":
		return healthy("")
	case "Failed":
		if why := PodProblem(o); why != "" {
			return degraded("%s", why)
		}
		return degraded("the pod failed: %s", strings.TrimSpace(text(o, "status", "reason")+" "+text(o, "status", "message")))
	case "Running":
		if why := PodProblem(o); why != "" {
			return degraded("%s", why)
		}
		if conditions(o)["Ready"].status == "True" {
			return healthy("")
		}
		return progressing("the pod is not ready")
	}
	if why := PodProblem(o); why != "" {
		if restarts := text(o, "spec", "restartPolicy"); restarts == "" || restarts == "Always" {
			return degraded("%s", why)
		}
		return progressing("%s", why)
	}
	return progressing("the pod is pending")
}
