package git

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strconv"
	"strings"
)

// maxBlob bounds what one read may bring into memory, in bytes.
const maxBlob = 64 << 20

// Kind is the type of a Git object as git prints it.
type Kind string

// The object types.
const (
	KindBlob   Kind = "blob"
	KindTree   Kind = "tree"
	KindCommit Kind = "commit" // in a tree: a submodule
)

// Entry is one entry of a tree.
type Entry struct {
	Name string // within its directory
	Path string // from the root of the repository, slash-separated
	Mode string // as in the tree, "100644", "100755", "120000", "040000", "160000"
	Kind Kind
	ID   string
}

// Symlink reports whether the entry is a symbolic link.
func (e Entry) Symlink() bool { return e.Mode == "120000" }

// Object is a stored object: its id, type and content.
type Object struct {
	ID   string
	Kind Kind
	Data []byte
}

// Object reads what spec names: an object id, or "commit:path". It returns
// ErrNotFound when there is none. A path of "" is the root tree.
func (r *Repository) Object(ctx context.Context, spec string) (Object, error) {
	if strings.ContainsAny(spec, "\n\x00") {
		return Object{}, fmt.Errorf("object %q: %w", spec, ErrNotFound)
	}
	var c *catFile
	select {
	case c = <-r.cats:
	default:
		var err error
		if c, err = startCatFile(r.dir); err != nil {
			return Object{}, err
		}
	}
	stop := context.AfterFunc(ctx, c.kill)
	o, err := c.read(spec)
	if !stop() && ctx.Err() != nil {
		c.close()
		return Object{}, fmt.Errorf("git cat-file %s: %w", spec, ctx.Err())
	}
	if c.broken {
		c.close()
		return o, err
	}
	select {
	case r.cats <- c:
	default:
		c.close()
	}
	return o, err
}

// ReadFile returns the content of the file at path in the given commit.
func (r *Repository) ReadFile(ctx context.Context, commit, file string) ([]byte, error) {
	o, err := r.Object(ctx, commit+":"+file)
	if err != nil {
		return nil, err
	}
	if o.Kind != KindBlob {
		return nil, fmt.Errorf("%s is a %s, not a file: %w", file, o.Kind, ErrNotFound)
	}
	return o.Data, nil
}

// ReadDir lists the directory dir ("" for the root) of the given commit.
func (r *Repository) ReadDir(ctx context.Context, commit, dir string) ([]Entry, error) {
	o, err := r.Object(ctx, commit+":"+dir)
	if err != nil {
		return nil, err
	}
	if o.Kind != KindTree {
		return nil, fmt.Errorf("%s is not a directory: %w", dir, ErrNotFound)
	}
	return ParseTree(o.Data, dir)
}

// ParseTree decodes a tree object (gitformat-tree) of the directory dir.
func ParseTree(data []byte, dir string) ([]Entry, error) {
	const idLen = 20
	var entries []Entry
	for len(data) > 0 {
		head, rest, ok := strings.Cut(string(data[:min(len(data), 4300)]), "\x00")
		_ = rest
		mode, name, ok2 := strings.Cut(head, " ")
		if !ok || !ok2 || name == "" || len(data) < len(head)+1+idLen {
			return nil, fmt.Errorf("tree object of %q is damaged", dir)
		}
		id := data[len(head)+1 : len(head)+1+idLen]
		data = data[len(head)+1+idLen:]
		e := Entry{Name: name, Path: path.Join(dir, name), ID: fmt.Sprintf("%x", id), Kind: KindBlob}
		e.Mode = strings.Repeat("0", max(0, 6-len(mode))) + mode
		switch e.Mode {
		case "040000":
			e.Kind = KindTree
		case "160000":
			e.Kind = KindCommit
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// catFile is one `git cat-file --batch-command` process.
type catFile struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	broken bool
}

func startCatFile(dir string) (*catFile, error) {
	cmd := exec.Command("git", "cat-file", "--batch-command")
	cmd.Dir = dir
	cmd.Env = Env()
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start git cat-file: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start git cat-file: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start git cat-file: %w", err)
	}
	return &catFile{cmd: cmd, in: in, out: bufio.NewReaderSize(out, 64<<10)}, nil
}

func (c *catFile) kill() { _ = c.cmd.Process.Kill() }

func (c *catFile) close() {
	_ = c.in.Close()
	c.kill()
	_ = c.cmd.Wait()
}

// read asks for one object. Any failure of the conversation marks the process
// as broken, so that it is not used again.
func (c *catFile) read(spec string) (Object, error) {
	fail := func(err error) (Object, error) {
		c.broken = true
		return Object{}, fmt.Errorf("git cat-file %s: %w", spec, err)
	}
	if _, err := io.WriteString(c.in, "contents "+spec+"\n"); err != nil {
		return fail(err)
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		return fail(err)
	}
	line = strings.TrimSuffix(line, "\n")
	if strings.HasSuffix(line, " missing") || strings.HasSuffix(line, " ambiguous") {
		return Object{}, fmt.Errorf("%s: %w", spec, ErrNotFound)
	}
	f := strings.Fields(line)
	if len(f) != 3 {
		return fail(fmt.Errorf("unexpected answer %q", line))
	}
	size, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || size < 0 {
		return fail(fmt.Errorf("unexpected size %q", f[2]))
	}
	if size > maxBlob {
		return fail(fmt.Errorf("object has %d bytes; at most %d are read", size, maxBlob))
	}
	data := make([]byte, size+1)
	if _, err := io.ReadFull(c.out, data); err != nil {
		return fail(err)
	}
	return Object{ID: f[0], Kind: Kind(f[1]), Data: data[:size]}, nil
}
