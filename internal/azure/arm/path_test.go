package arm

import (
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	const g = "/subscriptions/S/resourceGroups/G"
	for in, want := range map[string]string{
		"/subscriptions/S": "scope=/subscriptions/S sub=S group= ns= types= names=",
		g + "/":            "scope=" + g + " sub=S group=G ns= types= names=",
		g + "/providers/Microsoft.KeyVault/vaults":     "scope=" + g + " sub=S group=G ns=Microsoft.KeyVault types=vaults names=",
		g + "/providers/Microsoft.KeyVault//vaults/v/": "scope=" + g + " sub=S group=G ns=Microsoft.KeyVault types=vaults names=v",
		g + "/providers/N/a/1/b/2":                     "scope=" + g + " sub=S group=G ns=N types=a,b names=1,2",
		g + "/providers/N/a/providers":                 "scope=" + g + " sub=S group=G ns=N types=a names=providers",
		g + "/providers/N/a/1/providers/M/r/x":         "scope=" + g + "/providers/N/a/1 sub=S group=G ns=M types=r names=x",
		"/providers/M/r":                               "scope= sub= group= ns=M types=r names=",
		"/subscriptions/S/providers":                   "scope=/subscriptions/S sub=S group= ns= types= names=",
		"//subscriptions/S/resourcegroups/providers":   "scope=/subscriptions/S/resourcegroups/providers sub=S group=providers ns= types= names=",
		"": "scope= sub= group= ns= types= names=",
	} {
		p, ok := parsePath(in)
		got := "scope=" + p.Scope + " sub=" + p.Subscription + " group=" + p.Group + " ns=" + p.Namespace +
			" types=" + strings.Join(p.Types, ",") + " names=" + strings.Join(p.Names, ",")
		if !ok || got != want {
			t.Errorf("parsePath(%q)\n got %s\nwant %s", in, got, want)
		}
	}
	for _, bad := range []string{"/subscriptions/../x", "/a\x00b", "/a?b", `/a\b`, "/ a", strings.Repeat("/a", maxPath)} {
		if _, ok := parsePath(bad); ok {
			t.Errorf("parsePath(%q) succeeded", bad)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"/subscriptions/S/resourceGroups/G/providers/N/a/1/providers/M/r/x", "/providers", "//", "/a/providers/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := parsePath(s)
		if !ok {
			return
		}
		if n := len(p.Types) - len(p.Names); n < 0 || n > 1 {
			t.Fatalf("%q: %d types, %d names", s, len(p.Types), len(p.Names))
		}
		if p.instance() {
			again, ok := parsePath(p.id())
			if !ok || again.id() != p.id() || key(again.id()) != key(p.id()) {
				t.Fatalf("%q: id %q is parsed as %q", s, p.id(), again.id())
			}
			_ = p.parent().id()
		}
	})
}

func TestRolesAllow(t *testing.T) {
	for _, tc := range []struct {
		role, action string
		data, want   bool
	}{
		{"Owner", "Microsoft.KeyVault/vaults/write", false, true},
		{"Owner", "Microsoft.KeyVault/vaults/secrets/getSecret/action", true, false},
		{"Contributor", "Microsoft.Authorization/roleAssignments/write", false, false},
		{"Contributor", "microsoft.containerregistry/REGISTRIES/push/write", false, true},
		{"Reader", "Microsoft.KeyVault/vaults/read", false, true},
		{"Reader", "Microsoft.KeyVault/vaults/write", false, false},
		{"Reader", "Microsoft.ContainerRegistry/registries/listCredentials/action", false, false},
		{"Reader", "Microsoft.ContainerRegistry/registries/pull/read", false, true},
		{"Key Vault Secrets User", "Microsoft.KeyVault/vaults/secrets/getSecret/action", true, true},
		{"Key Vault Secrets User", "Microsoft.KeyVault/vaults/secrets/setSecret/action", true, false},
		{"Key Vault Secrets Officer", "Microsoft.KeyVault/vaults/secrets/delete", true, true},
		{"Key Vault Administrator", "Microsoft.KeyVault/vaults/secrets/purge/action", true, true},
		{"Key Vault Reader", "Microsoft.KeyVault/vaults/secrets/getSecret/action", true, false},
		{"AcrPull", "Microsoft.ContainerRegistry/registries/push/write", false, false},
	} {
		var r *role
		for i := range roles {
			if roles[i].Name == tc.role {
				r = &roles[i]
			}
		}
		if got := r.allows(tc.action, tc.data); got != tc.want {
			t.Errorf("%s, %s (data %t): %t", tc.role, tc.action, tc.data, got)
		}
	}
	seen := map[string]bool{}
	for _, r := range roles {
		if seen[r.ID] || seen[r.Name] || len(r.ID) != 36 {
			t.Errorf("role %s: bad or repeated id", r.Name)
		}
		seen[r.ID], seen[r.Name] = true, true
	}
}

func TestMatchAction(t *testing.T) {
	for _, tc := range []struct {
		pattern, action string
		want            bool
	}{
		{"*", "", true}, {"*", "a/b", true}, {"a/*", "a/b/c", true}, {"a/*", "b/a/", false}, {"*/read", "a/read", true}, {"*/read", "a/readx", false},
		{"a/*/read", "a/b/c/read", true}, {"a/*/read", "a/read", false}, {"a", "a", true}, {"a", "ab", false}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxc", false},
	} {
		if got := matchAction(tc.pattern, tc.action); got != tc.want {
			t.Errorf("matchAction(%q, %q) = %t", tc.pattern, tc.action, got)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, tc := range []struct {
		k, scope string
		want     bool
	}{{"/a/b", "/a", true}, {"/a/b", "/a/b", true}, {"/ab", "/a", false}, {"/a", "/a/b", false}, {"/a", "", true}} {
		if got := within(tc.k, tc.scope); got != tc.want {
			t.Errorf("within(%q, %q) = %t", tc.k, tc.scope, got)
		}
	}
}
