package observe

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestURLs(t *testing.T) {
	for name, c := range map[string]struct{ manifest, want string }{
		"load balancer": {`{kind: Service, spec: {ports: [{port: 80}, {port: 443}, {port: 8080, name: http}, {port: 5432, name: sql}]},
			status: {loadBalancer: {ingress: [{ip: 10.1.2.3}]}}}`, "http://10.1.2.3 http://10.1.2.3:8080 https://10.1.2.3"},
		"by name":        {`{kind: Service, spec: {ports: [{port: 80}]}, status: {loadBalancer: {ingress: [{hostname: shop.example.com}]}}}`, "http://shop.example.com"},
		"no address yet": {`{kind: Service, spec: {ports: [{port: 80}]}, status: {loadBalancer: {}}}`, ""},
		"ingress":        {`{kind: Ingress, spec: {rules: [{host: a.example.com}, {http: {}}]}}`, "http://a.example.com"},
		"secure ingress": {`{kind: Ingress, spec: {tls: [{}], rules: [{host: a.example.com}]}}`, "https://a.example.com"},
		"wrong form":     {`{kind: Ingress, spec: {rules: nothing}}`, ""},
		"another kind":   {`{kind: ConfigMap, status: {loadBalancer: {ingress: [{ip: 10.1.2.3}]}}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := yaml.YAMLToJSON([]byte(c.manifest))
			if err != nil {
				t.Fatal(err)
			}
			var o unstructured.Unstructured
			data = append([]byte(`{"apiVersion":"v1",`), data[1:]...)
			if err := o.UnmarshalJSON(data); err != nil {
				t.Fatal(err)
			}
			if s := strings.Join(urlsOf(&o), " "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
		})
	}
}
