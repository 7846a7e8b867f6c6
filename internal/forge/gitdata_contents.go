package forge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// contentChange is the body of a request that writes or removes a file.
type contentChange struct {
	Message   string          `json:"message"`
	Content   string          `json:"content"` // base64
	SHA       string          `json:"sha"`     // blob that is replaced
	Branch    string          `json:"branch"`
	Author    *signatureInput `json:"author"`
	Committer *signatureInput `json:"committer"`
}

func (f *Forge) apiPutContent(w http.ResponseWriter, r *http.Request) (any, error) {
	return f.changeContent(w, r, false)
}

func (f *Forge) apiDeleteContent(w http.ResponseWriter, r *http.Request) (any, error) {
	return f.changeContent(w, r, true)
}

// changeContent writes or removes one file in a commit of its own.
func (f *Forge) changeContent(w http.ResponseWriter, r *http.Request, remove bool) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in contentChange
	if remove && r.ContentLength == 0 { // go-github and old clients put them into the query
		q := r.URL.Query()
		in.Message, in.SHA, in.Branch = q.Get("message"), q.Get("sha"), q.Get("branch")
	} else if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	file := strings.Trim(r.PathValue("path"), "/")
	if reason := hostilePath(file); reason != "" {
		return nil, fail(http.StatusUnprocessableEntity, "path contains a malformed path component: %s", reason)
	}
	ctx := r.Context()
	if in.Branch = strings.TrimPrefix(in.Branch, "refs/heads/"); in.Branch == "" {
		if in.Branch, err = f.head(ctx, repo); err != nil {
			return nil, err
		}
	}
	if err := f.checkRefName(ctx, repo, "refs/heads/"+in.Branch); err != nil {
		return nil, err
	}
	tip, tree, err := f.branchTip(ctx, repo, in.Branch)
	if err != nil {
		return nil, err
	}
	entry, existed, err := f.guardContent(ctx, repo, tip, file, in.SHA, remove)
	if err != nil {
		return nil, err
	}
	change := newTreeEntry{Path: file, Mode: "100644"}
	if !remove {
		if existed && entry.Kind == git.KindBlob && !entry.Symlink() {
			change.Mode = entry.Mode
		}
		if change.SHA, err = f.storeContent(ctx, repo, in.Content); err != nil {
			return nil, err
		}
	}
	if in.Message == "" {
		in.Message = map[bool]string{true: "Delete ", false: map[bool]string{true: "Update ", false: "Create "}[existed]}[remove] + path.Base(file)
	}
	commit, err := f.commitContent(ctx, repo, IdentityFrom(ctx), tip, tree, change, in)
	if err != nil {
		return nil, err
	}
	return f.contentAnswer(w, r, repo, commit, file, existed, remove)
}

// guardContent holds the blob that the client replaces against the one that is there.
func (f *Forge) guardContent(ctx context.Context, repo *repository, tip, file, sha string, remove bool) (entry git.Entry, existed bool, err error) {
	err = git.ErrNotFound
	if tip != "" {
		entry, err = f.entryAt(ctx, repo, tip, file)
	}
	existed = err == nil
	switch {
	case err != nil && !errors.Is(err, git.ErrNotFound):
		return entry, false, err
	case !existed && remove:
		return entry, false, ErrNotFound
	case !existed && sha != "":
		return entry, false, fail(http.StatusConflict, "%s does not match %s", file, sha)
	case existed && entry.Kind != git.KindBlob:
		return entry, true, fail(http.StatusUnprocessableEntity, "%s is a directory or a submodule", file)
	case existed && sha == "":
		return entry, true, fail(http.StatusUnprocessableEntity, "Invalid request.\n\n\"sha\" wasn't supplied.")
	case existed && sha != entry.ID:
		return entry, true, fail(http.StatusConflict, "%s does not match %s", file, sha)
	}
	return entry, existed, nil
}

func (f *Forge) storeContent(ctx context.Context, repo *repository, content string) (*string, error) {
	data, err := decodeContent(content, "base64")
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > f.cfg.MaxFileBytes {
		return nil, fail(http.StatusUnprocessableEntity, "Sorry, your input was too large to process: a file may have %s.", sizeText(f.cfg.MaxFileBytes))
	}
	id, err := f.writeObject(ctx, repo, git.KindBlob, data)
	return &id, err
}

// commitContent makes the commit and moves the branch, if it is still at tip ("" when the
// branch is to be made).
func (f *Forge) commitContent(ctx context.Context, repo *repository, id Identity, tip, tree string, change newTreeEntry, in contentChange) (string, error) {
	root, err := f.writeTree(ctx, repo, tree, []newTreeEntry{change})
	if err != nil {
		return "", err
	}
	c := newCommit{tree: root, message: in.Message, author: in.Author, committer: in.Committer}
	if tip != "" {
		c.parents = []string{tip}
	}
	if c.author == nil {
		c.author = c.committer
	}
	commit, err := f.writeCommit(ctx, repo, id, c)
	if err != nil {
		return "", err
	}
	err = f.changeRefs(ctx, repo, id, refCommand{Ref: "refs/heads/" + in.Branch, Old: idOrZero(tip), New: commit})
	if errors.Is(err, errRefMoved) {
		return "", fail(http.StatusConflict, "is at another commit but expected %s", tip)
	}
	return commit, moveAnswer(err)
}

func (f *Forge) contentAnswer(w http.ResponseWriter, r *http.Request, repo *repository, commit, file string, existed, remove bool) (any, error) {
	c, err := f.gitCommitJSON(r, repo, commit)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"content": nil, "commit": c}
	if remove {
		return answer, nil
	}
	entry, err := f.entryAt(r.Context(), repo, commit, file)
	if err != nil {
		return nil, err
	}
	answer["content"] = f.contentJSON(r, repo, commit, entry)
	status := http.StatusCreated
	if existed {
		status = http.StatusOK
	}
	writeJSON(w, status, answer)
	return nil, nil
}

// apiReadme finds the read-me file of a directory, in GitHub's order of places.
func (f *Forge) apiReadme(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	rev := r.URL.Query().Get("ref")
	if rev == "" {
		rev = "HEAD"
	}
	commit, err := repo.git.Resolve(r.Context(), rev)
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Not Found")
	}
	places := []string{".github", "", "docs"}
	if dir := strings.Trim(r.PathValue("dir"), "/"); dir != "" {
		places = []string{dir}
	}
	for _, dir := range places {
		entries, err := repo.git.ReadDir(r.Context(), commit, dir)
		if errors.Is(err, git.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			name := strings.ToLower(e.Name)
			if e.Kind == git.KindBlob && (name == "readme" || strings.HasPrefix(name, "readme.")) {
				r.SetPathValue("path", e.Path)
				return f.apiContents(w, r)
			}
		}
	}
	return nil, ErrNotFound
}

// languages are GitHub's names of the languages of these projects, by extension.
func languageOf(file string) string {
	switch base := path.Base(file); base {
	case "Dockerfile", "Makefile":
		return base
	}
	return map[string]string{
		".go": "Go", ".py": "Python", ".js": "JavaScript", ".mjs": "JavaScript", ".ts": "TypeScript", ".tsx": "TypeScript", ".java": "Java",
		".cs": "C#", ".rb": "Ruby", ".rs": "Rust", ".c": "C", ".h": "C", ".cpp": "C++", ".sh": "Shell", ".ps1": "PowerShell", ".tf": "HCL",
		".html": "HTML", ".css": "CSS", ".jsonnet": "Jsonnet", ".libsonnet": "Jsonnet", ".kt": "Kotlin", ".php": "PHP", ".tpl": "Smarty",
		".bicep": "Bicep", ".vue": "Vue", ".lua": "Lua", ".mustache": "Mustache",
	}[strings.ToLower(path.Ext(file))]
}

func (f *Forge) apiLanguages(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	root, err := repo.git.Root(r.Context(), "HEAD")
	if errors.Is(err, git.ErrNotFound) {
		return sizes, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := repo.git.Run(r.Context(), "ls-tree", "-r", "-z", "-l", root)
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(out), "\x00") {
		meta, name, _ := strings.Cut(line, "\t")
		fields := strings.Fields(meta)
		if language := languageOf(name); language != "" && len(fields) == 4 {
			size, _ := parseSize(fields[3])
			sizes[language] += size
		}
	}
	return sizes, nil
}

func (f *Forge) apiTags(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	// Newest version first, as GitHub sorts them.
	out, err := repo.git.Run(r.Context(), "for-each-ref", "--sort=-version:refname", "--format=%(refname:strip=2) %(objectname) %(*objectname)", "refs/tags/")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(out) == 0 {
		lines = nil
	}
	base := apiBase(r) + "/repos/" + repo.full()
	list := []map[string]any{}
	for _, line := range cutPage(w, r, lines) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return nil, fmt.Errorf("git for-each-ref: unexpected answer %q", line)
		}
		name, commit := fields[0], fields[len(fields)-1]
		list = append(list, map[string]any{
			"name": name, "node_id": nodeID("Ref", repo.full()+":refs/tags/"+name), "commit": objectJSON{SHA: commit, URL: base + "/commits/" + commit},
			"zipball_url": base + "/zipball/refs/tags/" + name, "tarball_url": base + "/tarball/refs/tags/" + name,
		})
	}
	return list, nil
}
