// Package engine serves the docker shim of one job: it builds with the image
// builder, keeps the job's images in a folder, and runs containers.
//
// Input: requests of package docker on a unix socket of the job. Output: frames
// with text, and the exit code.
//
// Invariants: no path that a request names is opened on this machine, except
// what the job's container engine mounts; every stream is bounded; a client
// that goes away ends its command; images live as long as the job.
//
// Start reading at [New] and [Engine.ServeHTTP].
package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/shim/docker"
)

// Config is what belongs to the job.
type Config struct {
	Repo, Commit  string // for the journal of builds
	Ref, Workflow string // for the provenance of images, with Run
	Run           int64
	Dir           string // scratch on this machine; removed with the job
}

// Container is one that Containers knows.
type Container struct{ ID, Name, Image, Command, Status string }

// Containers runs containers in the job's sandbox. Volumes are paths of the
// job; the implementation keeps them inside of it.
type Containers interface {
	// Run runs a container until it ends and returns its exit code, or its id
	// at once when r.Detach is set.
	Run(ctx context.Context, r docker.Run, image v1.Image, stdin io.Reader, stdout, stderr io.Writer) (id string, exit int, err error)
	List(ctx context.Context, all bool) ([]Container, error)
	Stop(ctx context.Context, container string) error
	Remove(ctx context.Context, container string, force bool) error
	Logs(ctx context.Context, container string, stdout, stderr io.Writer) error
}

// Deps are what the engine uses.
type Deps struct {
	Builder    builtin.Builder   // nil: images cannot be built
	Containers Containers        // nil: containers cannot be run
	Transport  http.RoundTripper // reaches registries
}

// Engine is the server side of the docker shim.
type Engine struct {
	cfg    Config
	deps   Deps
	images *images
}

// New makes the engine of a job. Dir must exist.
func New(cfg Config, deps Deps) (*Engine, error) {
	store, err := newImages(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("keep images below %s: %w", cfg.Dir, err)
	}
	return &Engine{cfg: cfg, deps: deps, images: store}, nil
}

// maxHead bounds the first line of a request, in bytes.
const maxHead = 16 << 20

// exchange is one command under way.
type exchange struct {
	docker.Request
	body   *bufio.Reader // what follows the first line
	stdout frames
	stderr frames
	done   docker.Frame
}

// frames sends text to the client.
type frames struct {
	mu  *sync.Mutex
	w   io.Writer
	rc  *http.ResponseController
	err bool
}

// Write implements io.Writer.
func (f frames) Write(p []byte) (int, error) {
	frame := docker.Frame{Out: p}
	if f.err {
		frame = docker.Frame{Err: p}
	}
	return len(p), f.send(frame)
}

func (f frames) send(frame docker.Frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := json.NewEncoder(f.w).Encode(frame); err != nil {
		return err
	}
	return f.rc.Flush()
}

// ServeHTTP implements http.Handler.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verbs := map[string]func(context.Context, *exchange) error{
		"build": e.build, "push": e.push, "pull": e.pull, "tag": e.tag, "images": e.list, "inspect": e.inspect, "rmi": e.remove, "save": e.save, "load": e.load,
		"manifest": e.manifest, "run": e.run, "ps": e.ps, "rm": e.rm, "stop": e.stop, "logs": e.logs,
	}
	verb, ok := verbs[strings.Trim(r.URL.Path, "/")]
	if !ok || r.Method != http.MethodPost {
		http.Error(w, "no such command", http.StatusNotFound)
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // of HTTP/1: `run -i` reads while it writes
	x := &exchange{body: bufio.NewReader(r.Body)}
	head, err := readLine(x.body)
	if err == nil {
		err = json.Unmarshal(head, &x.Request)
	}
	if err != nil {
		http.Error(w, "read the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	out := frames{mu: &sync.Mutex{}, w: w, rc: rc}
	x.stdout, x.stderr = out, out
	x.stderr.err = true
	w.Header().Set("Content-Type", "application/x-ndjson")
	err = verb(r.Context(), x)
	x.done.Done = true
	if err != nil {
		x.done.Error, x.done.Exit = err.Error(), 1
		var located *builtin.Error
		if errors.As(err, &located) {
			x.done.Hint = located.Hint
		}
	}
	_ = out.send(x.done) // a client that went away needs no answer
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxHead {
			return nil, fmt.Errorf("more than %d bytes", maxHead)
		}
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// parse reads a reference as docker does.
func parse(ref string) (name.Reference, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("invalid reference format: %q", ref)
	}
	return r, nil
}

// registry reaches the registry of a reference with the client's login.
func (e *Engine) registry(ctx context.Context, x *exchange, ref name.Reference) []remote.Option {
	options := []remote.Option{remote.WithContext(ctx)}
	if e.deps.Transport != nil {
		options = append(options, remote.WithTransport(e.deps.Transport))
	}
	if l, ok := x.Logins[docker.Host(ref.Context().RegistryStr())]; ok {
		options = append(options, remote.WithAuth(&authn.Basic{Username: l.Username, Password: l.Password}))
	}
	return options
}

func (x *exchange) one() (string, error) {
	if len(x.Refs) != 1 {
		return "", fmt.Errorf("one argument is needed, not %d", len(x.Refs))
	}
	return x.Refs[0], nil
}
