package kustomize

import (
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// Version is the Kustomize that is built in.
const Version = "v5.8.1"

// buildOptions is kustomize.buildOptions of argocd-cm, understood.
type buildOptions struct {
	helm      bool // --enable-helm
	anywhere  bool // --load-restrictor LoadRestrictionsNone; never outside the repository
	managedBy bool // --enable-managedby-label
	reorder   krusty.ReorderOption
}

// parseOptions reads the flags of `kustomize build`. Flags that run programs
// or write files are refused.
func parseOptions(text string) (buildOptions, error) {
	o := buildOptions{reorder: krusty.ReorderOptionNone}
	fail := func(flag, why string) (buildOptions, error) {
		return o, &manifest.Error{Message: fmt.Sprintf("kustomize.buildOptions: %s %s", flag, why), Hint: "Change kustomize.buildOptions in the ConfigMap argocd-cm. Known are --enable-helm, --load-restrictor, --reorder and --enable-managedby-label."}
	}
	args := strings.Fields(text)
	for len(args) > 0 {
		flag, value, given := strings.Cut(args[0], "=")
		args = args[1:]
		switch flag {
		case "--enable-helm", "--enable-managedby-label":
			on := !given || value == "true"
			if given && value != "true" && value != "false" {
				return fail(flag, "is true or false")
			}
			if flag == "--enable-helm" {
				o.helm = on
			} else {
				o.managedBy = on
			}
			continue
		case "--load-restrictor", "--load_restrictor", "--reorder":
		case "--enable-alpha-plugins", "--enable_alpha_plugins", "--enable-exec", "--enable-star", "--network", "--network-name", "--mount", "--env", "-e", "--as-current-user", "--helm-command":
			return fail(flag, "is not supported: a render runs no program")
		default:
			return fail(flag, "is not known")
		}
		if !given {
			if len(args) == 0 {
				return fail(flag, "has no value")
			}
			value, args = args[0], args[1:]
		}
		switch {
		case flag == "--reorder" && slices.Contains([]string{"legacy", "none"}, value):
			o.reorder = krusty.ReorderOption(value)
		case flag != "--reorder" && slices.Contains([]string{"LoadRestrictionsNone", "none"}, value):
			o.anywhere = true
		case flag != "--reorder" && slices.Contains([]string{"LoadRestrictionsRootOnly", "rootOnly"}, value):
			o.anywhere = false
		default:
			return fail(flag, "cannot be "+value)
		}
	}
	return o, nil
}

func (o buildOptions) krusty() *krusty.Options {
	k := krusty.MakeDefaultOptions()
	k.Reorder, k.AddManagedbyLabel = o.reorder, o.managedBy
	if o.anywhere {
		k.LoadRestrictions = types.LoadRestrictionsNone
	}
	return k
}
