package observe

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// urlsOf returns where people reach an object, sorted: the hosts of an Ingress,
// as Argo CD does, and also the addresses of a Service of type LoadBalancer.
func urlsOf(o *unstructured.Unstructured) []string {
	into := map[string]bool{}
	switch o.GetKind() {
	case "Service":
		addServiceURLs(into, o)
	case "Ingress":
		secure := len(nested(o, "spec", "tls")) > 0
		for _, rule := range nested(o, "spec", "rules") {
			host, _ := rule["host"].(string)
			switch {
			case host == "":
			case secure:
				into["https://"+host] = true
			default:
				into["http://"+host] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(into))
}

// addServiceURLs takes ports 80 and 443, and ports named after their protocol.
func addServiceURLs(into map[string]bool, o *unstructured.Unstructured) {
	for _, ingress := range nested(o, "status", "loadBalancer", "ingress") {
		host, _ := ingress["ip"].(string)
		if host == "" {
			host, _ = ingress["hostname"].(string)
		}
		if host == "" {
			continue
		}
		for _, port := range nested(o, "spec", "ports") {
			number, _ := port["port"].(int64)
			name, _ := port["name"].(string)
			switch {
			case number == 80:
				into["http://"+host] = true
			case number == 443:
				into["https://"+host] = true
			case name == "http" || name == "https":
				into[fmt.Sprintf("%s://%s:%d", name, host, number)] = true
			}
		}
	}
}

// nested is the list of objects at the path; what has another form is left out.
func nested(o *unstructured.Unstructured, path ...string) []map[string]any {
	list, _, err := unstructured.NestedSlice(o.Object, path...)
	if err != nil {
		return nil
	}
	var objects []map[string]any
	for _, item := range list {
		if m, ok := item.(map[string]any); ok {
			objects = append(objects, m)
		}
	}
	return objects
}
