package plan

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type scopes struct{}

func (scopes) Namespaced(gvk schema.GroupVersionKind) (bool, bool, error) {
	return gvk.Kind != "Namespace" && gvk.Kind != "ClusterRole", true, nil
}

// parse reads objects; own puts the tracking annotation on them.
func parse(t testing.TB, name string, data []byte, own bool) []manifest.Object {
	t.Helper()
	objects, _, err := manifest.Parse(name, data)
	if err != nil {
		t.Fatal(err)
	}
	if own {
		if objects, _, err = render.Target(objects, "app", "ns", scopes{}); err != nil {
			t.Fatal(err)
		}
	}
	return objects
}

// TestGolden plans each testdata/*.txtar: "git" is desired, "live" and
// "predicted" and
// "accepted" what the server has and says, "settings.yaml" argocd-cm, "spec.yaml" the Application's
// spec, "want" the plan.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := Input{Instance: "app", Manager: "argocd-controller", Live: map[Key]*unstructured.Unstructured{}, Predicted: map[Key]Prediction{}}
			want := -1
			for i, f := range archive.Files {
				switch f.Name {
				case "git":
					in.Desired = parse(t, "app.yaml", f.Data, true)
				case "live":
					for _, o := range parse(t, "live.yaml", f.Data, false) {
						in.Live[KeyOf(o.Unstructured)] = o.Unstructured
					}
				case "predicted":
					for _, o := range parse(t, "predicted.yaml", f.Data, false) {
						in.Predicted[KeyOf(o.Unstructured)] = Prediction{Object: o.Unstructured}
					}
				case "accepted":
					in.Accepted = map[Key]*unstructured.Unstructured{}
					for _, o := range parse(t, "accepted.yaml", f.Data, false) {
						in.Accepted[KeyOf(o.Unstructured)] = o.Unstructured
					}
				case "settings.yaml":
					var data map[string]string
					if err := yaml.UnmarshalStrict(f.Data, &data); err != nil {
						t.Fatal(err)
					}
					s, warnings := settings.Parse(data, nil)
					if len(warnings) > 0 {
						t.Fatal(warnings)
					}
					in.Policy = PolicyOf(s)
				case "spec.yaml":
					var spec v1alpha1.ApplicationSpec
					if err := yaml.UnmarshalStrict(f.Data, &spec); err != nil {
						t.Fatal(err)
					}
					in.Ignore = spec.IgnoreDifferences
					if spec.SyncPolicy != nil {
						in.Options, _ = ParseOptions(spec.SyncPolicy.SyncOptions)
					}
				case "want":
					want = i
				}
			}
			got := describe(t, in)
			if *update {
				archive.Files[want].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(archive.Files[want].Data) {
				t.Errorf("got:\n%s\nwant:\n%s", got, archive.Files[want].Data)
			}
		})
	}
}

func describe(t *testing.T, in Input) string {
	t.Helper()
	var b strings.Builder
	for _, k := range Suspects(in) {
		fmt.Fprintf(&b, "suspect %s\n", k)
	}
	p := Make(in)
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "warning %s: %s\n", w.Type, w.Message)
	}
	for _, h := range p.Hooks {
		fmt.Fprintf(&b, "hook %s %v wave %d delete %v\n", h.Key, h.Phases, h.Wave, h.Delete)
	}
	for _, c := range p.Changes {
		fmt.Fprintf(&b, "%d %s %s", c.Wave, c.Action, c.Key)
		if c.Kept != "" {
			fmt.Fprintf(&b, " (kept: %s)", c.Kept)
		}
		if c.Extraneous {
			b.WriteString(" (extraneous)")
		}
		b.WriteString("\n")
		for _, d := range c.Differences {
			fmt.Fprintf(&b, "    %s: %v -> %v; %s\n", d.Path, d.Live, d.Want, d.Why)
		}
		for _, d := range c.Ignored {
			fmt.Fprintf(&b, "    (%s: %v -> %v; %s)\n", d.Path, d.Live, d.Want, d.Why)
		}
		if in.Options.RespectIgnoreDifferences && c.Action == Update {
			data, _ := yaml.Marshal(c.Desired.Object["spec"])
			fmt.Fprintf(&b, "    applies spec:\n%s", data)
		}
		text, err := c.Text()
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(text)
	}
	return b.String()
}

// objects draws objects as a repository may have them.
func objects(t *rapid.T, label string) map[Key]*unstructured.Unstructured {
	out := map[Key]*unstructured.Unstructured{}
	for range rapid.IntRange(0, 5).Draw(t, label) {
		o := &unstructured.Unstructured{Object: map[string]any{}}
		o.SetAPIVersion("v1")
		o.SetKind(rapid.SampledFrom([]string{"ConfigMap", "Secret", "Service"}).Draw(t, "kind"))
		o.SetNamespace("ns")
		o.SetName(rapid.StringMatching(`[a-e]`).Draw(t, "name"))
		data := map[string]any{}
		for range rapid.IntRange(0, 3).Draw(t, "fields") {
			data[rapid.StringMatching(`[a-c]`).Draw(t, "field")] = rapid.SampledFrom([]any{"x", "1Gi", int64(1), true, []any{"l"}, map[string]any{"m": "n"}}).Draw(t, "value")
		}
		o.Object["data"] = data
		out[KeyOf(o)] = o
	}
	return out
}

func track(t *rapid.T, live map[Key]*unstructured.Unstructured, instance string) []manifest.Object {
	var in []manifest.Object
	for _, k := range slices.SortedFunc(maps.Keys(live), compareKeys) {
		in = append(in, manifest.Object{Unstructured: live[k]})
	}
	out, _, err := render.Target(in, instance, "ns", scopes{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func byKey(objects []manifest.Object) map[Key]*unstructured.Unstructured {
	out := map[Key]*unstructured.Unstructured{}
	for _, o := range objects {
		out[KeyOf(o.Unstructured)] = o.Unstructured
	}
	return out
}

func TestPlanOfTheSameIsEmpty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desired := track(t, objects(t, "desired"), "app")
		p := Make(Input{Instance: "app", Manager: "m", Desired: desired, Live: byKey(desired)})
		if !p.InSync() || p.Count(Create, Update, Prune) != 0 {
			t.Fatalf("plan: %+v", p.Changes)
		}
	})
}

func TestApplyOfAPlanGivesDesired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desired := track(t, objects(t, "desired"), "app")
		own := byKey(track(t, objects(t, "own"), "app"))
		foreign := byKey(track(t, objects(t, "foreign"), "other"))
		live := map[Key]*unstructured.Unstructured{}
		maps.Copy(live, foreign)
		maps.Copy(live, own)
		for k, o := range objects(t, "nobody's") {
			if live[k] == nil {
				live[k] = o
			}
		}
		p := Make(Input{Instance: "app", Manager: "m", Desired: desired, Live: live})
		after := maps.Clone(live)
		for _, c := range p.Changes {
			switch c.Action {
			case Create, Update:
				after[c.Key] = c.Desired
			case Prune:
				if _, ours := own[c.Key]; !ours {
					t.Fatalf("prunes %s, which is not ours", c.Key)
				}
				delete(after, c.Key)
			}
		}
		if p := Make(Input{Instance: "app", Manager: "m", Desired: desired, Live: after}); !p.InSync() {
			t.Fatalf("after the plan: %+v", p.Changes)
		}
		for k := range own {
			if _, wanted := byKey(desired)[k]; !wanted && after[k] != nil {
				t.Fatalf("%s was left over", k)
			}
		}
	})
}

func TestOptionsThatAreNotCarriedOutWarn(t *testing.T) {
	o, warnings := ParseOptions([]string{"CreateNamespace=true", "PruneLast=true", "Validate=false", "PrunePropagationPolicy=background", "ApplyOutOfSyncOnly=true"})
	if len(warnings) != 0 || !o.CreateNamespace || !o.PruneLast || !o.SkipValidation || o.PrunePropagation != "background" {
		t.Errorf("%+v %v", o, warnings)
	}
	for _, bad := range []string{"Force=true", "ServerSideApply=false", "Magic=true", "PrunePropagationPolicy=later"} {
		if _, warnings := ParseOptions([]string{bad}); len(warnings) != 1 || !strings.Contains(warnings[0].Message, bad) {
			t.Errorf("%s: %v", bad, warnings)
		}
	}
}

func TestRefusedStaysAnUpdate(t *testing.T) {
	live := parse(t, "x.yaml", []byte("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: a}\n"), true)
	desired := parse(t, "x.yaml", []byte("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: b}\n"), true)
	no := errors.New("immutable")
	p := Make(Input{Instance: "app", Desired: desired, Live: byKey(live), Predicted: map[Key]Prediction{KeyOf(desired[0].Unstructured): {Err: no}}})
	if c := p.Changes[0]; c.Action != Update || !errors.Is(c.Refused, no) || c.Differences[0].Path != "spec.type" {
		t.Errorf("%+v", c)
	}
}
