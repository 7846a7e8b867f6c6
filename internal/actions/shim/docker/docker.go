// Package docker is the `docker` program that jobs find on their PATH when the
// machine has none. It understands the command line and hands the work to the
// engine of the job (package engine, below) over a unix socket.
//
// Input: the arguments; ~/.docker/config.json; files of the job, which it sends
// along. Output: what docker prints, and its exit code.
//
// Wire: one HTTP request per command, POST /<verb>. Its body is one line of
// JSON ([Request]) and, for some verbs, a stream: the build context as tar,
// the image to load, standard input. The answer is lines of JSON ([Frame]);
// the last one has the exit code.
//
// Invariants: the engine never opens a path that the client names; unknown
// verbs and options fail with exit code 2 and say so.
//
// Start reading at [Main] and commands.
package docker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// SocketEnv names the socket of the job's engine; DefaultSocket is used without.
const (
	SocketEnv     = "LOCKSTEP_DOCKER_SOCKET"
	DefaultSocket = "/opt/lockstep/docker.sock"
)

// Login opens a registry.
type Login struct{ Username, Password string }

// Request is what a command asks of the engine. Fields are of those verbs that
// use them.
type Request struct {
	Logins   map[string]Login `json:"logins,omitempty"` // by registry host
	Refs     []string         `json:"refs,omitempty"`   // images or containers
	Platform string           `json:"platform,omitempty"`
	Force    bool             `json:"force,omitempty"`
	All      bool             `json:"all,omitempty"`
	Build    *Build           `json:"build,omitempty"`
	Run      *Run             `json:"run,omitempty"`
}

// Build is an image to build. The context follows as a tar stream: below
// "context/" the context, below "named/<name>/" further ones.
type Build struct {
	Dockerfile     string // within the context
	DockerfileText []byte // when it is not in the context
	Tags           []string
	Push, Load     bool
	Quiet          bool
	Target         string
	Platforms      []string
	BuildArgs      map[string]string
	Labels         map[string]string
	Annotations    []string
	NoCache, Pull  bool
	NoCacheFilters []string
	Secrets        map[string][]byte
	SSH            map[string][][]byte
	CacheFrom      []string
	CacheTo        []string
	Contexts       map[string]string // docker-image:// and https:// ones
	Provenance     string
	SBOM           string
	Attests        []string
	AddHosts       []string
	Network        string
	Allow          []string
	ShmSize        string
	Ulimits        []string
}

// Run is a container to run.
type Run struct {
	Image      string
	Command    []string
	Entrypoint *string
	Env        []string
	Workdir    string
	User       string
	Name       string
	Hostname   string
	Volumes    []string // source:target[:ro], paths of the job
	Ports      []string
	Labels     map[string]string
	Network    string
	Detach     bool
	Stdin      bool
	Remove     bool
	Privileged bool
	ReadOnly   bool
	Pull       string
	Memory     string
	CPUs       string
	AddHosts   []string
}

// Frame is one line of an answer.
type Frame struct {
	Out    []byte `json:"o,omitempty"`
	Err    []byte `json:"e,omitempty"`
	Done   bool   `json:"done,omitempty"` // the last one
	Exit   int    `json:"exit,omitempty"`
	Error  string `json:"error,omitempty"`
	Hint   string `json:"hint,omitempty"`
	Digest string `json:"digest,omitempty"` // of a build
	Image  string `json:"image,omitempty"`  // its id
	Meta   string `json:"meta,omitempty"`   // as of --metadata-file
}

// Main runs docker and returns its exit code.
func Main(ctx context.Context, p *shim.Process) int {
	p.Announce("docker")
	code, err := run(ctx, p)
	if err != nil {
		_, _ = fmt.Fprintf(p.Stderr, "ERROR: %v\n", err)
		return shim.Code(err)
	}
	return code
}

var global = shim.Flags{shim.F("--config"), shim.F("--context", "-c"), shim.B("--debug", "-D"), shim.F("--host", "-H"), shim.F("--log-level", "-l"), shim.B("--version", "-v")}

// command is one verb.
type command struct {
	flags shim.Flags
	stop  bool // options end at the first word
	run   func(ctx context.Context, c *call) (int, error)
}

// call is one run of a command.
type call struct {
	*shim.Process
	shim.Parsed
	config string // folder of config.json
}

func run(ctx context.Context, p *shim.Process) (int, error) {
	outer, err := global.Parse(p.Args, true)
	if err != nil {
		return 0, shim.Usagef("docker (emulated by lockstep): %v", err)
	}
	args := outer.Rest
	if outer.On("version") {
		args = []string{"version"}
	}
	all := commands()
	for n := min(3, len(args)); n > 0; n-- {
		verb := strings.Join(args[:n], " ")
		cmd, ok := all[verb]
		if !ok {
			continue
		}
		parsed, err := cmd.flags.Parse(args[n:], cmd.stop)
		if err != nil {
			return 0, shim.Usagef("docker %s (emulated by lockstep): %v", verb, err)
		}
		return cmd.run(ctx, &call{Process: p, Parsed: parsed, config: outer.Get("config")})
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return 0, shim.Usagef("docker %s: the emulated docker does not know this command; it knows: %s", strings.Join(args[:min(2, len(args))], " "), strings.Join(names, ", "))
}

// ask sends a request and copies the answer. stream may be nil.
func (c *call) ask(ctx context.Context, verb string, r Request, stream io.Reader) (Frame, error) {
	logins, err := c.logins()
	if err != nil {
		return Frame{}, err
	}
	r.Logins = logins
	head, err := json.Marshal(r)
	if err != nil {
		return Frame{}, err
	}
	var body io.Reader = strings.NewReader(string(head) + "\n")
	if stream != nil {
		body = io.MultiReader(body, stream)
	}
	socket := c.Getenv(SocketEnv)
	if socket == "" {
		socket = DefaultSocket
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker/"+verb, body)
	if err != nil {
		return Frame{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return Frame{}, fmt.Errorf("the job's image engine cannot be reached at %s: %w", socket, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return Frame{}, fmt.Errorf("the job's image engine answered %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return c.copyFrames(resp.Body)
}

func (c *call) copyFrames(r io.Reader) (Frame, error) {
	dec := json.NewDecoder(bufio.NewReader(r))
	for {
		var f Frame
		if err := dec.Decode(&f); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return f, fmt.Errorf("the job's image engine broke off: %w", err)
		}
		if _, err := c.Stdout.Write(f.Out); err != nil {
			return f, err
		}
		if _, err := c.Stderr.Write(f.Err); err != nil {
			return f, err
		}
		if !f.Done {
			continue
		}
		if f.Error != "" {
			err := errors.New(f.Error)
			if f.Hint != "" {
				err = fmt.Errorf("%s\nTry: %s", f.Error, f.Hint)
			}
			return f, err
		}
		return f, nil
	}
}

// simple asks with the words as images.
func simple(verb string) func(context.Context, *call) (int, error) {
	return func(ctx context.Context, c *call) (int, error) {
		f, err := c.ask(ctx, verb, Request{Refs: c.Rest, Platform: c.Get("platform"), Force: c.On("force"), All: c.On("all") || c.On("all-tags")}, nil)
		return f.Exit, err
	}
}
