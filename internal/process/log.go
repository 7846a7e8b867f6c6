package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	maxLog   = 10 << 20 // bytes after which a log is rotated
	tailRead = 8 << 10  // bytes of a log that are read for the reason of an end
)

// openLog opens the log for appending and rotates a full one first.
// An empty path gives nil, nil.
func openLog(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		_ = os.Rename(path+".1", path+".2")
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("rotate log: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// rotateOpenLog rotates a log that the child holds open: it copies and
// truncates, which is safe because the child writes in append mode. Lines that
// are written between the two steps are lost; a rotation that fails is tried
// again at the next tick.
func rotateOpenLog(path string) {
	if path == "" {
		return
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() <= maxLog {
		return
	}
	_ = os.Rename(path+".1", path+".2")
	if err := copyFile(path, path+".1"); err == nil {
		_ = os.Truncate(path, 0)
	}
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, io.LimitReader(src, 4*maxLog))
	return errors.Join(err, dst.Close())
}

// logTail returns the last n non-empty lines that were written to the log
// after byte offset from, or "" when there are none.
func logTail(path string, from int64, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	if info.Size() < from { // rotated meanwhile
		from = 0
	}
	from = max(from, info.Size()-tailRead)
	body, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, from, info.Size()-from), tailRead))
	if err != nil {
		return ""
	}
	var lines []string
	for line := range strings.Lines(string(body)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// logSize returns the size of the log in bytes, 0 when there is none.
func logSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
