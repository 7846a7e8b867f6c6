package application

import (
	"context"
	"errors"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan/schema"
)

// request is what apply is asked for.
func (p *pass) request(op *operation, options plan.Options, waiting func(string)) apply.Request {
	sync := op.wish.Sync
	strategy := sync.SyncStrategy
	key, schemas := p.key, p.cluster.Schemas
	policy := p.app.Spec.SyncPolicy
	var over func(plan.Key, plan.Phase) bool
	if op.resumed != nil {
		over = op.resumed.has
	}
	return apply.Request{
		Resumed: op.resumed != nil, Over: over,
		Plan: op.plan, Options: options, Prune: sync.Prune, DryRun: sync.DryRun, Revision: op.commit, Started: op.started, Now: p.Now,
		Namespace: p.namespaceFor(op.plan, options), ManageNamespace: policy != nil && policy.ManagedNamespaceMetadata != nil, Selected: apply.Select(sync.Resources),
		NoHooks: strategy != nil && strategy.Apply != nil, Force: strategy != nil && (strategy.Apply != nil && strategy.Apply.Force || strategy.Hook != nil && strategy.Hook.Force),
		Validate: func(c plan.Change) error { return validate(p.life, schemas, c) },
		Approved: func() bool { return p.approved(key, op.started) },
		Changed:  p.st.wake, Report: op.report, Kinds: p.kindsChanged, Waiting: waiting,
	}
}

// validate checks an object against the cluster's schemas, as far as they can
// be had; else the API server will say what is wrong.
func validate(ctx context.Context, schemas *schema.Store, c plan.Change) error {
	if schemas == nil || c.Options.SkipValidation || c.Desired == nil || c.Action == plan.Prune {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	problems, err := schemas.Validate(ctx, c.Desired)
	if err != nil || len(problems) == 0 {
		return nil
	}
	texts := make([]string, len(problems))
	for i, p := range problems {
		texts[i] = p.String()
	}
	return errors.New(strings.Join(texts, "; "))
}

const schemaTimeout = 10 * time.Second

// approved reports whether the application's annotation approves what was
// asked for at a time.
func (c *Controller) approved(key string, since time.Time) bool {
	app, _ := c.application(key)
	return app != nil && plan.Confirmed(app.Annotations, since)
}

// kindsChanged makes the cluster be asked for its kinds anew.
func (p *pass) kindsChanged() {
	p.cluster.Mapper.Reset()
	if p.cluster.Schemas != nil {
		p.cluster.Schemas.Reset()
	}
}

// writer is the one that the project wants: of the engine, or of a service
// account that it acts as.
func (p *pass) writer() (*apply.Writer, error) {
	if !p.set.Settings.Impersonation || !p.rules.Impersonates() || p.cluster.As == nil {
		return p.cluster.Writer, nil
	}
	user, err := p.rules.ServiceAccount(p.cluster.project(), p.app.Spec.Destination.Namespace, p.app.Namespace)
	if err != nil {
		return nil, err
	}
	return p.cluster.As(user)
}

// namespaceFor is the Namespace that CreateNamespace=true makes, nil when the
// source has it, it is there already, or it is not wanted.
func (p *pass) namespaceFor(pl *plan.Plan, o plan.Options) *unstructured.Unstructured {
	name := p.app.Spec.Destination.Namespace
	if !o.CreateNamespace || name == "" {
		return nil
	}
	metadata := p.app.Spec.SyncPolicy.ManagedNamespaceMetadata
	creates := false
	for _, c := range pl.Changes {
		if c.Kind == "Namespace" && c.Group == "" && c.Name == name {
			return nil
		}
		creates = creates || c.Action == plan.Create && c.Namespace == name
	}
	if !creates && metadata == nil {
		return nil // nothing is made in it
	}
	ns := stub(plan.Key{Kind: "Namespace", Name: name}, "v1")
	if metadata != nil {
		ns.SetLabels(metadata.Labels)
		ns.SetAnnotations(metadata.Annotations)
	}
	return ns
}
