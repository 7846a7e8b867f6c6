package container

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
)

// maxLog bounds the log of one container, in bytes; the rest is dropped.
const maxLog = 64 << 20

// logFile is what a container wrote.
type logFile struct {
	mu      sync.Mutex
	file    *os.File
	size    int64
	full    bool
	done    bool
	changed chan struct{} // closed and made anew at each write
}

func openLog(path string) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &logFile{file: f, changed: make(chan struct{})}, nil
}

// Write never fails the container: what does not fit is dropped.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full || l.done {
		return len(p), nil
	}
	text := p
	if l.size+int64(len(p)) > maxLog {
		l.full = true
		text = []byte("\n[the log of this container is full; the rest is dropped]\n")
	}
	n, err := l.file.WriteAt(text, l.size)
	l.size += int64(n)
	l.full = l.full || err != nil
	close(l.changed)
	l.changed = make(chan struct{})
	return len(p), nil
}

// finish says that nothing more comes.
func (l *logFile) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.done {
		l.done = true
		close(l.changed)
	}
}

func (l *logFile) close() {
	l.finish()
	_ = l.file.Close()
}

// copy writes the log to w; with follow, until it is finished.
func (l *logFile) copy(ctx context.Context, w io.Writer, follow bool) error {
	for offset := int64(0); ; {
		l.mu.Lock()
		size, done, changed := l.size, l.done, l.changed
		l.mu.Unlock()
		n, err := io.Copy(w, io.NewSectionReader(l.file, offset, size-offset))
		if err != nil && !errors.Is(err, os.ErrClosed) {
			return err
		}
		offset += n
		if !follow || done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
