package app

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// parseObject reads KIND[.GROUP]/[NAMESPACE/]NAME, or Argo CD's
// GROUP:KIND:[NAMESPACE/]NAME.
func parseObject(text string) (server.ObjectRef, error) {
	var o server.ObjectRef
	parts := strings.Split(text, ":")
	kind, rest := "", ""
	switch {
	case len(parts) == 3:
		o.Group, kind, rest = parts[0], parts[1], parts[2]
	case len(parts) == 1:
		kind, rest, _ = strings.Cut(text, "/")
		kind, o.Group, _ = strings.Cut(kind, ".")
	}
	o.Kind, o.Name = kind, rest
	if namespace, name, ok := strings.Cut(rest, "/"); ok {
		o.Namespace, o.Name = namespace, name
	}
	if o.Kind == "" || o.Name == "" || strings.Contains(o.Name, "/") {
		return o, &output.Error{What: fmt.Sprintf("%q names no object", text), Try: "Deployment/web, Deployment/shop/web or apps:Deployment:shop/web"}
	}
	return o, nil
}

func refOf(r server.Resource) server.ObjectRef {
	return server.ObjectRef{Group: r.Group, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
}

func fits(pattern, o server.ObjectRef) bool {
	same := func(want, have string) bool { return want == "" || strings.EqualFold(want, have) }
	return same(pattern.Group, o.Group) && same(pattern.Kind, o.Kind) && same(pattern.Namespace, o.Namespace) && same(pattern.Name, o.Name)
}

func named(o server.ObjectRef) string {
	if o.Namespace == "" {
		return o.Kind + "/" + o.Name
	}
	return o.Kind + "/" + o.Namespace + "/" + o.Name
}

func resourcesCommand(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "resources <application>", Short: "The live objects, with those that they own", Args: cobra.ExactArgs(1),
		Example:           "  lockstep app resources storefront\n  lockstep app resources storefront -o json",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(cmd.Context(), inv, args[0], func(ctx context.Context, c *client.Client, a server.App) error {
				nodes, err := c.Tree(ctx, a)
				if err != nil {
					return err
				}
				return resources(inv, nodes)
			})
		},
	}
}

func resources(inv *invocation.Invocation, nodes []server.Node) error {
	var names []string
	t := inv.Table("OBJECT", "NAMESPACE", "HEALTH", "AGE", "MESSAGE")
	var walk func(nodes []server.Node, indent string)
	walk = func(nodes []server.Node, indent string) {
		for _, n := range nodes {
			names = append(names, named(refOf(n.Resource)))
			age := ""
			if !n.Created.IsZero() {
				age = since(inv, n.Created)
			}
			t.Row(output.Text(indent+n.Kind+"/"+n.Name), output.Text(n.Namespace), t.State(n.Health), output.Text(age), output.Text(n.Message))
			walk(n.Children, indent+"  ")
		}
	}
	walk(nodes, "")
	return inv.Print(nodes, names, t.Write)
}

func manifestsCommand(inv *invocation.Invocation) *cobra.Command {
	var at server.At
	var history int64
	cmd := &cobra.Command{
		Use: "manifests <application>", Short: "What the source has, as YAML; the values of Secrets are hidden", Args: cobra.ExactArgs(1),
		Example:           "  lockstep app manifests storefront\n  lockstep app manifests storefront --revision v1.2.0\n  lockstep app manifests storefront --history 3 -o name",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("history") {
				at.History = &history
			}
			return with(cmd.Context(), inv, args[0], func(ctx context.Context, c *client.Client, a server.App) error {
				list, err := c.Manifests(ctx, a, at)
				if err != nil {
					return err
				}
				return manifests(inv, list)
			})
		},
	}
	cmd.Flags().StringVar(&at.Revision, "revision", "", "branch, tag or commit instead of the one it tracks")
	cmd.Flags().Int64Var(&history, "history", 0, "an entry of the history")
	cmd.MarkFlagsMutuallyExclusive("revision", "history")
	return cmd
}

func manifests(inv *invocation.Invocation, list []server.Manifest) error {
	names := make([]string, len(list))
	for i, m := range list {
		kind, _ := m.Object["kind"].(string)
		metadata, _ := m.Object["metadata"].(map[string]any)
		name, _ := metadata["name"].(string)
		namespace, _ := metadata["namespace"].(string)
		names[i] = named(server.ObjectRef{Kind: kind, Namespace: namespace, Name: name})
	}
	return inv.Print(list, names, func(w io.Writer) error {
		for _, m := range list {
			text, err := yaml.Marshal(m.Object)
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(w, "---\n# %s\n%s", output.Clean(m.Place), text) // w is a buffer
		}
		return nil
	})
}

func actionsCommand(inv *invocation.Invocation) *cobra.Command {
	cmd := &cobra.Command{
		Use: "actions <application> [object]", Aliases: []string{"action"}, Short: "What can be done with live objects: restart, scale, promote …", Args: cobra.RangeArgs(1, 2),
		Example: "  lockstep app actions storefront\n  lockstep app actions storefront Deployment/web\n" +
			"  lockstep app actions run storefront Deployment/web restart\n  lockstep app actions run storefront Deployment/web scale --param replicas=3",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			pattern, err := optionalObject(args[1:])
			if err != nil {
				return err
			}
			return with(cmd.Context(), inv, args[0], func(ctx context.Context, c *client.Client, a server.App) error {
				list, err := c.Actions(ctx, a, pattern)
				if err != nil {
					return err
				}
				return actions(inv, list)
			})
		},
	}
	cmd.AddCommand(runActionCommand(inv))
	return cmd
}

func optionalObject(args []string) (server.ObjectRef, error) {
	if len(args) == 0 {
		return server.ObjectRef{}, nil
	}
	return parseObject(args[0])
}

func actions(inv *invocation.Invocation, list []server.ObjectActions) error {
	var names []string
	t := inv.Table("OBJECT", "ACTION", "PARAMETERS", "NOW")
	for _, o := range list {
		for _, x := range o.Actions {
			names = append(names, named(o.ObjectRef)+" "+x.Name)
			now := "yes"
			if x.Disabled {
				now = "no"
			}
			var params []string
			for _, p := range x.Params {
				params = append(params, p.Name+"="+p.Default)
			}
			t.Row(output.Text(named(o.ObjectRef)), output.Text(x.Name), output.Text(strings.Join(params, " ")), output.Text(now))
		}
	}
	return inv.Print(list, names, func(w io.Writer) error {
		if len(names) == 0 {
			_, err := fmt.Fprintln(w, "No live object offers an action.")
			return err
		}
		return t.Write(w)
	})
}

func runActionCommand(inv *invocation.Invocation) *cobra.Command {
	params := map[string]string{}
	cmd := &cobra.Command{
		Use: "run <application> <object> <action>", Short: "Run an action of a live object", Args: cobra.ExactArgs(3),
		Example:           "  lockstep app actions run storefront Deployment/web restart\n  lockstep app actions run storefront Deployment/web scale --param replicas=3",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			object, err := parseObject(args[1])
			if err != nil {
				return err
			}
			return with(cmd.Context(), inv, args[0], func(ctx context.Context, c *client.Client, a server.App) error {
				if err := c.RunAction(ctx, a, server.RunAction{ObjectRef: object, Action: args[2], Params: params}); err != nil {
					return err
				}
				inv.Say("%s/%s: ran %s on %s", a.Namespace, a.Name, args[2], args[1])
				return nil
			})
		},
	}
	cmd.Flags().StringToStringVar(&params, "param", nil, "name=value that the action takes; can be repeated")
	return cmd
}

func deleteObjectCommand(inv *invocation.Invocation) *cobra.Command {
	propagation, yes := "foreground", false
	cmd := &cobra.Command{
		Use: "delete-resource <application> <object>", Short: "Delete one live object", Args: cobra.ExactArgs(2),
		Long:              "Deletes one live object. Automated sync with selfHeal brings it back, if the source has it.",
		Example:           "  lockstep app delete-resource storefront Pod/web-5d6e-x\n  lockstep app delete-resource storefront Job/migrate --propagation background --yes",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			object, err := parseObject(args[1])
			if err != nil {
				return err
			}
			if err := ask(inv, yes, "Delete %s of %s?", args[1], args[0]); err != nil {
				return err
			}
			return with(cmd.Context(), inv, args[0], func(ctx context.Context, c *client.Client, a server.App) error {
				if err := c.DeleteObject(ctx, a, object, propagation); err != nil {
					return err
				}
				inv.Say("%s/%s: %s is being deleted", a.Namespace, a.Name, args[1])
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&propagation, "propagation", propagation, "foreground, background or orphan")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func stamp(inv *invocation.Invocation, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(inv.Location).Format("2006-01-02 15:04:05")
}
