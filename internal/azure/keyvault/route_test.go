package keyvault

import (
	"strings"
	"testing"
)

func TestParseRoute(t *testing.T) {
	v := strings.Repeat("a1", 16)
	for in, want := range map[string]route{
		"/":                         {},
		"":                          {},
		"/secrets":                  {Collection: "secrets"},
		"//secrets/":                {Collection: "secrets"},
		"/secrets/n":                {Collection: "secrets", Name: "n"},
		"/secrets/n/":               {Collection: "secrets", Name: "n"},
		"/Secrets/n/" + v:           {Collection: "secrets", Name: "n", Version: v},
		"/secrets/n/versions":       {Collection: "secrets", Name: "n", Verb: "versions"},
		"/secrets/n/backup":         {Collection: "secrets", Name: "n", Verb: "backup"},
		"/secrets/restore":          {Collection: "secrets", Name: "restore", Verb: "restore"},
		"/deletedsecrets/n/recover": {Collection: "deletedsecrets", Name: "n", Verb: "recover"},
		"/keys/k/" + v:              {Collection: "keys", Name: "k", Version: v},
		"/secrets/%61":              {Collection: "secrets", Name: "a"},
	} {
		if got, err := parseRoute(in); err != nil || got != want {
			t.Errorf("parseRoute(%q) = %+v, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{
		"/secrets/a_b":                         "invalid name",
		"/secrets/a%2Fb":                       "invalid name",
		"/secrets/a%zz":                        "malformed escape",
		"/secrets/" + strings.Repeat("a", 128): "invalid name",
		"/secrets/n/1":                         "invalid version",
		"/secrets/n/" + v + "/x":               "too many parts",
	} {
		if _, err := parseRoute(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseRoute(%q): %v, want %q", in, err, want)
		}
	}
}

func TestVaultName(t *testing.T) {
	for host, want := range map[string]string{
		"kv.vault.azure.net": "kv", "KV.Vault.Azure.net:8443": "kv", "vault.azure.net": "", "a.b.vault.azure.net": "", "kv.example": "", "": "",
	} {
		if got := vaultName(host); got != want {
			t.Errorf("vaultName(%q) = %q", host, got)
		}
	}
}

func FuzzParseRoute(f *testing.F) {
	for _, s := range []string{"/secrets/n/versions", "//secrets", "/secrets/%61/", "/deletedsecrets/x/recover"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRoute(s)
		if err == nil && r.Name != "" && !nameForm.MatchString(r.Name) {
			t.Errorf("%q gives the name %q", s, r.Name)
		}
		if err == nil && r.Version != "" && len(r.Version) != 32 {
			t.Errorf("%q gives the version %q", s, r.Version)
		}
	})
}
