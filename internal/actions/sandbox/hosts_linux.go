package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeFiles writes the files of the inside that tell of names, and returns
// where they go. They live in Root, so that they can change while it runs.
func (s *Session) writeFiles() ([]Bind, error) {
	text := ""
	files := map[string]string{}
	if len(s.spec.Layers) == 0 {
		old, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		text = strings.TrimRight(string(old), "\n") + "\n127.0.0.1 " + s.spec.Hostname + "\n"
	} else {
		text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
		files["hostname"] = s.spec.Hostname + "\n"
		files["resolv.conf"] = "# Names are in /etc/hosts; the rest goes through the proxy.\n"
		if s.spec.Network == HostNetwork {
			if data, err := os.ReadFile("/etc/resolv.conf"); err == nil {
				files["resolv.conf"] = string(data)
			}
		}
	}
	for _, line := range s.spec.Hosts {
		text += line + "\n"
	}
	files["hosts"] = text
	var binds []Bind
	for name, content := range files {
		file := filepath.Join(s.spec.Root, name)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return nil, err
		}
		binds = append(binds, Bind{Source: file, Target: "/etc/" + name})
	}
	return binds, nil
}

// AddHost adds a line to /etc/hosts inside: an address and its names.
func (s *Session) AddHost(line string) error {
	if strings.ContainsAny(line, "\r\n") {
		return fmt.Errorf("host line %q: more than one line", line)
	}
	s.hosts.Lock()
	defer s.hosts.Unlock()
	// In place: the bind shows this very file.
	f, err := os.OpenFile(filepath.Join(s.spec.Root, "hosts"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("add a host name: %w", err)
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}
