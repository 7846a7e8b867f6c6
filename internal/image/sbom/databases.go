package sbom

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// paragraphs splits "Key: value" text at empty lines. Continuation lines belong
// to the key before and are dropped.
func paragraphs(content []byte, separator string, each func(map[string]string)) {
	fields := map[string]string{}
	flush := func() {
		if len(fields) > 0 {
			each(fields)
			fields = map[string]string{}
		}
	}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			flush()
			continue
		}
		key, value, ok := strings.Cut(line, separator)
		if !ok || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		if _, twice := fields[key]; !twice {
			fields[key] = strings.TrimSpace(value)
		}
	}
	flush()
}

// debian reads dpkg's database (deb-control(5)).
func debian(content []byte) (out []Package, err error) {
	paragraphs(content, ":", func(f map[string]string) {
		if status, ok := f["Status"]; ok && !strings.HasSuffix(status, " installed") {
			return // only its configuration is left
		}
		out = append(out, Package{Type: "deb", Name: f["Package"], Version: f["Version"], Arch: f["Architecture"]})
	})
	return out, nil
}

// alpine reads apk's database (apk-tools, "installed" format).
func alpine(content []byte) (out []Package, err error) {
	paragraphs(content, ":", func(f map[string]string) {
		out = append(out, Package{Type: "apk", Name: f["P"], Version: f["V"], Arch: f["A"], License: f["L"]})
	})
	return out, nil
}

// npm reads the package.json of an installed module.
func npm(content []byte) ([]Package, error) {
	var p struct {
		Name, Version string
		License       any
	}
	if err := json.Unmarshal(content, &p); err != nil {
		return nil, fmt.Errorf("not a package.json: %w", err)
	}
	license, _ := p.License.(string)
	return []Package{{Type: "npm", Name: p.Name, Version: p.Version, License: license}}, nil
}

// python reads the core metadata of an installed distribution.
func python(content []byte) (out []Package, err error) {
	header, _, _ := strings.Cut(string(content), "\n\n")
	paragraphs([]byte(header), ":", func(f map[string]string) {
		license := f["License-Expression"]
		if license == "" && len(f["License"]) < 100 {
			license = f["License"]
		}
		// https://peps.python.org/pep-0503/#normalized-names
		name := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(f["Name"]))
		out = append(out, Package{Type: "pypi", Name: name, Version: f["Version"], License: license})
	})
	return out, nil
}

// modules lists the main module, the dependencies and the standard library of a
// Go program; nothing for other programs.
func modules(program io.ReaderAt) []Package {
	info, err := buildinfo.Read(program)
	if err != nil {
		return nil // not made by Go, or stripped of it
	}
	out := []Package{{Type: "golang", Name: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}}
	if info.Main.Path != "" {
		version := info.Main.Version
		if version == "" {
			version = "(devel)"
		}
		out = append(out, Package{Type: "golang", Name: info.Main.Path, Version: version})
	}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		out = append(out, Package{Type: "golang", Name: d.Path, Version: d.Version})
	}
	return out
}
