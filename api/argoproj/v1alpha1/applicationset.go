package v1alpha1

import (
	"encoding/json"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	k8sjson "k8s.io/apimachinery/pkg/util/json"
)

// The resource and kind of ApplicationSets, for dynamic clients.
var (
	ApplicationSetResource = schema.GroupVersionResource{Group: Group, Version: Version, Resource: "applicationsets"}
	ApplicationSetKind     = schema.GroupVersionKind{Group: Group, Version: Version, Kind: "ApplicationSet"}
)

// Annotations and labels around ApplicationSets.
const (
	AnnotationApplicationSetRefresh = "argocd.argoproj.io/application-set-refresh" // generate anew, now
	AnnotationHydrate               = "argocd.argoproj.io/hydrate"
	LabelSecretType                 = "argocd.argoproj.io/secret-type"
	SecretTypeCluster               = "cluster"
)

// ApplicationSet makes Applications from a template and what its generators
// find.
type ApplicationSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              ApplicationSetSpec   `json:"spec"`
	Status            ApplicationSetStatus `json:"status,omitempty"`
}

// ApplicationSetSpec is what people write.
type ApplicationSetSpec struct {
	GoTemplate                   bool                        `json:"goTemplate,omitempty"`
	Generators                   []ApplicationSetGenerator   `json:"generators"`
	Template                     ApplicationSetTemplate      `json:"template"`
	SyncPolicy                   *ApplicationSetSyncPolicy   `json:"syncPolicy,omitempty"`
	Strategy                     *ApplicationSetStrategy     `json:"strategy,omitempty"`
	PreservedFields              *PreservedFields            `json:"preservedFields,omitempty"`
	GoTemplateOptions            []string                    `json:"goTemplateOptions,omitempty"`
	ApplyNestedSelectors         bool                        `json:"applyNestedSelectors,omitempty"` // always on since 3.0
	IgnoreApplicationDifferences []IgnoreApplicationDiffRule `json:"ignoreApplicationDifferences,omitempty"`
	TemplatePatch                string                      `json:"templatePatch,omitempty"`
}

// ApplicationSetTemplate is an Application of which every string may be a
// template: metadata and spec. Whole numbers in it are int64.
type ApplicationSetTemplate map[string]any

// UnmarshalJSON reads whole numbers as int64, as informers do.
func (t *ApplicationSetTemplate) UnmarshalJSON(data []byte) error {
	var v map[string]any
	if err := k8sjson.Unmarshal(data, &v); err != nil {
		return err
	}
	*t = v
	return nil
}

// ApplicationSetSyncPolicy says what the controller may do with Applications.
type ApplicationSetSyncPolicy struct {
	PreserveResourcesOnDeletion bool   `json:"preserveResourcesOnDeletion,omitempty"`
	ApplicationsSync            string `json:"applicationsSync,omitempty"` // create-only, create-update, create-delete or sync
}

// The values of applicationsSync.
const (
	ApplicationsSyncCreateOnly   = "create-only"
	ApplicationsSyncCreateUpdate = "create-update"
	ApplicationsSyncCreateDelete = "create-delete"
	ApplicationsSyncSync         = "sync"
)

// PreservedFields names metadata of Applications that is left as it is.
type PreservedFields struct {
	Annotations []string `json:"annotations,omitempty"`
	Labels      []string `json:"labels,omitempty"`
}

// IgnoreApplicationDiffRule names fields of Applications that others may set.
type IgnoreApplicationDiffRule struct {
	Name              string   `json:"name,omitempty"` // of the Application; "" means every one
	JSONPointers      []string `json:"jsonPointers,omitempty"`
	JQPathExpressions []string `json:"jqPathExpressions,omitempty"`
}

// ApplicationSetStrategy says in which order Applications are synced and
// deleted.
type ApplicationSetStrategy struct {
	Type          string       `json:"type,omitempty"` // AllAtOnce or RollingSync
	RollingSync   *RollingSync `json:"rollingSync,omitempty"`
	DeletionOrder string       `json:"deletionOrder,omitempty"` // AllAtOnce or Reverse
}

// RollingSync syncs the Applications of one step after another.
type RollingSync struct {
	Steps        []RolloutStep `json:"steps,omitempty"`
	DefaultPrune bool          `json:"defaultPrune,omitempty"`
}

// RolloutStep selects Applications by their labels.
type RolloutStep struct {
	MatchExpressions []MatchExpression   `json:"matchExpressions,omitempty"`
	MaxUpdate        *intstr.IntOrString `json:"maxUpdate,omitempty"`
}

// MatchExpression is one condition on a label; Operator is In or NotIn.
type MatchExpression struct {
	Key      string   `json:"key,omitempty"`
	Operator string   `json:"operator,omitempty"`
	Values   []string `json:"values,omitempty"`
}

// ApplicationSetGenerator is one source of parameters. Exactly one of its
// fields beside Selector is set.
type ApplicationSetGenerator struct {
	List                    *ListGenerator            `json:"list,omitempty"`
	Clusters                *ClusterGenerator         `json:"clusters,omitempty"`
	Git                     *GitGenerator             `json:"git,omitempty"`
	SCMProvider             *SCMProviderGenerator     `json:"scmProvider,omitempty"`
	ClusterDecisionResource *ClusterDecisionGenerator `json:"clusterDecisionResource,omitempty"`
	PullRequest             *PullRequestGenerator     `json:"pullRequest,omitempty"`
	Matrix                  *MatrixGenerator          `json:"matrix,omitempty"`
	Merge                   *MergeGenerator           `json:"merge,omitempty"`
	Plugin                  *PluginGenerator          `json:"plugin,omitempty"`
	Selector                *metav1.LabelSelector     `json:"selector,omitempty"`

	Unknown []string `json:"-"` // names that are none of the above
}

// UnmarshalJSON also notes the names that it does not know.
func (g *ApplicationSetGenerator) UnmarshalJSON(data []byte) error {
	type plain ApplicationSetGenerator
	var known plain
	if err := json.Unmarshal(data, &known); err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	for _, name := range []string{"list", "clusters", "git", "scmProvider", "clusterDecisionResource", "pullRequest", "matrix", "merge", "plugin", "selector"} {
		delete(all, name)
	}
	*g = ApplicationSetGenerator(known)
	g.Unknown = slices.Sorted(maps.Keys(all))
	return nil
}

// ListGenerator gives its elements.
type ListGenerator struct {
	Elements     []json.RawMessage      `json:"elements,omitempty"`
	ElementsYAML string                 `json:"elementsYaml,omitempty"`
	Template     ApplicationSetTemplate `json:"template,omitempty"`
}

// ClusterGenerator gives one set of parameters for each cluster, or one for
// all with FlatList.
type ClusterGenerator struct {
	Selector metav1.LabelSelector   `json:"selector,omitzero"`
	Template ApplicationSetTemplate `json:"template,omitempty"`
	Values   map[string]string      `json:"values,omitempty"`
	FlatList bool                   `json:"flatList,omitempty"`
}

// GitGenerator gives one set for each directory, or for each object in files.
type GitGenerator struct {
	RepoURL             string                 `json:"repoURL"`
	Directories         []GitDirectory         `json:"directories,omitempty"`
	Files               []GitFile              `json:"files,omitempty"`
	Revision            string                 `json:"revision,omitempty"`
	RequeueAfterSeconds *int64                 `json:"requeueAfterSeconds,omitempty"`
	Template            ApplicationSetTemplate `json:"template,omitempty"`
	PathParamPrefix     string                 `json:"pathParamPrefix,omitempty"`
	Values              map[string]string      `json:"values,omitempty"`
}

// GitDirectory is a pattern for directories.
type GitDirectory struct {
	Path    string `json:"path"`
	Exclude bool   `json:"exclude,omitempty"`
}

// GitFile is a pattern for files.
type GitFile struct {
	Path    string `json:"path"`
	Exclude bool   `json:"exclude,omitempty"`
}

// MatrixGenerator combines each set of the first with each of the second.
type MatrixGenerator struct {
	Generators []ApplicationSetGenerator `json:"generators"`
	Template   ApplicationSetTemplate    `json:"template,omitempty"`
}

// MergeGenerator lays the sets of later generators over those of the first.
type MergeGenerator struct {
	Generators []ApplicationSetGenerator `json:"generators"`
	MergeKeys  []string                  `json:"mergeKeys"`
	Template   ApplicationSetTemplate    `json:"template,omitempty"`
}

// SecretRef names a key of a Secret.
type SecretRef struct {
	SecretName string `json:"secretName"`
	Key        string `json:"key"`
}

// ConfigMapRef names a key of a ConfigMap.
type ConfigMapRef struct {
	ConfigMapName string `json:"configMapName"`
	Key           string `json:"key"`
}

// PullRequestGenerator gives one set for each open pull request.
type PullRequestGenerator struct {
	GitHub                      *PullRequestGitHub     `json:"github,omitempty"`
	GitLab                      *PullRequestGitLab     `json:"gitlab,omitempty"`
	Gitea                       *PullRequestGitea      `json:"gitea,omitempty"`
	BitbucketServer             json.RawMessage        `json:"bitbucketServer,omitempty"`
	Bitbucket                   json.RawMessage        `json:"bitbucket,omitempty"`
	AzureDevOps                 json.RawMessage        `json:"azuredevops,omitempty"`
	Filters                     []PullRequestFilter    `json:"filters,omitempty"`
	RequeueAfterSeconds         *int64                 `json:"requeueAfterSeconds,omitempty"`
	Template                    ApplicationSetTemplate `json:"template,omitempty"`
	Values                      map[string]string      `json:"values,omitempty"`
	ContinueOnRepoNotFoundError bool                   `json:"continueOnRepoNotFoundError,omitempty"`
}

// PullRequestFilter passes a pull request when all of its expressions match.
type PullRequestFilter struct {
	BranchMatch       *string `json:"branchMatch,omitempty"`
	TargetBranchMatch *string `json:"targetBranchMatch,omitempty"`
	TitleMatch        *string `json:"titleMatch,omitempty"`
}

// PullRequestGitHub names a repository on GitHub; API is "" for github.com.
type PullRequestGitHub struct {
	Owner          string     `json:"owner"`
	Repo           string     `json:"repo"`
	API            string     `json:"api,omitempty"`
	TokenRef       *SecretRef `json:"tokenRef,omitempty"`
	AppSecretName  string     `json:"appSecretName,omitempty"`
	Labels         []string   `json:"labels,omitempty"`
	ExcludedLabels []string   `json:"excludedLabels,omitempty"`
}

// PullRequestGitLab names a project on GitLab.
type PullRequestGitLab struct {
	Project          string        `json:"project"`
	API              string        `json:"api,omitempty"`
	TokenRef         *SecretRef    `json:"tokenRef,omitempty"`
	Labels           []string      `json:"labels,omitempty"`
	PullRequestState string        `json:"pullRequestState,omitempty"`
	Insecure         bool          `json:"insecure,omitempty"`
	CARef            *ConfigMapRef `json:"caRef,omitempty"`
}

// PullRequestGitea names a repository on Gitea.
type PullRequestGitea struct {
	Owner    string     `json:"owner"`
	Repo     string     `json:"repo"`
	API      string     `json:"api"`
	TokenRef *SecretRef `json:"tokenRef,omitempty"`
	Insecure bool       `json:"insecure,omitempty"`
	Labels   []string   `json:"labels,omitempty"`
}

// SCMProviderGenerator gives one set for each repository, or branch of one.
type SCMProviderGenerator struct {
	GitHub              *SCMGitHub             `json:"github,omitempty"`
	GitLab              *SCMGitLab             `json:"gitlab,omitempty"`
	Gitea               *SCMGitea              `json:"gitea,omitempty"`
	Bitbucket           json.RawMessage        `json:"bitbucket,omitempty"`
	BitbucketServer     json.RawMessage        `json:"bitbucketServer,omitempty"`
	AzureDevOps         json.RawMessage        `json:"azureDevOps,omitempty"`
	AWSCodeCommit       json.RawMessage        `json:"awsCodeCommit,omitempty"`
	Filters             []SCMFilter            `json:"filters,omitempty"`
	CloneProtocol       string                 `json:"cloneProtocol,omitempty"` // ssh or https
	RequeueAfterSeconds *int64                 `json:"requeueAfterSeconds,omitempty"`
	Template            ApplicationSetTemplate `json:"template,omitempty"`
	Values              map[string]string      `json:"values,omitempty"`
}

// SCMFilter passes a repository when all of its conditions hold.
type SCMFilter struct {
	RepositoryMatch *string  `json:"repositoryMatch,omitempty"`
	PathsExist      []string `json:"pathsExist,omitempty"`
	PathsDoNotExist []string `json:"pathsDoNotExist,omitempty"`
	LabelMatch      *string  `json:"labelMatch,omitempty"`
	BranchMatch     *string  `json:"branchMatch,omitempty"`
}

// SCMGitHub names an organization on GitHub.
type SCMGitHub struct {
	Organization  string     `json:"organization"`
	API           string     `json:"api,omitempty"`
	TokenRef      *SecretRef `json:"tokenRef,omitempty"`
	AppSecretName string     `json:"appSecretName,omitempty"`
	AllBranches   bool       `json:"allBranches,omitempty"`
}

// SCMGitLab names a group on GitLab.
type SCMGitLab struct {
	Group                 string        `json:"group"`
	IncludeSubgroups      bool          `json:"includeSubgroups,omitempty"`
	API                   string        `json:"api,omitempty"`
	TokenRef              *SecretRef    `json:"tokenRef,omitempty"`
	AllBranches           bool          `json:"allBranches,omitempty"`
	Insecure              bool          `json:"insecure,omitempty"`
	IncludeSharedProjects *bool         `json:"includeSharedProjects,omitempty"` // nil means yes
	Topic                 string        `json:"topic,omitempty"`
	CARef                 *ConfigMapRef `json:"caRef,omitempty"`
}

// SCMGitea names an organization or user on Gitea.
type SCMGitea struct {
	Owner       string     `json:"owner"`
	API         string     `json:"api"`
	TokenRef    *SecretRef `json:"tokenRef,omitempty"`
	AllBranches bool       `json:"allBranches,omitempty"`
	Insecure    bool       `json:"insecure,omitempty"`
}

// ClusterDecisionGenerator gives one set for each cluster that the status of a
// resource names. ConfigMapRef says which resource.
type ClusterDecisionGenerator struct {
	ConfigMapRef        string                 `json:"configMapRef"`
	Name                string                 `json:"name,omitempty"`
	RequeueAfterSeconds *int64                 `json:"requeueAfterSeconds,omitempty"`
	LabelSelector       metav1.LabelSelector   `json:"labelSelector,omitzero"`
	Template            ApplicationSetTemplate `json:"template,omitempty"`
	Values              map[string]string      `json:"values,omitempty"`
}

// PluginGenerator asks an HTTP service for sets.
type PluginGenerator struct {
	ConfigMapRef        PluginConfigMapRef     `json:"configMapRef"`
	Input               PluginInput            `json:"input,omitzero"`
	RequeueAfterSeconds *int64                 `json:"requeueAfterSeconds,omitempty"`
	Template            ApplicationSetTemplate `json:"template,omitempty"`
	Values              map[string]string      `json:"values,omitempty"`
}

// PluginConfigMapRef names the ConfigMap with baseUrl and token.
type PluginConfigMapRef struct {
	Name string `json:"name"`
}

// PluginInput is sent to the plugin.
type PluginInput struct {
	Parameters map[string]json.RawMessage `json:"parameters,omitempty"`
}

// ApplicationSetStatus is what the controller found and did.
type ApplicationSetStatus struct {
	Conditions        []ApplicationSetCondition `json:"conditions,omitempty"`
	ApplicationStatus []RolloutStatus           `json:"applicationStatus,omitempty"`
	Resources         []ResourceStatus          `json:"resources,omitempty"`
	ResourcesCount    int64                     `json:"resourcesCount,omitempty"`
}

// ApplicationSetCondition is a fact about an ApplicationSet.
type ApplicationSetCondition struct {
	Type               string       `json:"type"`
	Message            string       `json:"message"`
	LastTransitionTime *metav1.Time `json:"lastTransitionTime,omitempty"`
	Status             string       `json:"status"` // True, False or Unknown
	Reason             string       `json:"reason"`
}

// The types of conditions of ApplicationSets.
const (
	ConditionErrorOccurred       = "ErrorOccurred"
	ConditionParametersGenerated = "ParametersGenerated"
	ConditionResourcesUpToDate   = "ResourcesUpToDate"
	ConditionRolloutProgressing  = "RolloutProgressing"
)

// RolloutStatus is how far an Application is in a rolling sync.
type RolloutStatus struct {
	Application        string       `json:"application"`
	LastTransitionTime *metav1.Time `json:"lastTransitionTime,omitempty"`
	Message            string       `json:"message"`
	Status             string       `json:"status"` // Waiting, Pending, Progressing or Healthy
	Step               string       `json:"step"`   // from "1"; "-1" when no step selects it
	TargetRevisions    []string     `json:"targetRevisions"`
}
