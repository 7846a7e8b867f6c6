package health

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func service(o *unstructured.Unstructured) Status {
	if text(o, "spec", "type") != "LoadBalancer" {
		return healthy("")
	}
	return balanced(o, "the load balancer has no address yet")
}

func ingress(o *unstructured.Unstructured) Status {
	return balanced(o, "the ingress has no address yet: its controller has not taken it up")
}

func balanced(o *unstructured.Unstructured, waiting string) Status {
	if list, _, _ := unstructured.NestedSlice(o.Object, "status", "loadBalancer", "ingress"); len(list) > 0 {
		return healthy("")
	}
	return progressing("%s", waiting)
}

func claim(o *unstructured.Unstructured) Status {
	switch phase := text(o, "status", "phase"); phase {
	case "Bound":
		return healthy("")
	case "Lost":
		return degraded("the volume is lost")
	default:
		return progressing("the claim is not bound to a volume")
	}
}

func autoscaler(o *unstructured.Unstructured) Status {
	cs := conditions(o)
	for _, t := range []string{"AbleToScale", "ScalingActive"} {
		c := cs[t]
		if c.status != "False" || c.reason == "ScalingDisabled" {
			continue
		}
		switch c.reason {
		case "FailedGetScale", "FailedUpdateScale", "FailedGetResourceMetric", "InvalidSelector", "InvalidMetricSourceType":
			return degraded("%s", c.message)
		}
		return progressing("%s", c.message)
	}
	if cs["AbleToScale"].status == "True" {
		return healthy(cs["AbleToScale"].message)
	}
	return progressing("waiting to autoscale")
}

func apiService(o *unstructured.Unstructured) Status {
	c, ok := conditions(o)["Available"]
	switch {
	case ok && c.status == "True":
		return healthy("")
	case ok:
		return progressing("%s: %s", c.reason, c.message)
	}
	return progressing("waiting to be available")
}

func definition(o *unstructured.Unstructured) Status {
	cs := conditions(o)
	if c := cs["NamesAccepted"]; c.status == "False" {
		return degraded("%s", c.message)
	}
	if c := cs["Established"]; c.status == "True" {
		return healthy("")
	}
	return progressing("waiting for the API server to serve the kind")
}
