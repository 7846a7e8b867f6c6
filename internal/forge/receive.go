package forge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// maxInMemory is up to which size a received pack is kept in memory, in bytes.
const maxInMemory = 256 << 10

// receivePack takes a push. full is "owner/name" as the client wrote it; the
// caller has checked that id may write there.
//
// The pack is received as a whole before refs are locked, so a slow client
// holds up nobody.
func (f *Forge) receivePack(w http.ResponseWriter, req *http.Request, full string, id Identity) {
	if !f.enterPush() {
		http.Error(w, "lockstep is shutting down: push again when it is up", http.StatusServiceUnavailable)
		return
	}
	defer f.leavePush()
	// A new connection's first requests are small: let the time limit be that of
	// the push, not of the server's usual reads.
	deadline := time.Now().Add(f.cfg.PushTimeout)
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(deadline)
	_ = control.SetWriteDeadline(deadline.Add(f.cfg.PushTimeout))

	body, err := requestBody(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	in := bufio.NewReaderSize(body, 64<<10)
	list, err := readRefCommands(in)
	if err != nil {
		http.Error(w, "lockstep: can't read the push: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-git-receive-pack-result")
	w.Header().Set("Cache-Control", "no-cache")
	if len(list.Commands) == 0 {
		return // a client that tries out its credentials before a large push
	}
	pack, err := f.spool(in)
	if errors.Is(err, errTooLarge) {
		reason := fmt.Sprintf("the push has more than %s; push in parts or raise the limit", sizeText(f.cfg.MaxPackBytes))
		f.log.Warn("push refused", "repo", full, "actor", id.Actor, "reason", reason)
		_, _ = w.Write(list.refusal(reason))
		return
	}
	if err != nil {
		f.log.Info("push was not received", "repo", full, "actor", id.Actor, "error", err)
		http.Error(w, "lockstep: the push ended early", http.StatusBadRequest)
		return
	}
	defer pack.close()

	// From here on the push no longer depends on the client's connection.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), f.cfg.PushTimeout)
	defer cancel()
	defer context.AfterFunc(f.base, cancel)()
	if err := f.push(ctx, w, full, id, list, pack); err != nil {
		f.log.Error("push failed", "repo", full, "actor", id.Actor, "error", err)
		_, _ = w.Write(list.refusal("lockstep can't take the push now; its log says why"))
	}
}

// push runs git on a received push and settles it. An error means that git was
// not started.
func (f *Forge) push(ctx context.Context, w io.Writer, full string, id Identity, list refCommands, pack *spooled) error {
	repo, err := f.find(ctx, full)
	if errors.Is(err, ErrNotFound) {
		repo, err = f.createRepository(ctx, RepositorySpec{Name: full})
		if errors.Is(err, ErrExists) {
			repo, err = f.find(ctx, full)
		} else if err == nil {
			_, _ = w.Write(list.progress("lockstep: created " + full))
		}
	}
	if err != nil {
		return err
	}
	if err := repo.lock(ctx); err != nil {
		return fmt.Errorf("wait for another push: %w", err)
	}
	defer repo.unlock()
	if err := f.acquire(ctx); err != nil {
		return fmt.Errorf("wait for a free process: %w", err)
	}
	defer f.release()
	start := time.Now()
	if err := f.settleLeftovers(ctx, repo); err != nil {
		return err
	}
	p, err := f.recordPush(ctx, repo, id.Actor, id.Cause, list.Commands)
	if err != nil {
		return err
	}
	if hidden := hiddenRefs(list.Commands); hidden != "" {
		_, _ = w.Write(list.progress("error: only branches and tags can be pushed (refs/heads/, refs/tags/), not " + hidden))
	}
	f.runReceivePack(ctx, w, repo, id, list, pack)
	p.took = time.Since(start)
	// What moved has moved: tell it even when the time is up.
	settleCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := f.settle(settleCtx, repo, p); err != nil {
		f.log.Error("push is not in the journal yet; it will be with the next push or start", "repo", repo.full(), "error", err)
	}
	f.noteMaintenance(repo)
	return nil
}

// runReceivePack lets git unpack and move the refs, and sends its report to the
// client. What came of it is read from the refs afterwards.
func (f *Forge) runReceivePack(ctx context.Context, w io.Writer, repo *repository, id Identity, list refCommands, pack *spooled) {
	line, err := newHookLine()
	if err != nil {
		f.log.Error("push failed", "repo", repo.full(), "error", err)
		_, _ = w.Write(list.refusal("lockstep can't take the push now; its log says why"))
		return
	}
	cmd := gitCommand(ctx, repo.git.Dir(), "-c", "core.hooksPath="+f.hooks(), "receive-pack", "--stateless-rpc", ".")
	line.attach(cmd)
	served := make(chan struct{})
	go func() {
		defer close(served)
		line.serve(func(quarantine string) verdict { return f.decide(ctx, repo, id, list, quarantine) })
	}()
	defer func() {
		line.close()
		<-served
	}()
	cmd.Stdin = io.MultiReader(bytes.NewReader(list.Raw), pack)
	var stderr head
	cmd.Stderr = &stderr
	// A client that is gone must not end git between two refs.
	cmd.Stdout = &toClient{w: w}
	if err := run(cmd); err != nil {
		f.log.Warn("git receive-pack failed", "repo", repo.full(), "error", err, "stderr", stderr.String())
		if ctx.Err() == nil {
			return
		}
		if err := removeLocks(repo.git.Dir()); err != nil { // it may have been killed
			f.log.Warn("locks of the ended git remain until the next start", "repo", repo.full(), "error", err)
		}
	}
}

// decide is the verdict on a push that git has unpacked. What can't be judged is refused.
func (f *Forge) decide(ctx context.Context, repo *repository, id Identity, list refCommands, quarantine string) verdict {
	v, err := f.judge(ctx, proposal{repo: repo, by: id, commands: list.Commands, options: list.Options, quarantine: quarantine})
	if err != nil {
		f.log.Error("push can't be judged", "repo", repo.full(), "actor", id.Actor, "error", err)
		v.refusals = append(v.refusals, "lockstep can't check this push: "+err.Error())
	}
	if v.refused() {
		f.log.Info("push refused", "repo", repo.full(), "actor", id.Actor, "reason", v.refusals[0])
	}
	return v
}

// toClient writes on to a client and takes what it no longer can.
type toClient struct {
	w    io.Writer
	gone bool
}

func (t *toClient) Write(p []byte) (int, error) {
	if !t.gone {
		if _, err := t.w.Write(p); err != nil {
			t.gone = true
		} else if flusher, ok := t.w.(http.Flusher); ok {
			flusher.Flush()
		}
	}
	return len(p), nil
}

// hiddenRefs names the refs that git will refuse, for a clearer message.
func hiddenRefs(commands []refCommand) string {
	var names []string
	for _, c := range commands {
		if !strings.HasPrefix(c.Ref, "refs/heads/") && !strings.HasPrefix(c.Ref, "refs/tags/") {
			if names = append(names, c.Ref); len(names) == 5 {
				names = append(names, "…")
				break
			}
		}
	}
	return strings.Join(names, ", ")
}

var errTooLarge = errors.New("the push is too large")

// spooled is a received pack: in memory, or in a file without a name.
type spooled struct {
	io.Reader
	file *os.File
}

func (s *spooled) close() {
	if s.file != nil {
		_ = s.file.Close()
	}
}

// spool reads the rest of a push. Of one that is too large it reads up to twice
// the limit, so that the client gets to read the answer.
func (f *Forge) spool(r io.Reader) (*spooled, error) {
	limit := f.cfg.MaxPackBytes
	var memory bytes.Buffer
	n, err := io.Copy(&memory, io.LimitReader(r, min(maxInMemory, limit)+1))
	if err != nil {
		return nil, err
	}
	if n <= min(maxInMemory, limit) {
		return &spooled{Reader: &memory}, nil
	}
	if n > limit {
		_, _ = io.CopyN(io.Discard, r, limit)
		return nil, errTooLarge
	}
	file, err := os.CreateTemp(f.tmp(), "push-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	n, err = io.Copy(file, io.LimitReader(io.MultiReader(&memory, r), limit+1))
	if err == nil && n > limit {
		_, _ = io.CopyN(io.Discard, r, limit)
		err = errTooLarge
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &spooled{Reader: file, file: file}, nil
}

func sizeText(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
