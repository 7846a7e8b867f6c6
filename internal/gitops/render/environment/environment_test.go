package environment

import "testing"

func facts() Facts {
	return Facts{
		App: "shop", Namespace: "prod", Project: "default", Revision: "0123456789abcdef", Path: "apps/shop",
		RepoURL: "https://github.com/o/r.git", TargetRevision: "main", KubeVersion: "1.37.2", APIVersions: []string{"v1", "apps/v1"},
	}
}

func TestExpand(t *testing.T) {
	env := Of(facts())
	for in, want := range map[string]string{
		"plain":                              "plain",
		"$ARGOCD_APP_NAME-x":                 "shop-x",
		"${ARGOCD_APP_NAMESPACE}_":           "prod_",
		"$ARGOCD_APP_PROJECT_NAME":           "default",
		"$ARGOCD_APP_REVISION":               "0123456789abcdef",
		"$ARGOCD_APP_REVISION_SHORT":         "0123456",
		"$ARGOCD_APP_REVISION_SHORT_8":       "01234567",
		"$ARGOCD_APP_SOURCE_PATH":            "apps/shop",
		"$ARGOCD_APP_SOURCE_REPO_URL":        "https://github.com/o/r.git",
		"$ARGOCD_APP_SOURCE_TARGET_REVISION": "main",
		"$KUBE_VERSION":                      "1.37.2",
		"$KUBE_API_VERSIONS":                 "v1,apps/v1",
		"$$HOME $HOME|":                      "$HOME |", // nothing of this process
		"$UNKNOWN":                           "",
		"5$":                                 "5$",
	} {
		if got := env.Expand(in); got != want {
			t.Errorf("Expand(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestShortRevisionOfAChart(t *testing.T) {
	f := facts()
	f.Revision = "1.2"
	if got := Of(f).Expand("$ARGOCD_APP_REVISION_SHORT_8"); got != "1.2" {
		t.Errorf("got %q", got)
	}
}

func TestDependsOnRevision(t *testing.T) {
	for in, want := range map[string]bool{"$ARGOCD_APP_REVISION": true, "a${ARGOCD_APP_REVISION_SHORT}b": true, "$ARGOCD_APP_NAME": false, "$$ARGOCD_APP_REVISION": false} {
		if DependsOnRevision(in) != want {
			t.Errorf("DependsOnRevision(%q) is not %v", in, want)
		}
	}
}
