package azure

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestParseObjects(t *testing.T) {
	tests := []struct {
		name, text string
		want       []object
		wantErr    string
	}{
		{name: "as in the documentation", text: "array:\n  - |\n    objectName: db\n    objectType: secret\n    objectVersion: \"\"\n",
			want: []object{{Name: "db", Type: "secret"}}},
		{name: "all fields", text: objects("objectName: db\nobjectAlias: conf/db.txt\nobjectVersion: 0123456789abcdef0123456789abcdef\nobjectType: secret\nobjectFormat: PEM\nobjectEncoding: UTF-8\nfilePermission: 0440\nobjectVersionHistory: 1"),
			want: []object{{Name: "db", Alias: "conf/db.txt", Version: "0123456789abcdef0123456789abcdef", Type: "secret", Format: "PEM", Encoding: "UTF-8", FilePermission: "0440", VersionHistory: 1}}},
		{name: "digits are text", text: objects("objectName: 123\nobjectType: secret\nobjectVersion: 456"),
			want: []object{{Name: "123", Type: "secret", Version: "456"}}},
		{name: "white space", text: objects("objectName: \"db  \"\nobjectType: \" secret\""), want: []object{{Name: "db", Type: "secret"}}},
		{name: "twice the same", text: objects(secret("db"), secret("db")), want: []object{{Name: "db", Type: "secret"}}},
		{name: "empty", text: " \n", wantErr: "objects is not set"},
		{name: "no array", text: "list: []", wantErr: "no entries under array"},
		{name: "not YAML", text: "array: [", wantErr: "not YAML"},
		{name: "a mapping instead of a string", text: "array:\n  - objectName: db\n    objectType: secret\n", wantErr: `line 2, entry 1: must be a string that holds YAML: write "- |"`},
		{name: "text", text: objects("db"), wantErr: "is not a mapping"},
		{name: "no name", text: objects("objectType: secret"), wantErr: `objectName ""`},
		{name: "path as name", text: objects("objectName: ../db\nobjectType: secret"), wantErr: "letters, digits and dashes"},
		{name: "no type", text: objects("objectName: db"), wantErr: `objectType "" must be secret, key or cert`},
		{name: "key", text: objects("objectName: db\nobjectType: key"), wantErr: "objectType key is not supported yet"},
		{name: "history", text: objects(secret("db") + "\nobjectVersionHistory: 5"), wantErr: "objectVersionHistory 5 is not supported yet"},
		{name: "encoding", text: objects(secret("db") + "\nobjectEncoding: utf-16"), wantErr: "must be utf-8, base64 or hex"},
		{name: "format", text: objects(secret("db") + "\nobjectFormat: der"), wantErr: "must be pem or pfx"},
		{name: "permission", text: objects(secret("db") + "\nfilePermission: 0999"), wantErr: "must be octal"},
		{name: "set-uid", text: objects(secret("db") + "\nfilePermission: 4755"), wantErr: "at most 0777"},
		{name: "alias escapes", text: objects(secret("db") + "\nobjectAlias: ../../etc/passwd"), wantErr: `must not contain ".."`},
		{name: "version escapes", text: objects(secret("db") + "\nobjectVersion: ../other"), wantErr: "is not a version"},
		{name: "two for one file", text: objects(secret("a"), secret("b")+"\nobjectAlias: a"), wantErr: `a and b would both be the file "a"`},
		{name: "bomb", text: "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\narray: [*f]\n", wantErr: "must be a string"},
		{name: "too many", text: "array: [" + strings.Repeat("x,", maxObjects+1) + "]", wantErr: "more than 500"},
		{name: "too long", text: strings.Repeat("#", maxObjectsText+1), wantErr: "longer than 256 KiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := parseObjects(tt.text)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error = %v, want %q in it", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(tt.want) {
				t.Fatalf("got %+v, want %+v", got, tt.want)
			}
			for i := range got {
				if got[i] != tt.want[i] {
					t.Errorf("got %+v, want %+v", got[i], tt.want[i])
				}
			}
		})
	}
}

func TestParseParameters(t *testing.T) {
	for want, more := range map[string]map[string]string{
		"keyvaultName is not set":      {"keyvaultName": " "},
		"3 to 24 letters":              {"keyvaultName": "https://shop-kv.vault.azure.net"},
		"must be true or false":        {"usePodIdentity": "yes please"},
		"managed identities":           {"useVMManagedIdentity": "true"},
		"identity bindings":            {"useAzureTokenProxy": "true"},
		`cloudName "AzureChinaCloud"`:  {"cloudName": "AzureChinaCloud"},
		"parameter objects is not set": {"objects": ""},
	} {
		if _, err := parseParameters(request(t, more).Attributes); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error = %v, want %q in it", more, err, want)
		}
	}
	ok := map[string]string{"usePodIdentity": "false", "useVMManagedIdentity": "false", "userAssignedIdentityID": "", "cloudName": ""}
	if p, err := parseParameters(request(t, ok).Attributes); err != nil || len(p.warnings) != 0 {
		t.Errorf("the usual class: %v, %v", p.warnings, err)
	}
}

func FuzzParseObjects(f *testing.F) {
	f.Add("array:\n  - |\n    objectName: db\n    objectType: secret\n")
	f.Add("array:\n  - |\n    objectName: db\n    objectType: secret\n    objectAlias: a/b\n    filePermission: 0400\n")
	f.Add("array: [*a]")
	f.Add("array: [\"objectName: !!binary AA\"]")
	f.Fuzz(func(t *testing.T, text string) {
		got, _, err := parseObjects(text)
		if err != nil {
			return
		}
		files := map[string]bool{}
		for _, o := range got {
			if files[o.file()] {
				t.Errorf("two objects for %q", o.file())
			}
			files[o.file()] = true
			if !filepath.IsLocal(o.file()) || !objectName.MatchString(o.Name) {
				t.Errorf("accepted %+v", o)
			}
			if mode, err := o.mode(0o644); err != nil || mode > 0o777 {
				t.Errorf("mode %o, %v", mode, err)
			}
		}
	})
}
