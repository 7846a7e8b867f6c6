package forge

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// maxBlobBody bounds the JSON of a new blob or file, in bytes: as large a file
// as GitHub takes, in base64.
const maxBlobBody = 140 << 20

func (f *Forge) gitdataRoutes(rt routes) {
	const base = "/repos/{owner}/{repo}/git"
	rt.limited("POST "+base+"/blobs", scopeContents, maxBlobBody, f.apiCreateBlob)
	rt.handle("GET "+base+"/blobs/{sha}", scopeContents, f.apiBlob)
	rt.limited("POST "+base+"/trees", scopeContents, maxBlobBody, f.apiCreateTree)
	rt.handle("GET "+base+"/trees/{sha...}", scopeContents, f.apiTree)
	rt.handle("POST "+base+"/commits", scopeContents, f.apiCreateCommit)
	rt.handle("GET "+base+"/commits/{sha}", scopeContents, f.apiGitCommit)
	rt.handle("POST "+base+"/tags", scopeContents, f.apiCreateTag)
	rt.handle("GET "+base+"/tags/{sha}", scopeContents, f.apiTag)
	rt.handle("POST "+base+"/refs", scopeContents, f.apiCreateRef)
	rt.handle("PATCH "+base+"/refs/{ref...}", scopeContents, f.apiUpdateRef)
	rt.handle("DELETE "+base+"/refs/{ref...}", scopeContents, f.apiDeleteRef)
}

// writeObject stores an object and returns its id. git checks its form.
func (f *Forge) writeObject(ctx context.Context, repo *repository, kind git.Kind, data []byte) (string, error) {
	out, err := f.gitIn(ctx, repo, nil, data, "hash-object", "-w", "-t", string(kind), "--stdin")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}

func (f *Forge) apiCreateBlob(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct{ Content, Encoding string }
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	data, err := decodeContent(in.Content, in.Encoding)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > f.cfg.MaxFileBytes {
		return nil, invalid("Blob", "custom", "content", "a file may have "+sizeText(f.cfg.MaxFileBytes))
	}
	id, err := f.writeObject(r.Context(), repo, git.KindBlob, data)
	if err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusCreated, objectJSON{SHA: id, URL: apiBase(r) + "/repos/" + repo.full() + "/git/blobs/" + id})
	return nil, nil
}

// decodeContent is what a file's content in JSON stands for.
func decodeContent(content, encoding string) ([]byte, error) {
	switch encoding {
	case "", "utf-8":
		return []byte(content), nil
	case "base64":
		data, err := base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "").Replace(content))
		if err != nil {
			return nil, fail(http.StatusUnprocessableEntity, "content is not valid Base64")
		}
		return data, nil
	}
	return nil, invalid("Blob", "invalid", "encoding", fmt.Sprintf("%.20q is not utf-8 or base64", encoding))
}

func (f *Forge) apiBlob(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	object, err := f.objectOf(r, repo, r.PathValue("sha"), git.KindBlob)
	if err != nil {
		return nil, err
	}
	if strings.Contains(r.Header.Get("Accept"), "raw") {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(object.Data)
		return nil, nil
	}
	return map[string]any{
		"sha": object.ID, "node_id": nodeID("Blob", repo.full()+":"+object.ID), "size": len(object.Data), "encoding": "base64",
		"content": wrapBase64(object.Data), "url": apiBase(r) + "/repos/" + repo.full() + "/git/blobs/" + object.ID,
	}, nil
}

// objectOf reads an object of a kind by its full id.
func (f *Forge) objectOf(r *http.Request, repo *repository, sha string, kind git.Kind) (git.Object, error) {
	if !objectID.MatchString(sha) {
		return git.Object{}, fail(http.StatusUnprocessableEntity, "The sha parameter must be exactly 40 characters and contain only [0-9a-f].")
	}
	object, err := repo.git.Object(r.Context(), sha)
	if errors.Is(err, git.ErrNotFound) || err == nil && object.Kind != kind {
		return git.Object{}, ErrNotFound
	}
	if errors.Is(err, git.ErrTooLarge) {
		return git.Object{}, fail(http.StatusForbidden, "This object is too large for the API: clone the repository")
	}
	return object, err
}

type treeEntryJSON struct {
	Path string `json:"path"`
	Mode string `json:"mode"`
	Type string `json:"type"`
	Size *int64 `json:"size,omitempty"`
	SHA  string `json:"sha"`
	URL  string `json:"url,omitempty"`
}

// maxTreeEntries is how many entries one answer may have, as on GitHub.
const maxTreeEntries = 100_000

func (f *Forge) apiTree(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	root, err := repo.git.Root(r.Context(), r.PathValue("sha"))
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Not Found")
	}
	return f.treeJSON(r, repo, root, r.URL.Query().Get("recursive") != "")
}

// treeJSON describes a tree, and all below it if it is to be recursive.
func (f *Forge) treeJSON(r *http.Request, repo *repository, root string, recursive bool) (any, error) {
	args := []string{"ls-tree", "-z", "-l"}
	if recursive {
		args = append(args, "-r", "-t")
	}
	out, err := repo.git.Run(r.Context(), append(args, root)...)
	if err != nil {
		return nil, err
	}
	base := apiBase(r) + "/repos/" + repo.full() + "/git/"
	list := []treeEntryJSON{}
	truncated := false
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		meta, name, ok := strings.Cut(line, "\t")
		fields := strings.Fields(meta) // mode type id size
		if !ok || len(fields) != 4 {
			continue
		}
		if len(list) == maxTreeEntries {
			truncated = true
			break
		}
		e := treeEntryJSON{Path: name, Mode: fields[0], Type: fields[1], SHA: fields[2]}
		if e.Type != "commit" {
			e.URL = base + e.Type + "s/" + e.SHA
		}
		if size, ok := parseSize(fields[3]); ok {
			e.Size = &size
		}
		list = append(list, e)
	}
	return map[string]any{"sha": root, "url": base + "trees/" + root, "tree": list, "truncated": truncated}, nil
}

func parseSize(text string) (int64, bool) {
	var n int64
	_, err := fmt.Sscanf(text, "%d", &n)
	return n, err == nil
}

// newTreeEntry is one entry of a tree to be made. Without SHA and Content the path is
// removed.
type newTreeEntry struct {
	Path    string  `json:"path"`
	Mode    string  `json:"mode"`
	Type    string  `json:"type"`
	SHA     *string `json:"sha"`
	Content *string `json:"content"`
}

func (f *Forge) apiCreateTree(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		BaseTree string         `json:"base_tree"`
		Tree     []newTreeEntry `json:"tree"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if len(in.Tree) == 0 {
		return nil, invalid("Tree", "missing_field", "tree", "Invalid tree info")
	}
	base := ""
	if in.BaseTree != "" {
		if base, err = repo.git.Root(r.Context(), in.BaseTree); err != nil {
			return nil, revisionErrorAs(err, http.StatusUnprocessableEntity, "base_tree is not a tree of this repository")
		}
	}
	for i := range in.Tree {
		if err := f.fillTreeEntry(r.Context(), repo, &in.Tree[i]); err != nil {
			return nil, err
		}
	}
	id, err := f.writeTree(r.Context(), repo, base, in.Tree)
	if err != nil {
		return nil, err
	}
	j, err := f.treeJSON(r, repo, id, false)
	if err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

// fillTreeEntry checks an entry and stores its content.
func (f *Forge) fillTreeEntry(ctx context.Context, repo *repository, e *newTreeEntry) error {
	if reason := hostilePath(e.Path); reason != "" {
		return invalid("Tree", "invalid", "path", reason)
	}
	switch {
	case e.Content != nil && e.SHA == nil:
		if int64(len(*e.Content)) > f.cfg.MaxFileBytes {
			return invalid("Tree", "custom", "content", "a file may have "+sizeText(f.cfg.MaxFileBytes))
		}
		id, err := f.writeObject(ctx, repo, git.KindBlob, []byte(*e.Content))
		if err != nil {
			return err
		}
		e.SHA = &id
	case e.SHA == nil:
		return nil // removes the path
	}
	want := map[string]git.Kind{"100644": git.KindBlob, "100755": git.KindBlob, "120000": git.KindBlob, "040000": git.KindTree, "160000": git.KindCommit}
	kind, ok := want[e.Mode]
	if !ok {
		return invalid("Tree", "invalid", "mode", fmt.Sprintf("tree.mode %.10q is not 100644, 100755, 040000, 160000 or 120000", e.Mode))
	}
	if !objectID.MatchString(*e.SHA) {
		return invalid("Tree", "invalid", "sha", "tree.sha must be 40 hexadecimal digits")
	}
	if kind == git.KindCommit {
		return nil // of another repository
	}
	_, is, _, err := repo.git.Stat(ctx, *e.SHA)
	if errors.Is(err, git.ErrNotFound) || err == nil && is != kind {
		return invalid("Tree", "invalid", "sha", "tree.sha "+*e.SHA+" is not a valid "+string(kind))
	}
	return err
}

// hostilePath says why a file must not have a path; "" when it may.
func hostilePath(name string) string {
	switch {
	case name == "" || len(name) > 4096 || !utf8.ValidString(name):
		return "path is empty, longer than 4096 bytes or not UTF-8"
	case strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || path.Clean(name) != name || strings.ContainsRune(name, 0):
		return fmt.Sprintf("path %.200q must be relative, without \"..\", \"//\" and a slash at its end", name)
	}
	for part := range strings.SplitSeq(strings.ToLower(name), "/") {
		if part == ".." || part == "." || part == ".git" || strings.HasPrefix(part, "git~") {
			return fmt.Sprintf("path %.200q has the part %q, which git keeps for itself", name, part)
		}
	}
	return ""
}

type signatureInput struct {
	Name  string     `json:"name"`
	Email string     `json:"email"`
	Date  *time.Time `json:"date"`
}

// signer is a line of a commit or tag that says who and when. What in leaves out
// is of the request's identity and now.
func (f *Forge) signer(id Identity, in *signatureInput) (string, error) {
	own := f.signature(id.Actor)
	name, email, at := own.Name, own.Email, f.deps.Now()
	if in != nil {
		if in.Name != "" {
			name = in.Name
		}
		if in.Email != "" {
			email = in.Email
		}
		if in.Date != nil {
			at = *in.Date
		}
	}
	if strings.ContainsAny(name+email, "<>\n\x00") || strings.TrimSpace(name) == "" || at.Unix() < 0 {
		return "", fail(http.StatusUnprocessableEntity, "Invalid request: author and committer need a name and an email without <, > and line breaks")
	}
	return fmt.Sprintf("%s <%s> %d %s", name, email, at.Unix(), at.Format("-0700")), nil
}

// newCommit is a commit object to be made.
type newCommit struct {
	tree, message, signature string
	parents                  []string
	author, committer        *signatureInput
}

func (f *Forge) writeCommit(ctx context.Context, repo *repository, id Identity, c newCommit) (string, error) {
	if c.committer == nil {
		c.committer = c.author
	}
	author, err := f.signer(id, c.author)
	if err != nil {
		return "", err
	}
	committer, err := f.signer(id, c.committer)
	if err != nil {
		return "", err
	}
	if strings.ContainsRune(c.message, 0) {
		return "", invalid("Commit", "invalid", "message", "a message can't hold NUL")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "tree %s\n", c.tree)
	for _, p := range c.parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	fmt.Fprintf(&b, "author %s\ncommitter %s\n", author, committer)
	if c.signature != "" {
		fmt.Fprintf(&b, "gpgsig %s\n", strings.ReplaceAll(strings.TrimSuffix(c.signature, "\n"), "\n", "\n "))
	}
	b.WriteString("\n" + c.message)
	return f.writeObject(ctx, repo, git.KindCommit, []byte(b.String()))
}

func (f *Forge) apiCreateCommit(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Message   *string         `json:"message"`
		Tree      string          `json:"tree"`
		Parents   []string        `json:"parents"`
		Author    *signatureInput `json:"author"`
		Committer *signatureInput `json:"committer"`
		Signature string          `json:"signature"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if in.Message == nil {
		return nil, invalid("Commit", "missing_field", "message", "")
	}
	for kind, ids := range map[git.Kind][]string{git.KindTree: {in.Tree}, git.KindCommit: in.Parents} {
		for _, id := range ids {
			_, is, _, err := repo.git.Stat(r.Context(), id)
			if err != nil && !errors.Is(err, git.ErrNotFound) {
				return nil, err
			}
			if err != nil || is != kind || !objectID.MatchString(id) {
				return nil, fail(http.StatusUnprocessableEntity, "Object does not exist: %.60q is no %s of this repository", id, kind)
			}
		}
	}
	id, err := f.writeCommit(r.Context(), repo, IdentityFrom(r.Context()), newCommit{
		tree: in.Tree, message: *in.Message, signature: in.Signature, parents: in.Parents, author: in.Author, committer: in.Committer,
	})
	if err != nil {
		return nil, err
	}
	j, err := f.gitCommitJSON(r, repo, id)
	if err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

func (f *Forge) apiGitCommit(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	if _, err := f.objectOf(r, repo, r.PathValue("sha"), git.KindCommit); err != nil {
		return nil, err
	}
	return f.gitCommitJSON(r, repo, r.PathValue("sha"))
}

// gitCommitJSON is a commit as the Git data API has it: without a level "commit".
func (f *Forge) gitCommitJSON(r *http.Request, repo *repository, id string) (any, error) {
	c, err := repo.git.Commit(r.Context(), id)
	if err != nil {
		return nil, err
	}
	j := f.commitJSON(r, repo, c)
	for i := range j.Parents {
		j.Parents[i].URL = strings.Replace(j.Parents[i].URL, "/commits/", "/git/commits/", 1)
	}
	return map[string]any{
		"sha": j.SHA, "node_id": j.NodeID, "url": j.Commit.URL, "html_url": j.HTMLURL, "author": j.Commit.Author, "committer": j.Commit.Committer,
		"message": j.Commit.Message, "tree": j.Commit.Tree, "parents": j.Parents, "verification": j.Commit.Verification,
	}, nil
}
