package logs

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// JobLog names the logs of one job, in the order of its steps.
type JobLog struct {
	Run     int64
	Attempt int
	Job     int64
	Name    string
	Steps   []StepLog
}

// StepLog names the log of one step.
type StepLog struct {
	Number int
	Name   string
}

// byteOrderMark begins each log that GitHub serves.
const byteOrderMark = "\ufeff"

// WriteJob writes the log of a whole job as GitHub serves it: the lines of its
// steps, one after the other, each with its time. Steps without a log are left
// out; a log that is being written is taken up to now.
func (s *Store) WriteJob(ctx context.Context, w io.Writer, j JobLog) error {
	if _, err := io.WriteString(w, byteOrderMark); err != nil {
		return err
	}
	for _, step := range j.Steps {
		if err := s.copy(ctx, w, j, step); err != nil {
			return fmt.Errorf("log of job %q: %w", j.Name, err)
		}
	}
	return nil
}

func (s *Store) copy(ctx context.Context, w io.Writer, j JobLog, step StepLog) error {
	r, err := s.Open(ctx, Key{j.Run, j.Attempt, j.Job, step.Number}, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(w, stopping{ctx, r})
	return errors.Join(err, r.Close())
}

// stopping ends a copy with its context.
type stopping struct {
	ctx context.Context
	io.Reader
}

func (r stopping) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// WriteRun writes the archive that GitHub serves for a run: a file per job, and
// a folder per job with a file per step.
func (s *Store) WriteRun(ctx context.Context, w io.Writer, jobs []JobLog) error {
	z := zip.NewWriter(w)
	for i, j := range jobs {
		f, err := z.Create(fmt.Sprintf("%d_%s.txt", i, fileName(j.Name)))
		if err != nil {
			return fmt.Errorf("archive of logs: %w", err)
		}
		if err := s.WriteJob(ctx, f, j); err != nil {
			return fmt.Errorf("archive of logs: %w", err)
		}
		for _, step := range j.Steps {
			f, err := z.Create(fmt.Sprintf("%s/%d_%s.txt", fileName(j.Name), step.Number, fileName(step.Name)))
			if err != nil {
				return fmt.Errorf("archive of logs: %w", err)
			}
			one := j
			one.Steps = []StepLog{step}
			if err := s.WriteJob(ctx, f, one); err != nil {
				return fmt.Errorf("archive of logs: %w", err)
			}
		}
	}
	return z.Close()
}

// fileName leaves out what file systems do not take, as GitHub does.
func fileName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune(`"<>|:*?\/`, r) {
			return -1
		}
		return r
	}, name)
	if name = strings.Trim(name, ". "); name == "" {
		return "unnamed"
	}
	if runes := []rune(name); len(runes) > 90 {
		name = string(runes[:90])
	}
	return name
}
