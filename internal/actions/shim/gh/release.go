package gh

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

func releaseCommands() map[string]command {
	return map[string]command{
		"release create": {shim.Flags{shim.F("--title", "-t"), shim.F("--notes", "-n"), shim.F("--notes-file", "-F"), shim.B("--generate-notes"), shim.B("--draft", "-d"), shim.B("--prerelease", "-p"),
			shim.F("--target"), shim.F("--latest"), shim.B("--verify-tag"), shim.F("--notes-start-tag")}, releaseCreate},
		"release view":     {nil, releaseView},
		"release upload":   {shim.Flags{shim.B("--clobber")}, releaseUpload},
		"release download": {shim.Flags{shim.F("--pattern", "-p"), shim.F("--dir", "-D"), shim.F("--output", "-O"), shim.B("--clobber"), shim.B("--skip-existing")}, releaseDownload},
	}
}

func releaseCreate(ctx context.Context, c *call) error {
	if len(c.Rest) == 0 {
		return shim.Usagef("tag required when not running interactively")
	}
	notes, err := c.text("notes", "notes-file")
	if err != nil {
		return err
	}
	if !c.Has("notes") && !c.Has("notes-file") && !c.On("generate-notes") {
		return shim.Usagef("`--notes`, `--notes-file` or `--generate-notes` required when not running interactively")
	}
	tag := c.Rest[0]
	in := object{"tag_name": tag, "name": orElse(c.Get("title"), tag), "body": notes, "draft": c.On("draft"), "prerelease": c.On("prerelease"), "generate_release_notes": c.On("generate-notes")}
	if t := c.Get("target"); t != "" {
		in["target_commitish"] = t
	}
	if c.Has("latest") {
		in["make_latest"] = c.Get("latest")
	}
	route, err := c.route(ctx, "/releases")
	if err != nil {
		return err
	}
	var made object
	if _, err := c.rest(ctx, http.MethodPost, route, in, &made); err != nil {
		return err
	}
	if err := c.upload(ctx, made, c.Rest[1:]); err != nil {
		return err
	}
	return c.printf("%v", made["html_url"])
}

// release is the one of a tag, or the latest.
func (c *call) release(ctx context.Context, tag string) (object, error) {
	where := "/releases/latest"
	if tag != "" {
		where = "/releases/tags/" + url.PathEscape(tag)
	}
	route, err := c.route(ctx, "%s", where)
	if err != nil {
		return nil, err
	}
	var r object
	_, err = c.rest(ctx, http.MethodGet, route, nil, &r)
	return r, err
}

func releaseView(ctx context.Context, c *call) error {
	r, err := c.release(ctx, strings.Join(c.Rest, ""))
	if err != nil {
		return err
	}
	return c.show(r, func() error {
		return c.printf("title:\t%v\ntag:\t%v\ndraft:\t%v\nprerelease:\t%v\nurl:\t%v\n--\n%v", r["name"], r["tag_name"], r["draft"], r["prerelease"], r["html_url"], text(r["body"]))
	})
}

func releaseUpload(ctx context.Context, c *call) error {
	if len(c.Rest) < 2 {
		return shim.Usagef("a tag and files are required")
	}
	r, err := c.release(ctx, c.Rest[0])
	if err != nil {
		return err
	}
	if c.On("clobber") {
		for _, file := range c.Rest[1:] {
			if a := asset(r, filepath.Base(file)); a != nil {
				route, err := c.route(ctx, "/releases/assets/%.0f", a["id"])
				if err != nil {
					return err
				}
				if _, err := c.rest(ctx, http.MethodDelete, route, nil, nil); err != nil {
					return err
				}
			}
		}
	}
	return c.upload(ctx, r, c.Rest[1:])
}

func asset(r object, name string) object {
	list, _ := r["assets"].([]any)
	for _, a := range list {
		if m, ok := a.(object); ok && m["name"] == name {
			return m
		}
	}
	return nil
}

func (c *call) upload(ctx context.Context, r object, files []string) error {
	address, _, _ := strings.Cut(text(r["upload_url"]), "{")
	for _, pattern := range files {
		pattern, label, _ := strings.Cut(pattern, "#")
		matches, err := filepath.Glob(c.Path(pattern))
		if err != nil || len(matches) == 0 {
			return fmt.Errorf("no matches found for `%s`", pattern)
		}
		for _, file := range matches {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			q := url.Values{"name": {filepath.Base(file)}}
			if label != "" {
				q.Set("label", label)
			}
			kind := orElse(mime.TypeByExtension(filepath.Ext(file)), "application/octet-stream")
			if _, err := c.restWith(ctx, http.MethodPost, address+"?"+q.Encode(), http.Header{"Content-Type": {kind}}, data, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func releaseDownload(ctx context.Context, c *call) error {
	r, err := c.release(ctx, strings.Join(c.Rest, ""))
	if err != nil {
		return err
	}
	list, _ := r["assets"].([]any)
	got := 0
	for _, a := range list {
		m, _ := a.(object)
		name := text(m["name"])
		wanted := !c.Has("pattern")
		for _, p := range c.All("pattern") {
			ok, err := filepath.Match(p, name)
			if err != nil {
				return shim.Usagef("pattern %q: %v", p, err)
			}
			wanted = wanted || ok
		}
		if !wanted || name == "" || name != filepath.Base(name) {
			continue
		}
		route, err := c.route(ctx, "/releases/assets/%.0f", m["id"])
		if err != nil {
			return err
		}
		var data []byte
		if _, err := c.restWith(ctx, http.MethodGet, route, http.Header{"Accept": {"application/octet-stream"}}, nil, &data); err != nil {
			return err
		}
		file := orElse(c.Get("output"), filepath.Join(c.Or("dir", "."), name))
		if err := c.save(file, data); err != nil {
			return err
		}
		got++
	}
	if got == 0 {
		return errors.New("no assets match the file pattern")
	}
	return nil
}

func (c *call) save(file string, data []byte) error {
	if file == "-" {
		_, err := c.Stdout.Write(data)
		return err
	}
	path := c.Path(file)
	if _, err := os.Stat(path); err == nil && !c.On("clobber") {
		if c.On("skip-existing") {
			return nil
		}
		return fmt.Errorf("%s already exists (use `--clobber` to overwrite file or `--skip-existing` to skip file)", file)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
