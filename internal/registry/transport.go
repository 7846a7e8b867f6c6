package registry

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
)

// Transport reaches the registries from inside this process, without a port
// and with every right: https://docker.io/v2/… is the mirror of Docker Hub. It
// is for what the platform itself imports, such as base images; never hand it
// to something that works for a user.
func (r *Registry) Transport() http.RoundTripper { return inProcess{r} }

type inProcess struct{ r *Registry }

// RoundTrip implements [http.RoundTripper]. The answer streams.
func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	in := req.Clone(req.Context())
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	in.RequestURI = in.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	body, out := io.Pipe()
	w := &pipeWriter{header: http.Header{}, body: out, ready: make(chan struct{}), head: req.Method == http.MethodHead}
	go func() {
		defer func() { _ = in.Body.Close() }()
		// The pipe's Close never fails. A handler that panics breaks its
		// answer off, as under net/http.
		defer func() {
			if p := recover(); p != nil {
				w.WriteHeader(http.StatusInternalServerError)
				_ = out.CloseWithError(fmt.Errorf("registry handler: %v", p))
				return
			}
			w.WriteHeader(http.StatusOK)
			_ = out.Close()
		}()
		t.r.serve(w, in, platform)
	}()
	select {
	case <-w.ready:
	case <-req.Context().Done():
		_ = body.CloseWithError(req.Context().Err())
		return nil, req.Context().Err()
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: body, ContentLength: contentLength(w.sent), Request: req,
	}, nil
}

// pipeWriter hands an answer to the other side of a pipe.
type pipeWriter struct {
	header http.Header
	body   *io.PipeWriter
	head   bool // an answer without a body

	once   sync.Once
	ready  chan struct{}
	status int
	sent   http.Header
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.ready)
	})
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.head {
		return len(p), nil
	}
	return w.body.Write(p)
}

func contentLength(h http.Header) int64 {
	n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err != nil {
		return -1
	}
	return n
}
