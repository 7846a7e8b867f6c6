package git

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxIdleReaders = 4
	readerIdle     = 30 * time.Second
)

// ask sends one command to a pooled reader: "contents" or "info". A reader that
// died while it was idle is replaced once.
func (r *Repository) ask(ctx context.Context, command, spec string) (Object, int64, error) {
	if strings.ContainsAny(spec, "\n\x00") || strings.Contains(spec, "@{") {
		return Object{}, 0, fmt.Errorf("object %q: %w", spec, ErrNotFound)
	}
	if err := ctx.Err(); err != nil {
		return Object{}, 0, fmt.Errorf("git cat-file %s: %w", spec, err)
	}
	for {
		c, reused, err := r.readers.take(r.dir)
		if err != nil {
			return Object{}, 0, err
		}
		stop := context.AfterFunc(ctx, c.kill)
		o, size, err := c.read(command, spec)
		if !stop() && ctx.Err() != nil {
			c.close()
			return Object{}, 0, fmt.Errorf("git cat-file %s: %w", spec, ctx.Err())
		}
		if !c.broken {
			r.readers.put(c)
			return o, size, err
		}
		c.close()
		if errors.Is(err, ErrTooLarge) || !reused {
			return o, size, err
		}
	}
}

// readers keeps idle cat-file processes. The zero value is ready.
type readers struct {
	mu     sync.Mutex
	idle   []*catFile // newest last
	closed bool
	// generation counts resets: a reader of an older one is not used again.
	generation int
}

func (p *readers) take(dir string) (c *catFile, reused bool, err error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		c = p.idle[n-1]
		p.idle = p.idle[:n-1]
	}
	generation := p.generation
	p.mu.Unlock()
	if c != nil {
		c.expire.Stop()
		return c, true, nil
	}
	if c, err = startCatFile(dir); err == nil {
		c.generation = generation
	}
	return c, false, err
}

func (p *readers) put(c *catFile) {
	p.mu.Lock()
	keep := !p.closed && c.generation == p.generation && len(p.idle) < maxIdleReaders
	if keep {
		c.expire = time.AfterFunc(readerIdle, func() { p.drop(c) })
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !keep {
		c.close()
	}
}

// drop ends a reader that has been idle for too long, unless it was taken.
func (p *readers) drop(c *catFile) {
	p.mu.Lock()
	found := false
	for i, other := range p.idle {
		if other == c {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			found = true
			break
		}
	}
	p.mu.Unlock()
	if found {
		c.close()
	}
}

func (p *readers) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.reset()
}

func (p *readers) reset() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.generation++
	p.mu.Unlock()
	for _, c := range idle {
		c.expire.Stop()
		c.close()
	}
}

// catFile is one `git cat-file --batch-command` process.
type catFile struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	expire *time.Timer // ends the process; set while it is idle
	broken bool

	generation int // of the pool when it was started
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

// read asks for one object and returns it and its size; "info" leaves Data
// empty. Any failure of the conversation marks the process as broken, so that
// it is not used again.
func (c *catFile) read(command, spec string) (Object, int64, error) {
	fail := func(err error) (Object, int64, error) {
		c.broken = true
		return Object{}, 0, fmt.Errorf("git cat-file %s: %w", spec, err)
	}
	if _, err := io.WriteString(c.in, command+" "+spec+"\n"); err != nil {
		return fail(err)
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		return fail(err)
	}
	line = strings.TrimSuffix(line, "\n")
	if strings.HasSuffix(line, " missing") || strings.HasSuffix(line, " ambiguous") {
		return Object{}, 0, fmt.Errorf("%s: %w", spec, ErrNotFound)
	}
	f := strings.Fields(line)
	if len(f) != 3 {
		return fail(fmt.Errorf("unexpected answer %q", line))
	}
	size, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || size < 0 {
		return fail(fmt.Errorf("unexpected size %q", f[2]))
	}
	o := Object{ID: f[0], Kind: Kind(f[1])}
	if command == "info" {
		return o, size, nil
	}
	if size > maxBlob {
		return fail(fmt.Errorf("%d bytes: %w", size, ErrTooLarge))
	}
	data := make([]byte, size+1)
	if _, err := io.ReadFull(c.out, data); err != nil {
		return fail(err)
	}
	o.Data = data[:size]
	return o, size, nil
}
