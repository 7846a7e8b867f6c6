package plan

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

func IsHook(o *unstructured.Unstructured) bool { return isHook(o) }

func Settled(desired, answer *unstructured.Unstructured, manager string) bool {
	return covered(Normalize(desired).Object, answer.Object)
}

func AcceptedOf(desired, answer *unstructured.Unstructured) *unstructured.Unstructured { return answer }
