package settings

import (
	"slices"
	"strings"
	"time"
)

const customizations = "resource.customizations"

// unsupported keys of argocd-cm ask for what the engine does not do. The text
// completes "is not carried out: ".
var unsupported = map[string]string{
	"resource.respectRBAC": "kinds are watched when an application uses them; one that may not be listed is named in the application's conditions",
	"application.sync.requireOverridePrivilegeForRevisionSync": "whoever may sync may name a revision",
	"configManagementPlugins":                                  "this form of plugins is gone from Argo CD, too; use a sidecar",
	"repositories":                                             "this form is gone from Argo CD, too; use Secrets with the label argocd.argoproj.io/secret-type: repository",
	"repository.credentials":                                   "this form is gone from Argo CD, too; use Secrets with the label argocd.argoproj.io/secret-type: repo-creds",
	"helm.repositories":                                        "this form is gone from Argo CD, too; use Secrets with the label argocd.argoproj.io/secret-type: repository",
	"resource.includeEventLabelKeys":                           "the events of applications carry no further labels",
	"resource.excludeEventLabelKeys":                           "the events of applications carry no further labels",
	"sourceHydrator.commitMessageTemplate":                     "manifests are not written back to Git",
	"commit.author.name":                                       "manifests are not written back to Git",
	"commit.author.email":                                      "manifests are not written back to Git",
	"webhook.maxPayloadSizeMB":                                 "the limit for what a webhook may send is fixed",
	"webhook.refresh.jitter":                                   "a push refreshes only the applications it changes, at once",
	"webhook.refresh.workers":                                  "a push refreshes only the applications it changes, at once",
}

// surface are the starts of keys about sign-in and the web pages. The engine
// does not read them, and applications do not notice.
var surface = []string{
	"accounts.", "admin.", "additionalUrls", "banner", "dex.", "exec.", "extension.config", "ga.", "help.", "oidc.",
	"passwordPattern", "resource.links", "application.links", "project.links", "resource.customLabels", "application.allowedNodeLabels",
	"server.", "statusbadge.", "ui.", "url", "users.", "webhook.", "cluster.inClusterEnabled", "cluster.inCluster",
	"timeout.hard.reconciliation", "kubectl.", "notifications.", "logs.",
}

// config reads one key of argocd-cm.
func (p *parser) config(key, value string) {
	switch key {
	case customizations: // read before all others
	case "url":
		p.URL = strings.TrimSpace(value)
	case "additionalUrls":
		p.yaml(key, value, &p.AdditionalURLs)
	case "resource.exclusions":
		p.yaml(key, value, &p.Exclusions)
	case "resource.inclusions":
		p.yaml(key, value, &p.Inclusions)
	case "resource.compareoptions":
		p.compareOptions(key, value)
	case "resource.ignoreResourceUpdatesEnabled":
		p.boolean(key, value, &p.IgnoreResourceUpdatesEnabled)
	case "resource.sensitive.mask.annotations":
		p.MaskedAnnotations = list(value)
	case "application.instanceLabelKey":
		if v := strings.TrimSpace(value); v != "" {
			p.InstanceLabelKey = v
		}
	case "application.resourceTrackingMethod":
		p.tracking(key, strings.TrimSpace(value))
	case "installationID":
		p.InstallationID = strings.TrimSpace(value)
		p.warn(key, "it is not put on objects; let no two installations hold Applications of one name in one cluster")
	case "kustomize.enable":
		p.boolean(key, value, &p.KustomizeEnabled)
	case "helm.enable":
		p.boolean(key, value, &p.HelmEnabled)
	case "jsonnet.enable":
		p.boolean(key, value, &p.JsonnetEnabled)
	case "kustomize.buildOptions":
		p.KustomizeBuildOptions = value
	case "helm.valuesFileSchemes":
		p.HelmValuesSchemes = list(value)
	case "timeout.reconciliation":
		p.duration(key, value, &p.Reconciliation)
	case "timeout.reconciliation.jitter":
		p.duration(key, value, &p.ReconciliationJitter)
	case "globalProjects":
		p.yaml(key, value, &p.GlobalProjects)
	case "application.sync.impersonation.enabled":
		p.boolean(key, value, &p.Impersonation)
	case "lockstep.genericHealth":
		p.generic(key, value)
	default:
		p.family(key, value)
	}
}

// family reads the keys that are named by their start.
func (p *parser) family(key, value string) {
	if why, known := unsupported[key]; known {
		if strings.TrimSpace(value) != "" {
			p.warn(key, "is not carried out: %s", why)
		}
		return
	}
	switch {
	case strings.HasPrefix(key, customizations+"."):
		p.split(key, value)
	case strings.HasPrefix(key, "kustomize.buildOptions."):
		p.version(strings.TrimPrefix(key, "kustomize.buildOptions."), value)
	case strings.HasPrefix(key, "kustomize.version."), strings.HasPrefix(key, "kustomize.path."):
		version := strings.TrimPrefix(strings.TrimPrefix(key, "kustomize.version."), "kustomize.path.")
		p.version(version, "")
		p.warn(key, "the program is not run: Kustomize is built in, and applications that ask for version %s get the built-in one", version)
	case startsWithOne(surface, key):
	default:
		hint := ""
		if near := nearest(key); near != "" {
			hint = "; did you mean " + near + "?"
		}
		p.warn(key, "is not known, neither here nor in Argo CD's manual%s", hint)
	}
}

func (p *parser) version(version, options string) {
	if p.KustomizeVersionOptions == nil {
		p.KustomizeVersionOptions = map[string]string{}
	}
	if options != "" || p.KustomizeVersionOptions[version] == "" {
		p.KustomizeVersionOptions[version] = options
	}
}

func (p *parser) tracking(key, value string) {
	switch m := TrackingMethod(value); m {
	case "":
	case TrackAnnotation, TrackLabel, TrackAnnotationAndLabel:
		p.TrackingMethod = m
		if m != TrackAnnotation {
			p.warn(key, "objects are tracked by annotation; the label is neither read nor set")
		}
	default:
		p.warn(key, "%q is not a method of tracking; there are annotation, annotation+label and label. annotation stays", value)
	}
}

func (p *parser) compareOptions(key, value string) {
	// A bare off is a boolean in YAML 1.1, so the field takes anything.
	read := struct {
		IgnoreAggregatedRoles bool  `json:"ignoreAggregatedRoles"`
		IgnoreStatus          any   `json:"ignoreResourceStatusField"`
		OnUpdates             *bool `json:"ignoreDifferencesOnResourceUpdates"`
	}{}
	if !p.yaml(key, value, &read) {
		return
	}
	p.IgnoreAggregatedRoles = read.IgnoreAggregatedRoles
	if read.OnUpdates != nil {
		p.IgnoreDifferencesOnUpdates = *read.OnUpdates
	}
	switch read.IgnoreStatus {
	case nil, "", "all":
	case "crd":
		p.IgnoreStatusField = StatusOfCRDs
	case "none", "off", "false", false:
		p.IgnoreStatusField = StatusOfNone
	default:
		p.warn(key, "ignoreResourceStatusField: %v is none of all, crd and none; all is taken", read.IgnoreStatus)
	}
}

func (p *parser) generic(key, value string) {
	for _, item := range list(strings.ReplaceAll(value, "\n", ",")) {
		pattern, err := ParsePattern(item)
		if err != nil {
			p.warn(key, "%v", err)
			continue
		}
		p.GenericHealth = append(p.GenericHealth, pattern)
	}
}

// otherParams are the starts of keys of argocd-cmd-params-cm about processes
// that do not exist here: there is no repo server, no Redis, no Dex.
var otherParams = []string{
	"applicationsetcontroller.", "commit.server", "commitserver.", "controller.", "dexserver.", "hydrator.", "log.", "notificationscontroller.",
	"otlp.", "redis.", "repo.server", "reposerver.", "server.",
}

// params reads one key of argocd-cmd-params-cm.
func (p *parser) params(key, value string) {
	switch key {
	case "application.namespaces":
		p.ApplicationNamespaces = list(value)
	case "controller.diff.server.side":
		p.boolean(key, value, &p.ServerSideDiff)
	case "controller.status.processors":
		p.number(key, value, &p.StatusProcessors)
	case "controller.operation.processors":
		p.number(key, value, &p.OperationProcessors)
	case "controller.self.heal.timeout.seconds":
		p.duration(key, value, &p.SelfHealTimeout)
	case "controller.self.heal.backoff.timeout.seconds":
		p.duration(key, value, &p.SelfHealTimeout)
	case "controller.self.heal.backoff.factor":
		p.number(key, value, &p.SelfHealFactor)
	case "controller.self.heal.backoff.cap.seconds":
		p.duration(key, value, &p.SelfHealCap)
	case "controller.sync.timeout.seconds":
		p.duration(key, value, &p.SyncTimeout)
	case "reposerver.git.request.timeout":
		p.duration(key, value, &p.GitTimeout)
	case "reposerver.enable.git.submodule":
		p.boolean(key, value, &p.Submodules)
	case "reposerver.max.combined.directory.manifests.size":
		p.MaxDirectorySize = strings.TrimSpace(value)
	case "reposerver.allow.oob.symlinks":
		var allow bool
		if p.boolean(key, value, &allow); allow {
			p.warn(key, "is not carried out: nothing outside of a repository is ever read")
		}
	case "hydrator.enabled":
		var on bool
		if p.boolean(key, value, &on); on {
			p.warn(key, "is not carried out: manifests are not written back to Git")
		}
	default:
		if !startsWithOne(otherParams, key) {
			p.warn(key, "is not known, neither here nor in Argo CD's manual")
		}
	}
}

func startsWithOne(starts []string, key string) bool {
	return slices.ContainsFunc(starts, func(s string) bool { return strings.HasPrefix(key, s) })
}

// nearest finds the known key that differs only in case, or by few letters.
func nearest(key string) string {
	known := []string{
		"resource.customizations", "resource.exclusions", "resource.inclusions", "resource.compareoptions",
		"resource.ignoreResourceUpdatesEnabled", "resource.sensitive.mask.annotations", "application.instanceLabelKey",
		"application.resourceTrackingMethod", "installationID", "kustomize.buildOptions", "helm.valuesFileSchemes",
		"timeout.reconciliation", "timeout.reconciliation.jitter", "globalProjects", "application.sync.impersonation.enabled",
	}
	best, distance := "", 4
	for _, k := range known {
		if d := editDistance(strings.ToLower(k), strings.ToLower(key), distance); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// editDistance counts the letters to change, up to a limit.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(b) > 256 {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost = min(before, row[j], row[j+1]) + 1
			}
			before, row[j+1] = row[j+1], cost
		}
	}
	return min(row[len(b)], limit)
}

// Pause returns the pause before a repository is looked at again, for a random
// number from 0 up to 1. It is 0 when that is switched off.
func (s *Settings) Pause(random float64) time.Duration {
	if s.Reconciliation <= 0 {
		return 0
	}
	return s.Reconciliation + time.Duration(random*float64(s.ReconciliationJitter))
}
