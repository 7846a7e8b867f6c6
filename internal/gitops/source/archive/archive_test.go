package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

func pack(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		content := h.PAXRecords["LOCKSTEP.content"]
		h.PAXRecords = nil
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, content string) tar.Header {
	return tar.Header{Name: name, PAXRecords: map[string]string{"LOCKSTEP.content": content}}
}

func link(name, target string, kind byte) tar.Header {
	return tar.Header{Name: name, Linkname: target, Typeflag: kind}
}

func TestTree(t *testing.T) {
	data := pack(t, file("web/Chart.yaml", "name: web"), file("./web/templates/a.yaml", "a"), link("web/alias", "templates/../Chart.yaml", tar.TypeSymlink),
		link("web/hard", "web/Chart.yaml", tar.TypeLink), tar.Header{Name: "web/empty/", Typeflag: tar.TypeDir, Mode: 0o755}, file("web/Chart.yaml", "name: newer"))
	f, err := Read(data, true, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	tree := source.NewTreeOf(f, "1.0.0")
	for p, want := range map[string]string{"Chart.yaml": "name: newer", "alias": "name: newer", "hard": "name: web", "templates/a.yaml": "a"} {
		if got, err := tree.ReadFile(t.Context(), p); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v", p, got, err)
		}
	}
	root, err := tree.ReadDir(t.Context(), "")
	if err != nil || len(root) != 5 || !root[2].Dir {
		t.Errorf("root: %v, %v", root, err)
	}
	if id := tree.Inputs()["Chart.yaml"]; len(id) != 64 {
		t.Errorf("id %q", id)
	}
	same, err := tree.Inputs().SameIn(t.Context(), source.NewTreeOf(f, "1.0.1"))
	if err != nil || !same {
		t.Errorf("the same archive: %v, %v", same, err)
	}
	whole, err := Read(data, false, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.NewTreeOf(whole, "").ReadFile(t.Context(), "web/Chart.yaml"); err != nil {
		t.Error(err)
	}
}

func TestBadArchives(t *testing.T) {
	bomb := file("zeros", strings.Repeat("\x00", 3<<20))
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"absolute":        {pack(t, file("/etc/passwd", "x")), nil},
		"up":              {pack(t, file("a/../../x", "x")), source.ErrEscapes},
		"link up":         {pack(t, link("a", "../x", tar.TypeSymlink)), source.ErrEscapes},
		"link up and in":  {pack(t, file("web/a", ""), link("web/l", "../../web/a", tar.TypeSymlink)), source.ErrEscapes},
		"absolute link":   {pack(t, link("a", "/x", tar.TypeSymlink)), source.ErrEscapes},
		"hard link":       {pack(t, link("a", "../../etc/passwd", tar.TypeLink)), source.ErrEscapes},
		"hard link away":  {pack(t, link("a", "b", tar.TypeLink)), nil},
		"device":          {pack(t, tar.Header{Name: "d", Typeflag: tar.TypeChar}), nil},
		"file and folder": {pack(t, file("a", ""), file("a/b", "")), nil},
		"bomb":            {pack(t, bomb), ErrTooLarge},
		"many":            {pack(t, file("a", ""), file("b", ""), file("c", ""), file("d", "")), ErrTooLarge},
		"no archive":      {[]byte("hello"), nil},
		"empty":           {nil, nil},
		"cut":             {pack(t, file("a", strings.Repeat("x", 3000)))[:60], nil},
		"stripped link":   {pack(t, file("web/a", ""), link("web/l", "../web/a", tar.TypeSymlink)), source.ErrEscapes},
	} {
		f, err := Read(c.data, name == "stripped link", Limits{Bytes: 1 << 20, Entries: 3})
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(pack(f, file("web/Chart.yaml", "x"), link("web/l", "Chart.yaml", tar.TypeSymlink)))
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := Read(data, true, Limits{Bytes: 1 << 20, Entries: 100})
		if err == nil && files.Size() > 1<<20 {
			t.Error("too large")
		}
	})
}
