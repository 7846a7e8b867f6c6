package forge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/forge/merge"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

// Limits of what a comparison shows; GitHub has the same kind.
const (
	maxCompareFiles   = 3000
	maxCompareCommits = 10_000
	maxPatch          = 1 << 20  // bytes of one file's patch; a longer one is left out
	maxDiff           = 16 << 20 // bytes of all patches of one answer
)

// changeJSON is a changed file with its patch.
type changeJSON struct {
	SHA         *string `json:"sha"`
	Filename    string  `json:"filename"`
	Status      string  `json:"status"`
	Additions   int     `json:"additions"`
	Deletions   int     `json:"deletions"`
	Changes     int     `json:"changes"`
	BlobURL     string  `json:"blob_url"`
	RawURL      string  `json:"raw_url"`
	ContentsURL string  `json:"contents_url"`
	Patch       string  `json:"patch,omitempty"`
	Previous    string  `json:"previous_filename,omitempty"`
}

// compareFiles are the files that differ between two commits, with patches, of
// all paths or of those given.
func compareFiles(ctx context.Context, repo *repository, from, to string, paths ...string) ([]changeJSON, error) {
	args := []string{"diff-tree", "-r", "-z", "-M", "-l3000", "--no-ext-diff", "--raw", "--numstat", from, to, "--"}
	for _, p := range paths {
		args = append(args, ":(top,literal)"+p)
	}
	out, err := boundedGit(ctx, repo, maxDiff, args...)
	if err != nil {
		return nil, err
	}
	files := parseChanges(strings.Split(string(out), "\x00"))
	if len(files) == 0 {
		return files, nil
	}
	args = append([]string{"-c", "core.quotePath=false", "diff-tree", "-r", "-p", "-M", "-l3000", "--no-ext-diff", "--no-textconv", "--no-color"}, args[len(args)-len(paths)-3:]...)
	patches, err := boundedGit(ctx, repo, maxDiff, args...)
	if err != nil {
		return nil, err
	}
	givePatches(files, string(patches))
	return files, nil
}

var changeStatus = map[byte]string{'A': "added", 'D': "removed", 'R': "renamed", 'C': "copied", 'T': "changed"}

// parseChanges reads git's --raw and --numstat with -z.
func parseChanges(fields []string) []changeJSON {
	var files []changeJSON
	index := map[string]int{}
	for n := 0; n < len(fields); n++ {
		if raw, ok := strings.CutPrefix(fields[n], ":"); ok {
			// oldmode newmode old new status, then the path or both paths
			part := strings.Fields(raw)
			if len(part) < 5 || n+1 >= len(fields) {
				return files
			}
			c := changeJSON{Status: changeStatus[part[4][0]]}
			if c.Status == "" {
				c.Status = "modified"
			}
			if id := part[3]; id != git.ZeroID {
				c.SHA = &id
			} else {
				c.SHA = &part[2]
			}
			n++
			if (part[4][0] == 'R' || part[4][0] == 'C') && n+1 < len(fields) {
				c.Previous = fields[n]
				n++
			}
			c.Filename = fields[n]
			index[c.Filename] = len(files)
			files = append(files, c)
			continue
		}
		count := strings.SplitN(fields[n], "\t", 3)
		if len(count) != 3 {
			continue
		}
		name := count[2]
		if name == "" && n+2 < len(fields) { // a rename: the paths follow
			name = fields[n+2]
			n += 2
		}
		if at, ok := index[name]; ok { // "-" of a binary file counts as 0
			c := &files[at]
			c.Additions, _ = strconv.Atoi(count[0])
			c.Deletions, _ = strconv.Atoi(count[1])
			c.Changes = c.Additions + c.Deletions
		}
	}
	return files
}

// givePatches deals the sections of a patch out to the files, which are in the
// same order. Files whose section is not there any more get none.
func givePatches(files []changeJSON, patch string) {
	sections := splitPatch(patch)
	for n := range files {
		if len(sections) == 0 {
			return
		}
		section := sections[0]
		sections = sections[1:]
		if files[n].Status == "changed" && len(sections) > 0 { // of the kind: removed, then added
			section += sections[0]
			sections = sections[1:]
		}
		if at := strings.Index(section, "\n@@ "); at >= 0 && len(section) <= maxPatch {
			files[n].Patch = strings.ToValidUTF8(strings.TrimSuffix(section[at+1:], "\n"), "\ufffd")
		}
	}
}

func splitPatch(patch string) []string {
	const start = "diff --git "
	var sections []string
	for len(patch) > 0 {
		next := strings.Index(patch[1:], "\n"+start)
		if next < 0 {
			sections = append(sections, patch)
			break
		}
		sections, patch = append(sections, patch[:next+2]), patch[next+2:]
	}
	if len(sections) > 0 && !strings.HasPrefix(sections[0], start) {
		sections = sections[1:]
	}
	return sections
}

// boundedGit is git's output up to a limit; what is beyond is cut off.
func boundedGit(ctx context.Context, repo *repository, limit int64, args ...string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := gitCommand(ctx, repo.git.Dir(), args...)
	var stderr head
	cmd.Stderr = &stderr
	read, write := io.Pipe()
	cmd.Stdout = write
	ended := make(chan error, 1)
	go func() {
		err := run(cmd)
		_ = write.Close()
		ended <- err
	}()
	out, err := io.ReadAll(io.LimitReader(read, limit))
	cut := int64(len(out)) == limit
	if cut {
		cancel()
	}
	_ = read.Close()
	if ran := <-ended; ran != nil && !cut {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], ran, strings.TrimSpace(stderr.String()))
	}
	return out, err
}

// describeChanges fills in the URLs of files at a commit.
func (f *Forge) describeChanges(r *http.Request, repo *repository, sha string, files []changeJSON) []changeJSON {
	if files == nil {
		return []changeJSON{}
	}
	page := f.cfg.URL + "/" + repo.full()
	for n := range files {
		c := &files[n]
		name := (&url.URL{Path: c.Filename}).EscapedPath()
		c.BlobURL, c.RawURL = page+"/blob/"+sha+"/"+name, page+"/raw/"+sha+"/"+name
		c.ContentsURL = apiBase(r) + "/repos/" + repo.full() + "/contents/" + name + "?ref=" + sha
	}
	return files
}

// compareSide finds the commit that one side of "base...head" names, and brings
// it into repo when it is of a fork.
func (f *Forge) compareSide(ctx context.Context, repo *repository, id Identity, text string) (string, error) {
	parts := strings.SplitN(text, ":", 3)
	rev, of := parts[len(parts)-1], repo
	if len(parts) > 1 {
		name := ""
		if len(parts) == 3 {
			name = parts[1]
		}
		var err error
		if of, rev, err = f.findHead(ctx, repo, parts[0]+":"+rev, name); err != nil || !id.mayRead(of) {
			return "", errors.Join(ErrNotFound)
		}
		rev = "refs/heads/" + rev
	}
	sha, err := of.git.Resolve(ctx, rev)
	if err != nil {
		return "", revisionErrorAs(err, http.StatusNotFound, "Not Found")
	}
	if of.id == repo.id {
		return sha, nil
	}
	if _, err := repo.git.Resolve(ctx, sha); err == nil {
		return sha, nil
	}
	_, err = repo.git.Run(ctx, "-c", "gc.auto=0", "-c", "maintenance.auto=false", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", of.git.Dir(), sha)
	return sha, err
}

func (f *Forge) apiCompare(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	ctx, id := r.Context(), IdentityFrom(r.Context())
	from, to, ok := strings.Cut(r.PathValue("basehead"), "...")
	if !ok {
		if from, to, ok = strings.Cut(r.PathValue("basehead"), ".."); !ok {
			return nil, ErrNotFound
		}
	}
	base, err := f.compareSide(ctx, repo, id, from)
	if err != nil {
		return nil, err
	}
	head, err := f.compareSide(ctx, repo, id, to)
	if err != nil {
		return nil, err
	}
	common, err := merge.Base(ctx, repo.git, base, head)
	if err != nil {
		return nil, err
	}
	if common == "" {
		return nil, fail(http.StatusNotFound, "No common ancestor between %s and %s.", from, to)
	}
	if sent, err := f.serveDiff(w, r, repo, common, base, head); sent || err != nil {
		return nil, err
	}
	return f.compareJSON(w, r, repo, base, head, common)
}

func (f *Forge) compareJSON(w http.ResponseWriter, r *http.Request, repo *repository, base, head, common string) (any, error) {
	ctx := r.Context()
	out, err := repo.git.Run(ctx, "rev-list", "--left-right", "--count", base+"..."+head)
	if err != nil {
		return nil, err
	}
	var behindBy, aheadBy int
	if _, err := fmt.Sscan(string(out), &behindBy, &aheadBy); err != nil {
		return nil, fmt.Errorf("git rev-list --count: %q: %w", out, err)
	}
	status := map[[2]bool]string{{false, false}: "identical", {true, false}: "ahead", {false, true}: "behind", {true, true}: "diverged"}[[2]bool{aheadBy > 0, behindBy > 0}]
	p := pageOf(r)
	if r.URL.Query().Get("per_page") == "" {
		p.size = 250
	}
	list, err := repo.git.Run(ctx, "rev-list", "--topo-order", "--reverse", "--max-count="+strconv.Itoa(maxCompareCommits), base+".."+head)
	if err != nil {
		return nil, err
	}
	ids := strings.Fields(string(list))
	from := min(p.skip(), len(ids))
	until := min(from+p.size, len(ids))
	p.link(w, r, until < len(ids))
	commits := []commitJSON{}
	for _, sha := range ids[from:until] {
		c, err := repo.git.Commit(ctx, sha)
		if err != nil {
			return nil, err
		}
		commits = append(commits, f.commitJSON(r, repo, c))
	}
	files := []changeJSON{}
	if p.number == 1 { // as on GitHub
		if files, err = compareFiles(ctx, repo, common, head); err != nil {
			return nil, err
		}
		files = f.describeChanges(r, repo, head, files[:min(len(files), 300)])
	}
	baseCommit, err := repo.git.Commit(ctx, base)
	if err != nil {
		return nil, err
	}
	commonCommit, err := repo.git.Commit(ctx, common)
	if err != nil {
		return nil, err
	}
	url, page := apiBase(r)+"/repos/"+repo.full()+"/compare/"+r.PathValue("basehead"), f.cfg.URL+"/"+repo.full()+"/compare/"+r.PathValue("basehead")
	return map[string]any{
		"url": url, "html_url": page, "permalink_url": f.cfg.URL + "/" + repo.full() + "/compare/" + base + "..." + head,
		"diff_url": page + ".diff", "patch_url": page + ".patch",
		"base_commit": f.commitJSON(r, repo, baseCommit), "merge_base_commit": f.commitJSON(r, repo, commonCommit),
		"status": status, "ahead_by": aheadBy, "behind_by": behindBy, "total_commits": aheadBy, "commits": commits, "files": files,
	}, nil
}

// serveDiff answers with a diff or with patches by mail when the client asks
// for one of these media types.
func (f *Forge) serveDiff(w http.ResponseWriter, r *http.Request, repo *repository, common, base, head string) (bool, error) {
	accept := r.Header.Get("Accept")
	var args []string
	switch {
	case strings.Contains(accept, ".diff"):
		args = []string{"diff-tree", "-r", "-p", "-M", "--full-index", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", common, head}
		w.Header().Set("Content-Type", "application/vnd.github.diff; charset=utf-8")
	case strings.Contains(accept, ".patch"):
		args = []string{"format-patch", "--stdout", "--no-ext-diff", "--no-textconv", "--no-color", base + ".." + head}
		w.Header().Set("Content-Type", "application/vnd.github.patch; charset=utf-8")
	default:
		return false, nil
	}
	if err := f.acquire(r.Context()); err != nil {
		return true, err
	}
	defer f.release()
	cmd := gitCommand(r.Context(), repo.git.Dir(), args...)
	cmd.Stdout = w
	return true, run(cmd)
}
