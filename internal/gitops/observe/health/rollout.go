package health

import "strconv"

// rollout is the health of an Argo Rollout: the steps of its strategy decide
// when it is done.
func rollout(o object) Status {
	// The controller writes its observed generation as text.
	seen := o.number(-1, "status", "observedGeneration")
	if text := o.text("status", "observedGeneration"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			n = o.generation() // older controllers write a hash
		}
		seen = n
	}
	if seen < o.generation() {
		return progressing("waiting for the rollout's spec to be observed (generation %d)", o.generation())
	}
	if c := o.condition("InvalidSpec"); c.status == "True" {
		return degraded("%s", c.message)
	}
	if c := o.condition("Progressing"); c.reason == "RolloutAborted" || c.reason == "ProgressDeadlineExceeded" {
		return degraded("%s", either(c.message, c.reason))
	}
	if phase := o.text("status", "phase"); phase != "" {
		return rolloutPhase(phase, o.text("status", "message"))
	}
	if o.flag("spec", "paused") || len(o.list("status", "pauseConditions")) > 0 {
		return suspended("the rollout is paused")
	}
	return rolloutReplicas(o)
}

// rolloutPhase trusts the phase that Argo Rollouts computes since version 1.0.
func rolloutPhase(phase, message string) Status {
	switch phase {
	case "Healthy":
		return healthy(message)
	case "Paused":
		return suspended(either(message, "the rollout is paused"))
	case "Degraded":
		return degraded("%s", either(message, "the rollout is degraded"))
	}
	return progressing("%s", either(message, "the rollout goes on"))
}

func rolloutReplicas(o object) Status {
	want := o.number(1, "spec", "replicas")
	updated := o.number(0, "status", "updatedReplicas")
	available := o.number(0, "status", "availableReplicas")
	hash, stable := o.text("status", "currentPodHash"), o.text("status", "stableRS")
	switch {
	case hash == "":
		return progressing("waiting for the rollout to begin")
	case updated < want:
		return progressing("%d of %d new replicas are updated", updated, want)
	case available < updated:
		return progressing("%d of %d updated replicas are available", available, updated)
	case o.at("spec", "strategy", "blueGreen") != nil && o.text("status", "blueGreen", "activeSelector") != hash:
		return progressing("the active service does not serve the new version yet")
	case o.at("spec", "strategy", "canary") != nil && o.number(0, "status", "replicas") > updated:
		return progressing("old replicas stay until the new ones are available: %d", o.number(0, "status", "replicas")-updated)
	case stable != hash:
		return progressing("the new version is not the stable one yet")
	}
	return healthy("")
}
