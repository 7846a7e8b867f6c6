package health

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// PodProblem says why a pod does not run, from its own status: an image that
// cannot be pulled, a container that ends again and again with its exit code,
// no node to run on. It is "" when the status shows no reason.
func PodProblem(o *unstructured.Unstructured) string {
	for _, list := range []string{"initContainerStatuses", "containerStatuses"} {
		containers, _, _ := unstructured.NestedSlice(o.Object, "status", list)
		for _, item := range containers {
			if why := containerProblem(item); why != "" {
				return why
			}
		}
	}
	if c := conditions(o)["PodScheduled"]; c.status == "False" && c.reason == "Unschedulable" {
		return "no node takes the pod: " + c.message
	}
	return ""
}

// waitingReasons are those that end by themselves and are no problem.
var waitingReasons = []string{"", "PodInitializing", "ContainerCreating"}

func containerProblem(item any) string {
	c, _ := item.(map[string]any)
	name, _ := c["name"].(string)
	waiting, _, _ := unstructured.NestedMap(c, "state", "waiting")
	reason, _ := waiting["reason"].(string)
	message, _ := waiting["message"].(string)
	exit := exitOf(c, "lastState")
	switch {
	case reason == "CrashLoopBackOff" && exit != "":
		return fmt.Sprintf("container %s ends again and again (CrashLoopBackOff): %s", name, exit)
	case !slices.Contains(waitingReasons, reason):
		return strings.TrimSuffix(fmt.Sprintf("container %s: %s: %s", name, reason, message), ": ")
	}
	if now := exitOf(c, "state"); now != "" && !strings.HasPrefix(now, "exit code 0") {
		return fmt.Sprintf("container %s ended: %s", name, now)
	}
	return ""
}

func exitOf(c map[string]any, state string) string {
	t, ok, _ := unstructured.NestedMap(c, state, "terminated")
	if !ok {
		return ""
	}
	code, _ := t["exitCode"].(int64)
	reason, _ := t["reason"].(string)
	message, _ := t["message"].(string)
	out := fmt.Sprintf("exit code %d", code)
	if reason != "" && reason != "Error" && reason != "Completed" {
		out += " (" + reason + ")"
	}
	if message = strings.TrimSpace(message); message != "" {
		out += ": " + message[:min(len(message), 300)]
	}
	return out
}
