package health

import (
	"fmt"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

func deployment(o object) Status {
	if o.flag("spec", "paused") {
		return suspended("the deployment is paused")
	}
	if !o.seen() {
		return progressing("waiting for the rollout to be observed (generation %d)", o.generation())
	}
	if c := o.condition("Progressing"); c.reason == "ProgressDeadlineExceeded" {
		return degraded("the deployment exceeded its progress deadline: %s", c.message)
	}
	want := o.number(1, "spec", "replicas")
	updated := o.number(0, "status", "updatedReplicas")
	total := o.number(0, "status", "replicas")
	available := o.number(0, "status", "availableReplicas")
	switch {
	case updated < want:
		if c := o.condition("ReplicaFailure"); c.status == "True" {
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

func statefulSet(o object) Status {
	if !o.seen() || o.number(0, "status", "observedGeneration") == 0 {
		return progressing("waiting for the rollout to be observed (generation %d)", o.generation())
	}
	want := o.number(1, "spec", "replicas")
	ready := o.number(0, "status", "readyReplicas")
	updated := o.number(0, "status", "updatedReplicas")
	if ready < want {
		return progressing("%d of %d replicas are ready", ready, want)
	}
	if o.text("spec", "updateStrategy", "type") == "OnDelete" {
		return healthy("")
	}
	if o.at("spec", "updateStrategy", "rollingUpdate") != nil {
		partition := o.number(0, "spec", "updateStrategy", "rollingUpdate", "partition")
		if updated < want-partition {
			return progressing("%d of %d pods have the new revision", updated, want-partition)
		}
		return healthy("")
	}
	if o.text("status", "updateRevision") != o.text("status", "currentRevision") {
		return progressing("%d of %d pods have the new revision", updated, want)
	}
	return healthy("")
}

func daemonSet(o object) Status {
	if !o.seen() {
		return progressing("waiting for the rollout to be observed (generation %d)", o.generation())
	}
	want := o.number(0, "status", "desiredNumberScheduled")
	updated := o.number(0, "status", "updatedNumberScheduled")
	available := o.number(0, "status", "numberAvailable")
	if o.text("spec", "updateStrategy", "type") == "OnDelete" {
		return healthy(fmt.Sprintf("%d of %d pods are updated; the others wait to be deleted", updated, want))
	}
	if updated < want {
		return progressing("%d of %d pods are updated", updated, want)
	}
	if available < want {
		return progressing("%d of %d pods are available", available, want)
	}
	return healthy("")
}

func replicaSet(o object) Status {
	if !o.seen() {
		return progressing("waiting for generation %d to be observed", o.generation())
	}
	if c := o.condition("ReplicaFailure"); c.status == "True" {
		return degraded("%s", c.message)
	}
	want := o.number(1, "spec", "replicas")
	if available := o.number(0, "status", "availableReplicas"); available < want {
		return progressing("%d of %d replicas are available", available, want)
	}
	return healthy("")
}

func job(o object) Status {
	if c := o.condition("Failed"); c.status == "True" {
		return degraded("the job failed: %s", c.message)
	}
	if c := o.condition("Complete"); c.status == "True" {
		return healthy(c.message)
	}
	if c := o.condition("Suspended"); c.status == "True" {
		s := suspended(c.message)
		s.AggregateAs = v1alpha1.HealthHealthy
		return s
	}
	return progressing("the job runs (%d active)", o.number(0, "status", "active"))
}

func cronJob(o object) Status {
	if o.flag("spec", "suspend") {
		return suspended("the CronJob is suspended")
	}
	last, good := o.text("status", "lastScheduleTime"), o.text("status", "lastSuccessfulTime")
	switch {
	case o.at("status") == nil:
		return progressing("waiting for the CronJob to be seen")
	case last == "":
		return healthy("no run was due yet")
	case good == "":
		return healthy("no run has succeeded yet, and none is known to have failed")
	case len(o.list("status", "active")) > 0:
		return healthy("a run is active")
	case good < last: // both are RFC 3339 in UTC
		return degraded("the last run, of %s, did not succeed", last)
	}
	return healthy("the last run succeeded")
}
