package v1

import (
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// crd is the part of a CustomResourceDefinition that these tests read.
type crd struct {
	Metadata struct{ Name string }
	Spec     struct {
		Group    string
		Versions []struct {
			Name            string
			Served, Storage bool
			Schema          struct{ OpenAPIV3Schema schemaProps }
		}
	}
}

type schemaProps struct {
	Type                 string
	Properties           map[string]schemaProps
	Items                *schemaProps
	AdditionalProperties *schemaProps
}

// TestCRDsHoldTheTypes: an apiserver drops fields that the schema lacks.
func TestCRDsHoldTheTypes(t *testing.T) {
	types := map[string]reflect.Type{
		SecretProviderClasses().Resource:          reflect.TypeFor[SecretProviderClass](),
		SecretProviderClassPodStatuses().Resource: reflect.TypeFor[SecretProviderClassPodStatus](),
	}
	for _, text := range CRDs() {
		var c crd
		if err := yaml.Unmarshal(text, &c); err != nil {
			t.Fatal(err)
		}
		resource, _, _ := strings.Cut(c.Metadata.Name, ".")
		if c.Spec.Group != Group || c.Metadata.Name != resource+"."+Group || types[resource] == nil {
			t.Errorf("CRD %s of group %s", c.Metadata.Name, c.Spec.Group)
			continue
		}
		if len(c.Spec.Versions) != 2 || c.Spec.Versions[0].Name != Version || !c.Spec.Versions[0].Storage || !c.Spec.Versions[1].Served {
			t.Errorf("%s: versions %+v", resource, c.Spec.Versions)
		}
		for _, v := range c.Spec.Versions {
			compare(t, resource+" "+v.Name, types[resource], v.Schema.OpenAPIV3Schema)
		}
	}
}

// compare checks that each field of typ is in the schema, and the other way
// round.
func compare(t *testing.T, at string, typ reflect.Type, schema schemaProps) {
	t.Helper()
	want := map[string]string{reflect.Struct.String(): "object", reflect.Map.String(): "object", reflect.Slice.String(): "array",
		reflect.String.String(): "string", reflect.Bool.String(): "boolean"}[typ.Kind().String()]
	if schema.Type != want {
		t.Errorf("%s: schema says %q, the type %s", at, schema.Type, typ)
		return
	}
	switch typ.Kind() {
	case reflect.Slice:
		compare(t, at+"[]", typ.Elem(), *schema.Items)
	case reflect.Map:
		compare(t, at+"{}", typ.Elem(), *schema.AdditionalProperties)
	case reflect.Struct:
		known := map[string]bool{"apiVersion": true, "kind": true, "metadata": true}
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if name == "" || name == "metadata" { // embedded, or the apiserver's own
				continue
			}
			known[name] = true
			compare(t, at+"."+name, typ.Field(i).Type, schema.Properties[name])
		}
		for name := range schema.Properties {
			if !known[name] {
				t.Errorf("%s: the schema's %s is not in the type", at, name)
			}
		}
	}
}
