package forge

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

func (f *Forge) archiveRoutes(rt routes) {
	for _, format := range []string{"tarball", "zipball"} {
		rt.handle("GET /repos/{owner}/{repo}/"+format, scopeContents, f.apiArchiveLink)
		rt.handle("GET /repos/{owner}/{repo}/"+format+"/{ref...}", scopeContents, f.apiArchiveLink)
	}
	rt.handle("GET /repos/{owner}/{repo}/legacy.tar.gz/{ref...}", scopeContents, f.apiArchive)
	rt.handle("GET /repos/{owner}/{repo}/legacy.zip/{ref...}", scopeContents, f.apiArchive)
}

// apiArchiveLink says where the archive is. On GitHub that is another host; here it is
// the same, so that a client's token reaches it.
func (f *Forge) apiArchiveLink(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	ref := r.PathValue("ref")
	if ref == "" {
		if ref, err = f.head(r.Context(), repo); err != nil {
			return nil, err
		}
	}
	if _, err := repo.git.Resolve(r.Context(), ref); err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Not Found")
	}
	kind := "legacy.tar.gz"
	if strings.Contains(r.URL.Path, "/zipball") {
		kind = "legacy.zip"
	}
	w.Header().Set("Location", apiBase(r)+"/repos/"+repo.full()+"/"+kind+"/"+(&url.URL{Path: ref}).EscapedPath())
	w.WriteHeader(http.StatusFound)
	return nil, nil
}

func (f *Forge) apiArchive(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	format := "tar.gz"
	if strings.Contains(r.URL.Path, "/legacy.zip/") {
		format = "zip"
	}
	commit, err := repo.git.Resolve(r.Context(), r.PathValue("ref"))
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Not Found")
	}
	f.sendArchive(w, r, repo, commit, format, repo.owner+"-"+repo.name+"-"+commit[:7])
	return nil, nil
}

// parseArchive reads the path of an archive on the Git host: "archive/refs/heads/main.tar.gz".
func parseArchive(action string) (ref, format string, ok bool) {
	rest, ok := strings.CutPrefix(action, "archive/")
	if !ok {
		return "", "", false
	}
	for _, format := range []string{"tar.gz", "zip"} {
		if ref, ok := strings.CutSuffix(rest, "."+format); ok && ref != "" && !strings.HasPrefix(ref, "-") {
			return ref, format, true
		}
	}
	return "", "", false
}

// serveArchive answers on the Git host, as github.com does.
func (f *Forge) serveArchive(w http.ResponseWriter, r *http.Request, repo *repository, action string) {
	ref, format, _ := parseArchive(action)
	commit, err := repo.git.Resolve(r.Context(), ref)
	if err != nil {
		http.Error(w, "404: Not Found", http.StatusNotFound)
		return
	}
	name := strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/")
	if len(name) > 1 && name[0] == 'v' && name[1] >= '0' && name[1] <= '9' {
		name = name[1:] // as on GitHub: v1.2.3 gives repo-1.2.3
	}
	f.sendArchive(w, r, repo, commit, format, repo.name+"-"+strings.ReplaceAll(name, "/", "-"))
}

// sendArchive streams the files of a commit below a directory.
func (f *Forge) sendArchive(w http.ResponseWriter, r *http.Request, repo *repository, commit, format, dir string) {
	etag := fmt.Sprintf("%q", commit+"."+format)
	w.Header().Set("ETag", etag)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", map[string]string{"zip": "application/zip"}[format])
	if format == "tar.gz" {
		w.Header().Set("Content-Type", "application/x-gzip")
	}
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": dir + "." + format}))
	f.serveProcess(w, r, repo.git.Dir(), "", nil, &answer{w: w}, "archive", "--format="+format, "--prefix="+dir+"/", commit)
}
