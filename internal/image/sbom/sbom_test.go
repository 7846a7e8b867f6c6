package sbom

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spdx/tools-golang/json"
)

// image is a tar stream of files; names that end in ! are executable.
func image(t testing.TB, files map[string]string) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		mode := int64(0o644)
		if strings.HasSuffix(name, "!") {
			mode = 0o755
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimSuffix(name, "!"), Mode: mode, Size: int64(len(files[name]))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func program(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestEachKindOfPackageIsFound(t *testing.T) {
	inv, err := Scan(t.Context(), image(t, map[string]string{
		"etc/os-release":                                  "NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\n",
		"var/lib/dpkg/status":                             "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2.15-2\nDescription: shell\n more of it\n\nPackage: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n",
		"var/lib/dpkg/status.d/tz":                        "Package: tzdata\nArchitecture: all\nVersion: 2026b\n",
		"lib/apk/db/installed":                            "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n\nP:zlib\nV:1.3\nA:x86_64\nL:Zlib\n",
		"app/node_modules/@a/b/package.json":              `{"name":"@a/b","version":"2.0.0","license":"ISC"}`,
		"app/package.json":                                `{"name":"app","version":"9"}`,
		"usr/lib/python3/x/Some_Lib-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: Some_Lib\nVersion: 1.0\nLicense: BSD\n\nVersion: of the text\n",
		"app/serve!":                                      program(t),
		"bin/script!":                                     "#!/bin/sh\n",
	}), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range inv.Packages {
		if p.Type == "golang" {
			continue
		}
		got = append(got, p.PURL(inv.Distribution)+" "+p.License+" "+p.Found)
	}
	want := []string{
		"pkg:apk/debian/musl@1.2.5-r0?arch=x86_64 MIT /lib/apk/db/installed",
		"pkg:apk/debian/zlib@1.3?arch=x86_64 Zlib /lib/apk/db/installed",
		"pkg:deb/debian/bash@5.2.15-2?arch=amd64  /var/lib/dpkg/status",
		"pkg:deb/debian/tzdata@2026b?arch=all  /var/lib/dpkg/status.d/tz",
		"pkg:npm/%40a/b@2.0.0 ISC /app/node_modules/@a/b/package.json",
		"pkg:pypi/some-lib@1.0 BSD /usr/lib/python3/x/Some_Lib-1.dist-info/METADATA",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// A test program names its module and toolchain.
	var found []string
	for _, p := range inv.Packages {
		if p.Type == "golang" && p.Found == "/app/serve" {
			found = append(found, p.Name)
		}
	}
	if want := []string{"github.com/lockstep-gitops/lockstep", "stdlib"}; !slices.Equal(found, want) {
		t.Errorf("modules of /app/serve: %q, want %q", found, want)
	}
	if len(inv.Notes) > 0 {
		t.Errorf("notes: %q", inv.Notes)
	}
}

func TestWhatCannotBeReadIsSaid(t *testing.T) {
	inv, err := Scan(t.Context(), image(t, map[string]string{
		"app/node_modules/bad/package.json": "{", "app/node_modules/none/package.json": "{}", "bin/broken!": "\x7fELF and no more",
		"app/node_modules/long/package.json": strings.Repeat(" ", maxMetadata+1),
	}), t.TempDir())
	if err != nil || len(inv.Packages) != 0 {
		t.Fatalf("%v, %+v", err, inv.Packages)
	}
	if len(inv.Notes) != 2 || !strings.Contains(inv.Notes[0], "bad/package.json") || !strings.Contains(inv.Notes[1], "long/package.json") {
		t.Errorf("notes: %q", inv.Notes)
	}
}

func TestABrokenStreamIsAnError(t *testing.T) {
	if _, err := Scan(t.Context(), io.LimitReader(image(t, map[string]string{"a": "hello"}), 300), t.TempDir()); err == nil {
		t.Error("no error for half a tar file")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scan(ctx, image(t, map[string]string{"a": "hello"}), t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("after a cancellation: %v", err)
	}
}

func TestTheDocumentReadsBack(t *testing.T) {
	files := map[string]string{"var/lib/dpkg/status": "Package: bash\nVersion: 5.2\nArchitecture: amd64\n", "app/node_modules/bad/package.json": "{", "etc/os-release": "ID=debian\n"}
	s := Subject{Name: "shop.azurecr.io/web", Digest: "sha256:" + strings.Repeat("a", 64), Created: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), Tool: "lockstep-1"}
	var documents [2][]byte
	for i := range documents {
		inv, err := Scan(t.Context(), image(t, files), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if documents[i], err = inv.SPDX(s); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(documents[0], documents[1]) {
		t.Error("the same image gives two documents")
	}
	doc, err := json.Read(bytes.NewReader(documents[0]))
	if err != nil {
		t.Fatal(err)
	}
	if len(doc.Packages) != 3 || doc.Packages[2].PackageName != "bash" || doc.Packages[2].PackageExternalReferences[0].Locator != "pkg:deb/debian/bash@5.2?arch=amd64" {
		t.Errorf("packages: %+v", doc.Packages)
	}
	if len(doc.Relationships) != 3 || !strings.Contains(doc.Packages[0].PackageComment, "not a package.json") {
		t.Errorf("relationships %+v, comment %q", doc.Relationships, doc.Packages[0].PackageComment)
	}
}

func FuzzScan(f *testing.F) {
	for _, name := range []string{"var/lib/dpkg/status", "lib/apk/db/installed", "etc/os-release", "node_modules/a/package.json", "x.dist-info/METADATA"} {
		data, _ := io.ReadAll(image(f, map[string]string{name: "Name: a\nVersion: 1\n"}))
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		inv, err := Scan(t.Context(), bytes.NewReader(data), t.TempDir())
		if err != nil {
			return
		}
		if _, err := inv.SPDX(Subject{Name: "a/b", Digest: "sha256:1", Tool: "t"}); err != nil {
			t.Errorf("%+v: %v", inv, err)
		}
	})
}
