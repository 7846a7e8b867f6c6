package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// message is one line on the control socket, either way.
type message struct {
	// From the supervisor.
	Spec *Spec    `json:"spec,omitempty"`
	Exec *request `json:"exec,omitempty"` // one file descriptor travels ahead: the output
	Kill *signal  `json:"kill,omitempty"`
	// From init.
	Ready *ready  `json:"ready,omitempty"`
	Exit  *result `json:"exit,omitempty"`
	Error string  `json:"error,omitempty"` // set-up failed
}

type request struct {
	ID   int      `json:"id"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
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

// send writes one message; file, when not nil, is passed along.
func (c *channel) send(m message, file *os.File) error {
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode sandbox message: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if file != nil {
		// An empty line carries the descriptor, so that the message itself
		// may be written in pieces.
		if _, _, err := c.conn.WriteMsgUnix([]byte("\n"), syscall.UnixRights(int(file.Fd())), nil); err != nil {
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
	data, oob := make([]byte, 64<<10), make([]byte, 256)
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

// takeFile returns the oldest descriptor that came in.
func (c *channel) takeFile() (*os.File, error) {
	if len(c.fds) == 0 {
		return nil, fmt.Errorf("no output descriptor came with the request")
	}
	f := os.NewFile(uintptr(c.fds[0]), "output")
	c.fds = c.fds[1:]
	return f, nil
}
