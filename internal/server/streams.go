package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// maxBatch bounds the events of one message.
const maxBatch = 500

// writeTimeout is how long a client may take to accept one message.
const writeTimeout = 30 * time.Second

// stream opens an answer that goes on: it takes one of the bounded places,
// clears the connection's deadlines and ends with the client or the server.
// The returned function must be called at the end.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) (context.Context, *flusher, func(), error) {
	select {
	case s.streams <- struct{}{}:
	default:
		return nil, nil, nil, problemf(http.StatusServiceUnavailable, "close other pages or commands that follow", "all %d streams are in use", cap(s.streams))
	}
	ctx, cancel := context.WithCancel(r.Context())
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	f := &flusher{w, http.NewResponseController(w)}
	_ = f.ctl.SetReadDeadline(time.Time{}) // not every writer has deadlines
	return ctx, f, func() { cancel(); <-s.streams }, nil
}

// flusher sends every write at once and bounds how long a write may block.
type flusher struct {
	w   io.Writer
	ctl *http.ResponseController
}

func (f *flusher) Write(b []byte) (int, error) {
	_ = f.ctl.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer has deadlines
	n, err := f.w.Write(b)
	if err == nil {
		err = f.ctl.Flush()
	}
	return n, err
}

// events streams the journal as server-sent events: messages named "journal"
// whose data is an array of events and whose id is the last one's, so that a
// browser that reconnects misses nothing. Without ?after or Last-Event-ID it
// starts with what comes next.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	after, err := s.cursor(r)
	if err != nil {
		fail(w, err)
		return
	}
	ctx, out, end, err := s.stream(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	defer end()
	w.Header().Set("Content-Type", "text/event-stream")
	if _, err := fmt.Fprintf(out, "retry: 2000\nid: %d\nevent: hello\ndata: {}\n\n", after); err != nil {
		return
	}
	query := journal.Query{Repo: r.URL.Query().Get("repo"), Commit: r.URL.Query().Get("commit")}
	s.pump(ctx, out, s.deps.Journal.Follow(ctx, after, query))
}

// cursor is where a stream of events starts.
func (s *Server) cursor(r *http.Request) (int64, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("after")
	}
	if text == "" {
		return s.deps.Journal.Last(r.Context())
	}
	after, err := strconv.ParseInt(text, 10, 64)
	if err != nil || after < 0 {
		return 0, problemf(http.StatusBadRequest, "use the id of an event", "cursor %q does not fit", bounded(text))
	}
	return after, nil
}

// pump gathers events for a moment and sends them together.
func (s *Server) pump(ctx context.Context, out io.Writer, events <-chan journal.Event) {
	heartbeat := time.NewTicker(s.config.Heartbeat)
	defer heartbeat.Stop()
	var batch []journal.Event
	var due <-chan time.Time
	for {
		source := events
		if len(batch) == maxBatch {
			source = nil // send first
		}
		var err error
		select {
		case <-ctx.Done():
			return
		case e, ok := <-source:
			if !ok {
				return
			}
			if batch = append(batch, e); due == nil {
				due = time.After(s.config.Coalesce)
			}
		case <-due:
			err = send(out, batch)
			batch, due = nil, nil
		case <-heartbeat.C:
			_, err = io.WriteString(out, ": still here\n\n")
		}
		if err != nil {
			return // the client has gone
		}
	}
}

func send(out io.Writer, batch []journal.Event) error {
	body, err := json.Marshal(batch)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "id: %d\nevent: journal\ndata: %s\n\n", batch[len(batch)-1].ID, body)
	return err
}

// runLog sends the log of a run as text; with ?follow=1 until the run ends.
func (s *Server) runLog(w http.ResponseWriter, r *http.Request) {
	id, err := s.runID(r)
	if err != nil {
		fail(w, err)
		return
	}
	q := r.URL.Query()
	s.text(w, r, func(ctx context.Context) (io.ReadCloser, error) {
		return s.deps.Runs.Log(ctx, id, RunLogOptions{Job: q.Get("job"), Failed: q.Get("failed") == "1", Follow: q.Get("follow") == "1"})
	})
}

// componentLog sends the log of a component as text.
func (s *Server) componentLog(w http.ResponseWriter, r *http.Request) {
	if s.deps.Components == nil {
		fail(w, missing("components"))
		return
	}
	q := r.URL.Query()
	options := LogOptions{Follow: q.Get("follow") == "1"}
	var err error
	if text := q.Get("since"); text != "" {
		if options.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			fail(w, problemf(http.StatusBadRequest, "use a time like 2026-11-23T12:00:00Z", "since %q does not fit", bounded(text)))
			return
		}
	}
	if text := q.Get("tail"); text != "" {
		if options.Tail, err = strconv.Atoi(text); err != nil || options.Tail < 0 {
			fail(w, problemf(http.StatusBadRequest, "use a number of lines", "tail %q does not fit", bounded(text)))
			return
		}
	}
	s.text(w, r, func(ctx context.Context) (io.ReadCloser, error) {
		return s.deps.Components.Log(ctx, r.PathValue("name"), options)
	})
}

// text copies a reader to the client as it produces.
func (s *Server) text(w http.ResponseWriter, r *http.Request, open func(context.Context) (io.ReadCloser, error)) {
	ctx, out, end, err := s.stream(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	defer end()
	log, err := open(ctx)
	if err != nil {
		fail(w, err)
		return
	}
	// A reader that blocks is woken by closing it.
	stop := context.AfterFunc(ctx, func() { _ = log.Close() })
	defer func() {
		if stop() {
			_ = log.Close()
		}
	}()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_ = out.ctl.Flush() // a log may be silent for long; the client should know that it is open
	if _, err := io.Copy(out, log); err != nil && ctx.Err() == nil {
		s.deps.Log.Debug("log stream ended early", "path", r.URL.Path, "err", err)
	}
}
