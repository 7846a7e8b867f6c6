// Package output is how commands speak: data on standard output as a table,
// JSON, YAML or names; progress and errors on standard error; an exit code
// that scripts can rely on.
//
// Input: values and [Streams]. Output: text. Invariants: nothing but data goes
// to standard output; no colour goes to what is not a terminal; what came from
// elsewhere cannot steer the terminal. Start reading at [Streams] and [Error].
package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// Streams are a command's input and outputs.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Which of them are terminals.
	InTTY, OutTTY, ErrTTY bool
	// Width is the terminal's, 0 when the output is none.
	Width int
	// ReadSecret reads a line from the terminal without showing it. Nil when
	// the input is none.
	ReadSecret func() ([]byte, error)
}

// System returns the streams of this process.
func System() Streams {
	s := Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		InTTY: term.IsTerminal(int(os.Stdin.Fd())), OutTTY: term.IsTerminal(int(os.Stdout.Fd())), ErrTTY: term.IsTerminal(int(os.Stderr.Fd()))}
	if s.OutTTY {
		if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
			s.Width = width
		}
	}
	if s.InTTY {
		s.ReadSecret = func() ([]byte, error) { return term.ReadPassword(int(os.Stdin.Fd())) }
	}
	return s
}

// Format is a value of --output. It implements pflag.Value.
type Format string

// The formats.
const (
	FormatTable Format = "table"
	FormatJSON  Format = "json"
	FormatYAML  Format = "yaml"
	FormatName  Format = "name"
)

// Formats are all formats, the default first.
var Formats = []string{string(FormatTable), string(FormatJSON), string(FormatYAML), string(FormatName)}

func (f *Format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *Format) Type() string { return strings.Join(Formats, "|") }

// Set implements pflag.Value.
func (f *Format) Set(s string) error {
	if !slices.Contains(Formats, s) {
		return fmt.Errorf("use one of %s", strings.Join(Formats, ", "))
	}
	*f = Format(s)
	return nil
}

// Write writes a value in a format: JSON and YAML have all of it, names one
// line each, and table is for people.
func Write(w io.Writer, f Format, value any, names []string, table func(io.Writer) error) error {
	switch f {
	case FormatJSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(value)
	case FormatYAML:
		body, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = w.Write(body)
		return err
	case FormatName:
		var b strings.Builder
		for _, n := range names {
			b.WriteString(Clean(n) + "\n")
		}
		_, err := io.WriteString(w, b.String())
		return err
	}
	var b bytes.Buffer
	if err := table(&b); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Clean takes line breaks and what could steer a terminal out of text.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
}
