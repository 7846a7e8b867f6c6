package health

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// annotationIgnoreRestart asks to judge a pod that is not restarted like one
// that is.
const annotationIgnoreRestart = "argocd.argoproj.io/ignore-restart-policy"

func pod(o object) Status {
	always := false
	switch o.text("spec", "restartPolicy") {
	case "", "Always":
		always = true
	default:
		// A pod with an end may be a hook: to call it degraded because of an image
		// that comes a little later would fail the sync too early.
		always = annotation(o, annotationIgnoreRestart) == "true" && !isHook(o)
	}
	why := podProblem(o)
	if always && (why.stuck || (o.text("status", "phase") == "Running" && why.text != "")) {
		return degraded("%s", why.text)
	}
	switch phase := o.text("status", "phase"); phase {
	case "Pending", "":
		if why.text != "" {
			return progressing("%s", why.text)
		}
		return progressing("%s", either(o.text("status", "message"), "the pod is pending"))
	case "Succeeded":
		return healthy(o.text("status", "message"))
	case "Failed":
		return degraded("%s", either(o.text("status", "message"), why.text, o.text("status", "reason"), "the pod failed"))
	case "Running":
		return running(o, always)
	default:
		return unknown(either(o.text("status", "message"), "the pod's phase is "+phase))
	}
}

func running(o object, always bool) Status {
	if !always {
		return progressing("the pod runs, and will end")
	}
	if o.condition("Ready").status == "True" {
		return healthy(o.text("status", "message"))
	}
	for _, item := range o.list("status", "containerStatuses") {
		c, _ := item.(map[string]any)
		if exit := exitOf(c, "lastState"); exit != "" {
			return degraded("container %s was restarted and is not ready; before, it ended: %s", object(c).text("name"), exit)
		}
	}
	return progressing("%s", either(o.text("status", "message"), "the pod is not ready"))
}

func either(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// PodProblem says why a pod does not run, from its own status: an image that
// cannot be pulled, a container that ends again and again with its exit code,
// no node to run on. It is "" when the status shows no reason.
func PodProblem(o *unstructured.Unstructured) string { return podProblem(o.Object).text }

type problem struct {
	text  string
	stuck bool // a container waits for what does not come by itself
}

func podProblem(o object) problem {
	for _, list := range []string{"initContainerStatuses", "containerStatuses"} {
		for _, item := range o.list("status", list) {
			c, _ := item.(map[string]any)
			if p := containerProblem(c); p.text != "" {
				return p
			}
		}
	}
	if c := o.condition("PodScheduled"); c.status == "False" && c.reason == "Unschedulable" {
		return problem{text: "no node takes the pod: " + c.message}
	}
	return problem{}
}

// fails reports whether a reason to wait is an error.
func fails(reason string) bool {
	return strings.HasPrefix(reason, "Err") || strings.HasSuffix(reason, "Error") || strings.HasSuffix(reason, "BackOff") ||
		reason == "InvalidImageName"
}

func containerProblem(c object) problem {
	reason, message := c.text("state", "waiting", "reason"), c.text("state", "waiting", "message")
	exit := exitOf(c, "lastState")
	switch {
	case reason == "CrashLoopBackOff" && exit != "":
		return problem{fmt.Sprintf("container %s ends again and again (CrashLoopBackOff): %s", c.text("name"), exit), true}
	case fails(reason):
		return problem{strings.TrimSuffix(fmt.Sprintf("container %s: %s: %s", c.text("name"), reason, message), ": "), true}
	}
	if now := exitOf(c, "state"); now != "" && !strings.HasPrefix(now, "exit code 0") {
		return problem{text: fmt.Sprintf("container %s ended: %s", c.text("name"), now)}
	}
	return problem{}
}

func exitOf(c object, state string) string {
	if c.at(state, "terminated") == nil {
		return ""
	}
	reason, message := c.text(state, "terminated", "reason"), strings.TrimSpace(c.text(state, "terminated", "message"))
	out := fmt.Sprintf("exit code %d", c.number(0, state, "terminated", "exitCode"))
	if reason != "" && reason != "Error" && reason != "Completed" {
		out += " (" + reason + ")"
	}
	if message != "" {
		out += ": " + message[:min(len(message), 300)]
	}
	return out
}
