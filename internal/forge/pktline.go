package forge

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// Limits of what is read of a push before the pack (gitprotocol-pack).
const (
	maxPktLine      = 65520
	maxRefCommands  = 10_000
	maxCommandBytes = 4 << 20
	maxRefName      = 1024
)

// refCommand asks for one ref to be moved. ZeroID stands for "no such ref".
type refCommand struct {
	Ref, Old, New string
}

// refCommands is the part of a push before the pack.
type refCommands struct {
	Commands     []refCommand
	Capabilities []string
	Options      []string // git push -o
	Raw          []byte   // as it came, the last flush packet included
}

func (c refCommands) can(capability string) bool {
	return slices.Contains(c.Capabilities, capability)
}

// readPkt reads one pkt-line. A flush packet gives flush.
func readPkt(r io.Reader, raw *bytes.Buffer) (line []byte, flush bool, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, false, fmt.Errorf("read length of a packet: %w", err)
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	if err != nil {
		return nil, false, fmt.Errorf("%q is no length of a packet", head)
	}
	raw.Write(head[:])
	if n == 0 {
		return nil, true, nil
	}
	if n < 4 || n > maxPktLine {
		return nil, false, fmt.Errorf("a packet can't have %d bytes", n)
	}
	start := raw.Len()
	if _, err := io.CopyN(raw, r, int64(n-4)); err != nil {
		return nil, false, fmt.Errorf("read packet of %d bytes: %w", n, io.ErrUnexpectedEOF)
	}
	return raw.Bytes()[start:], false, nil
}

var objectID = regexp.MustCompile(`^[0-9a-f]{40}$`)

// readRefCommands reads the ref commands up to and with their flush packet, and
// leaves the pack in r.
func readRefCommands(r *bufio.Reader) (refCommands, error) {
	var list refCommands
	var raw bytes.Buffer
	named := map[string]bool{}
	for first := true; ; first = false {
		line, flush, err := readPkt(r, &raw)
		if err != nil {
			return refCommands{}, err
		}
		if flush {
			if list.can("push-options") && len(list.Commands) > 0 {
				if list.Options, err = readPushOptions(r, &raw); err != nil {
					return refCommands{}, err
				}
			}
			list.Raw = raw.Bytes()
			return list, nil
		}
		if raw.Len() > maxCommandBytes || len(list.Commands) >= maxRefCommands {
			return refCommands{}, fmt.Errorf("too many refs in one push: at most %d", maxRefCommands)
		}
		text, caps, _ := strings.Cut(string(line), "\x00")
		if first || len(list.Commands) == 0 && caps != "" {
			list.Capabilities = strings.Fields(caps)
		}
		text = strings.TrimSuffix(text, "\n")
		if id, ok := strings.CutPrefix(text, "shallow "); ok && objectID.MatchString(id) {
			continue
		}
		if text == "push-cert" {
			return refCommands{}, errors.New("signed pushes (git push --signed) aren't supported: push without --signed")
		}
		c, err := parseRefCommand(text)
		if err != nil {
			return refCommands{}, err
		}
		if named[c.Ref] {
			return refCommands{}, fmt.Errorf("%s is named twice in one push", c.Ref)
		}
		named[c.Ref] = true
		list.Commands = append(list.Commands, c)
	}
}

// maxPushOptions bounds how often a push may say -o.
const maxPushOptions = 100

// readPushOptions reads the options up to and with their flush packet.
func readPushOptions(r *bufio.Reader, raw *bytes.Buffer) ([]string, error) {
	var options []string
	for {
		line, flush, err := readPkt(r, raw)
		if err != nil || flush {
			return options, err
		}
		if len(options) == maxPushOptions || raw.Len() > maxCommandBytes {
			return nil, fmt.Errorf("too many push options: at most %d", maxPushOptions)
		}
		options = append(options, strings.TrimSuffix(string(line), "\n"))
	}
}

// parseRefCommand decodes "old new ref".
func parseRefCommand(text string) (refCommand, error) {
	f := strings.SplitN(text, " ", 3)
	if len(f) != 3 || !objectID.MatchString(f[0]) || !objectID.MatchString(f[1]) {
		return refCommand{}, fmt.Errorf("%.100q is no ref command", text)
	}
	ref := f[2]
	if !strings.HasPrefix(ref, "refs/") || len(ref) > maxRefName ||
		strings.ContainsFunc(ref, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return refCommand{}, fmt.Errorf("%.100q is no ref name", ref)
	}
	if f[0] == git.ZeroID && f[1] == git.ZeroID {
		return refCommand{}, fmt.Errorf("command for %s neither makes nor removes it", ref)
	}
	return refCommand{Ref: ref, Old: f[0], New: f[1]}, nil
}

// writePkt writes one pkt-line; data must fit.
func writePkt(w io.Writer, data string) {
	_, _ = fmt.Fprintf(w, "%04x%s", len(data)+4, data)
}

// progress is text for the pusher's terminal, where git puts "remote: " before
// each line. It is empty when the client can't show it.
func (c refCommands) progress(text string) []byte {
	var out bytes.Buffer
	if c.can("side-band-64k") {
		for line := range strings.Lines(text) {
			writePkt(&out, "\x02"+strings.TrimSuffix(line, "\n")+"\n")
		}
	}
	return out.Bytes()
}

// refusal is the answer to a push of which nothing is taken, in the form that the
// client asked for.
func (c refCommands) refusal(reason string) []byte {
	var report bytes.Buffer
	if c.can("report-status") || c.can("report-status-v2") {
		writePkt(&report, "unpack "+reason+"\n")
		for _, cmd := range c.Commands {
			writePkt(&report, "ng "+cmd.Ref+" "+reason+"\n")
		}
		report.WriteString("0000")
	}
	if !c.can("side-band-64k") {
		return report.Bytes()
	}
	out := bytes.NewBuffer(c.progress("error: " + reason))
	for part := range slices.Chunk(report.Bytes(), maxPktLine-5) {
		writePkt(out, "\x01"+string(part))
	}
	out.WriteString("0000")
	return out.Bytes()
}
