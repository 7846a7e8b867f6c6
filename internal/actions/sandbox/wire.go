package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
)

// message is one line on the control socket, either way.
type message struct {
	// From the supervisor.
	Plan *plan    `json:"plan,omitempty"` // ahead travel the descriptors of its trees
	Exec *request `json:"exec,omitempty"` // ahead travel input, output and errors, as far as it says
	Kill *signal  `json:"kill,omitempty"`
	// From init.
	Ready *ready  `json:"ready,omitempty"`
	Exit  *result `json:"exit,omitempty"`
	Error string  `json:"error,omitempty"` // set-up failed
}

// plan is what init makes of a Spec; everything of the host is in Trees.
type plan struct {
	Hostname  string   `json:"hostname"`
	Masks     []string `json:"masks,omitempty"`
	Links     []Link   `json:"links,omitempty"`
	Dirs      []string `json:"dirs,omitempty"`
	Trees     []tree   `json:"trees"`
	Limits    Limits   `json:"limits"`
	Image     bool     `json:"image,omitempty"` // the root is not the host's
	ReadOnly  bool     `json:"readOnly,omitempty"`
	Untrusted bool     `json:"untrusted,omitempty"`
}

// Kinds of trees, in the order in which init uses them.
const (
	treeLower  = "lower"  // a layer of the root
	treeShown  = "shown"  // a mount of the host within its programs
	treeDevice = "device" // a node of /dev
	treeBind   = "bind"
)

// tree is a detached copy of a host mount. Its descriptor travels beside the
// description, so that init needs no path of the host.
type tree struct {
	Kind     string `json:"kind"`
	Target   string `json:"target,omitempty"` // inside
	Dir      bool   `json:"dir,omitempty"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

type request struct {
	ID     int      `json:"id"`
	Args   []string `json:"args"`
	Env    []string `json:"env"`
	Dir    string   `json:"dir"`
	User   string   `json:"user,omitempty"`
	Input  bool     `json:"input,omitempty"`
	Errors bool     `json:"errors,omitempty"`
}

type signal struct {
	ID     int `json:"id"`
	Signal int `json:"signal"`
}

type ready struct {
	Warnings []string `json:"warnings,omitempty"`
}

type result struct {
	ID     int    `json:"id"`
	Code   int    `json:"code"`
	Signal string `json:"signal,omitempty"`
	Error  string `json:"error,omitempty"` // the program could not be started
}

// maxMessage bounds one line: argv and environment of a step.
const maxMessage = 8 << 20

// channel is the control socket: lines of JSON with file descriptors beside them.
type channel struct {
	conn *net.UnixConn
	buf  []byte
	fds  []int

	mu sync.Mutex // serialises send
}

func openChannel(f *os.File) (*channel, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("control socket is a %T", c)
	}
	return &channel{conn: conn}, nil
}

// filesPerLine bounds the descriptors beside one line; the kernel takes 253.
const filesPerLine = 64

// send writes one message; files are passed along.
func (c *channel) send(m message, files ...*os.File) error {
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode sandbox message: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for some := range slices.Chunk(files, filesPerLine) {
		fds := make([]int, len(some))
		for i, f := range some {
			fds[i] = int(f.Fd())
		}
		// An empty line carries the descriptors, so that the message itself
		// may be written in pieces.
		_, _, err := c.conn.WriteMsgUnix([]byte("\n"), syscall.UnixRights(fds...), nil)
		runtime.KeepAlive(some)
		if err != nil {
			return fmt.Errorf("send to sandbox: %w", err)
		}
	}
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("send to sandbox: %w", err)
	}
	return nil
}

// receive reads the next message. It returns io.EOF when the other side is gone.
func (c *channel) receive() (message, error) {
	for {
		line, rest, ok := bytes.Cut(c.buf, []byte("\n"))
		if ok {
			c.buf = rest
			if len(line) == 0 {
				continue
			}
			var m message
			if err := json.Unmarshal(line, &m); err != nil {
				return message{}, fmt.Errorf("decode sandbox message: %w", err)
			}
			return m, nil
		}
		if len(c.buf) > maxMessage {
			return message{}, fmt.Errorf("sandbox message is longer than %d bytes", maxMessage)
		}
		if err := c.fill(); err != nil {
			return message{}, err
		}
	}
}

func (c *channel) fill() error {
	data, oob := make([]byte, 64<<10), make([]byte, syscall.CmsgSpace(4*filesPerLine))
	n, oobn, _, _, err := c.conn.ReadMsgUnix(data, oob)
	if err != nil {
		return fmt.Errorf("receive from sandbox: %w", err)
	}
	if n == 0 && oobn == 0 {
		return io.EOF
	}
	c.buf = append(c.buf, data[:n]...)
	controls, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return fmt.Errorf("receive from sandbox: %w", err)
	}
	for _, control := range controls {
		fds, err := syscall.ParseUnixRights(&control)
		if err != nil {
			return fmt.Errorf("receive from sandbox: %w", err)
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
		}
		c.fds = append(c.fds, fds...)
	}
	return nil
}

// takeFiles returns the n oldest descriptors that came in.
func (c *channel) takeFiles(n int) ([]*os.File, error) {
	if len(c.fds) < n {
		return nil, fmt.Errorf("%d descriptors came with the request, want %d", len(c.fds), n)
	}
	files := make([]*os.File, n)
	for i := range files {
		files[i] = os.NewFile(uintptr(c.fds[i]), "passed")
	}
	c.fds = c.fds[n:]
	return files, nil
}
