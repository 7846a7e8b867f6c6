package builtin

import (
	"archive/zip"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// maxArtifact bounds the files of one artifact, in bytes.
const maxArtifact = 10 << 30

func uploadArtifact() Action {
	return Action{
		Name: "actions/upload-artifact",
		Inputs: map[string]string{"name": "artifact", "path": "", "if-no-files-found": "warn", "retention-days": "", "compression-level": "6",
			"overwrite": "false", "include-hidden-files": "false", "archive": "true"},
		Run: runUpload,
	}
}

func downloadArtifact() Action {
	return Action{
		Name: "actions/download-artifact",
		Inputs: map[string]string{"name": "", "artifact-ids": "", "path": "", "pattern": "", "merge-multiple": "false", "repository": "", "run-id": "",
			"skip-decompress": "false", "digest-mismatch": "error"},
		NoEffect: map[string]string{"github-token": "artifacts are on this machine"},
		Run:      runDownload,
	}
}

// artifactName refuses what GitHub refuses.
func artifactName(c *Call, name string) error {
	if name == "" || strings.ContainsAny(name, "\":<>|*?\r\n\\/") {
		return c.errorf(`leave out " : < > | * ? \ / and line ends`, "artifact name %q is not valid", name)
	}
	return nil
}

func runUpload(ctx context.Context, c *Call) error {
	if c.Job.Store == nil {
		return c.errorf("start Lockstep with its runner services", "artifacts cannot be kept here")
	}
	name := c.With["name"]
	if err := artifactName(c, name); err != nil {
		return err
	}
	hidden, err := c.flag("include-hidden-files")
	if err != nil {
		return err
	}
	overwrite, err := c.flag("overwrite")
	if err != nil {
		return err
	}
	if zipped, err := c.flag("archive"); err != nil || !zipped {
		return errors.Join(err, c.errorf("leave it out", "input archive: false is not supported: artifacts are zip files"))
	}
	level, err := strconv.Atoi(c.With["compression-level"])
	if err != nil || level < 0 || level > 9 {
		return c.errorf("write a number from 0 to 9", "input compression-level: %q", c.With["compression-level"])
	}
	days := 0
	if d := c.With["retention-days"]; d != "" {
		if days, err = strconv.Atoi(d); err != nil || days < 0 || days > 3650 {
			return c.errorf("write a number of days", "input retention-days: %q", d)
		}
	}
	found, err := c.glob(ctx, c.list("path", false), hidden)
	if err != nil {
		return err
	}
	defer found.close()
	if len(found.files) == 0 {
		return noFiles(c)
	}
	root := found.commonRoot()
	c.Logf("With the provided path, there will be %d file(s) uploaded; names are relative to %s", len(found.files), root)
	r, w := io.Pipe()
	go func() { w.CloseWithError(zipFiles(w, found.files, root, level)) }()
	artifact, err := c.Job.Store.PutArtifact(ctx, NewArtifact{Name: name, Retention: time.Duration(days) * 24 * time.Hour, Overwrite: overwrite}, r)
	_ = r.CloseWithError(errors.New("the store stopped reading"))
	if errors.Is(err, ErrExists) {
		return c.errorf("give each job's artifact a name of its own, or set overwrite: true", "the run has an artifact %q already", name)
	}
	if err != nil {
		return c.errorf("", "upload artifact %s: %w", name, err)
	}
	digest := strings.TrimPrefix(artifact.Digest, "sha256:")
	address := fmt.Sprintf("%s/%s/actions/runs/%s/artifacts/%d", c.Job.ServerURL, c.Job.Repo, c.env("GITHUB_RUN_ID"), artifact.ID)
	c.SetOutput("artifact-id", strconv.FormatInt(artifact.ID, 10))
	c.SetOutput("artifact-url", address)
	c.SetOutput("artifact-digest", digest)
	c.Logf("Artifact %s has been successfully uploaded! Final size is %d bytes. Artifact ID is %d\nSHA256 digest of uploaded artifact is %s\nArtifact download URL: %s",
		name, artifact.Size, artifact.ID, digest, address)
	return nil
}

func noFiles(c *Call) error {
	message := fmt.Sprintf("No files were found with the provided path: %s. No artifacts will be uploaded.", strings.Join(c.list("path", false), ", "))
	switch c.With["if-no-files-found"] {
	case "warn":
		c.Logf("##[warning]%s", message)
	case "error":
		return c.errorf("check the input path", "%s", message)
	case "ignore":
		c.Logf("%s", message)
	default:
		return c.errorf("write warn, error or ignore", "input if-no-files-found: %q", c.With["if-no-files-found"])
	}
	return nil
}

// zipFiles writes files with names relative to root.
func zipFiles(w io.Writer, files []match, root string, level int) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, level) })
	left := int64(maxArtifact)
	for _, f := range files {
		n, err := zipFile(z, f, strings.TrimPrefix(strings.TrimPrefix(f.abs, root), "/"), level, left)
		if err != nil {
			return fmt.Errorf("%s: %w", f.abs, err)
		}
		left -= n
	}
	return z.Close()
}

func zipFile(z *zip.Writer, f match, name string, level int, left int64) (int64, error) {
	from, err := f.tree.root.Open(f.name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = from.Close() }()
	method := uint16(zip.Deflate)
	if level == 0 {
		method = zip.Store
	}
	h := &zip.FileHeader{Name: name, Method: method}
	h.SetMode(0o644)
	if fi, err := from.Stat(); err == nil {
		h.Modified = fi.ModTime()
	}
	to, err := z.CreateHeader(h)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(to, io.LimitReader(from, left+1))
	if err == nil && n > left {
		err = fmt.Errorf("the artifact would have more than %d bytes", int64(maxArtifact))
	}
	return n, err
}

func runDownload(ctx context.Context, c *Call) error {
	if c.Job.Store == nil {
		return c.errorf("start Lockstep with its runner services", "there are no artifacts here")
	}
	chosen, direct, err := chooseArtifacts(ctx, c)
	if err != nil {
		return err
	}
	merge, err := c.flag("merge-multiple")
	if err != nil {
		return err
	}
	if raw, err := c.flag("skip-decompress"); err != nil || raw {
		return errors.Join(err, c.errorf("leave it out", "input skip-decompress is not supported"))
	}
	target := c.inJob(c.With["path"])
	for _, a := range chosen {
		dir := target
		if !direct && !merge {
			dir = path.Join(target, a.Name)
		}
		c.Logf("Downloading artifact %s (ID: %d, size: %d) to %s", a.Name, a.ID, a.Size, dir)
		if err := c.unzipTo(ctx, a, dir); err != nil {
			return c.errorf("", "download artifact %s: %w", a.Name, err)
		}
	}
	c.Logf("Total of %d artifact(s) downloaded", len(chosen))
	c.SetOutput("download-path", target)
	return nil
}

// chooseArtifacts reads the inputs. direct says that the one artifact's files
// go to the path itself.
func chooseArtifacts(ctx context.Context, c *Call) (chosen []Artifact, direct bool, err error) {
	name, pattern, ids := c.With["name"], c.With["pattern"], c.list("artifact-ids", true)
	if name != "" && len(ids) > 0 {
		return nil, false, c.errorf("use one of them", "inputs name and artifact-ids exclude each other")
	}
	repo, run := "", int64(0)
	if text := c.With["run-id"]; text != "" && text != c.env("GITHUB_RUN_ID") {
		if run, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, false, c.errorf("", "input run-id: %q is no number", text)
		}
	}
	if r := c.With["repository"]; r != "" && !strings.EqualFold(r, c.Job.Repo) {
		repo = r
	}
	all, err := c.Job.Store.Artifacts(ctx, repo, run)
	if err != nil {
		return nil, false, c.errorf("", "list the artifacts: %w", err)
	}
	var names []string
	for _, a := range all {
		names = append(names, a.Name)
		keep := true
		switch {
		case len(ids) > 0:
			keep = false
			for _, id := range ids {
				keep = keep || id == strconv.FormatInt(a.ID, 10)
			}
		case name != "":
			keep = a.Name == name
		case pattern != "":
			if keep, err = doublestar.Match(pattern, a.Name); err != nil {
				return nil, false, c.errorf("", "input pattern %q: %w", pattern, err)
			}
		}
		if keep {
			chosen = append(chosen, a)
		}
	}
	direct = name != "" || len(ids) == 1
	if len(chosen) == 0 && (name != "" || len(ids) > 0) {
		return nil, false, c.errorf("check that the job that uploads it ran before (needs:); there are: "+strings.Join(names, ", "), "there is no artifact %q", name+strings.Join(ids, ","))
	}
	if len(chosen) < len(ids) {
		return nil, false, c.errorf("", "some of the artifacts %s do not exist", strings.Join(ids, ", "))
	}
	return chosen, direct, nil
}

// unzipTo unpacks an artifact below a folder of the job.
func (c *Call) unzipTo(ctx context.Context, a Artifact, dir string) (err error) {
	from, err := c.Job.Store.OpenArtifact(ctx, a.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	file, err := os.CreateTemp(c.Job.ScratchDir, "artifact-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	size, err := io.Copy(file, io.LimitReader(from, maxArtifact))
	if err != nil {
		return err
	}
	z, err := zip.NewReader(file, size)
	if err != nil {
		return err
	}
	return c.into(ctx, dir, func(root *os.Root, at string) error { return unzip(z, root, at) })
}

// into calls fill with a folder that becomes dir of the job.
func (c *Call) into(ctx context.Context, dir string, fill func(root *os.Root, at string) error) error {
	for _, t := range []tree{{c.Job.Files, c.Job.Workspace}, {c.Job.Temp, c.Job.TempPath}} {
		if dir == t.at || strings.HasPrefix(dir, t.at+"/") {
			at := path.Clean("./" + strings.TrimPrefix(dir, t.at))
			if at != "." {
				if err := t.root.MkdirAll(at, 0o755); err != nil {
					return err
				}
			}
			return fill(t.root, at)
		}
	}
	stage := "_lockstep/into-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := c.Job.Temp.MkdirAll(stage, 0o755); err != nil {
		return err
	}
	if err := fill(c.Job.Temp, stage); err != nil {
		return err
	}
	return c.script(ctx, c.Job.Workspace, `mkdir -p -- "$2" && cp -R -- "$1/." "$2/" && rm -rf -- "$1"`, path.Join(c.Job.TempPath, stage), dir)
}

// unzip writes the files of an archive; names that lead out are refused.
func unzip(z *zip.Reader, root *os.Root, at string) error {
	if len(z.File) > maxFiles {
		return fmt.Errorf("the archive has more than %d files", maxFiles)
	}
	left := int64(maxArtifact)
	for _, f := range z.File {
		name := strings.ReplaceAll(f.Name, `\`, "/")
		inside := path.Clean(name)
		if path.IsAbs(name) || inside == ".." || strings.HasPrefix(inside, "../") {
			return fmt.Errorf("the archive has the name %q, which leads out of the folder", f.Name)
		}
		target := path.Join(at, inside)
		if f.FileInfo().IsDir() {
			if err := root.MkdirAll(target, 0o755); err != nil {
				return err
			}
			continue
		}
		if !f.Mode().IsRegular() {
			return fmt.Errorf("%s in the archive is no regular file", f.Name)
		}
		n, err := unzipFile(f, root, target, left)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		left -= n
	}
	return nil
}

func unzipFile(f *zip.File, root *os.Root, target string, left int64) (n int64, err error) {
	if err := root.MkdirAll(path.Dir(target), 0o755); err != nil {
		return 0, err
	}
	from, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := root.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(to, io.LimitReader(from, left+1))
	if err == nil && n > left {
		err = fmt.Errorf("more than %d bytes", int64(maxArtifact))
	}
	return n, errors.Join(err, to.Close())
}
