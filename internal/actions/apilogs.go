package actions

import (
	"archive/zip"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf16"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
)

// redirected sends a client to the same place with ?download=1, for GitHub's
// clients expect a redirect to where the content is.
func (a *Actions) redirected(c *call) bool {
	if c.URL.Query().Get("download") != "" {
		return false
	}
	http.Redirect(c.w, c.Request, a.cfg.APIURL+c.URL.EscapedPath()+"?download=1", http.StatusFound)
	return true
}

// apiJobLogs is the logs of all steps of a job, one after the other.
func (a *Actions) apiJobLogs(c *call) (any, error) {
	r, j, err := a.theJob(c)
	if err != nil || a.redirected(c) {
		return nil, err
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return nil, a.copyLogs(c.Context(), c.w, r, j, func(Step) bool { return true }, false)
}

// copyLogs writes the logs of the wanted steps, in order.
func (a *Actions) copyLogs(ctx context.Context, w io.Writer, r Run, j Job, want func(Step) bool, follow bool) error {
	for _, s := range j.Steps {
		if !want(s) {
			continue
		}
		log, err := a.Logs(ctx, r.ID, j.ID, s.Number, follow)
		if errors.Is(err, ErrNotFound) {
			continue // skipped steps have none
		}
		if err != nil {
			return err
		}
		_, err = bufio.NewReader(log).WriteTo(w)
		if err = errors.Join(err, log.Close()); err != nil {
			return err
		}
	}
	return nil
}

// apiRunLogs is an archive of the logs of an attempt: one file per job, and one
// per step in a folder with the name of its job.
func (a *Actions) apiRunLogs(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	if r.Status != store.Completed {
		return nil, refuse(http.StatusNotFound, "Not Found: run %d has not ended; its jobs have logs already", r.ID)
	}
	if a.redirected(c) {
		return nil, nil
	}
	c.w.Header().Set("Content-Type", "application/zip")
	c.w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=logs_%d.zip", r.ID))
	z := zip.NewWriter(c.w)
	for i, j := range r.Jobs {
		if len(j.Steps) == 0 {
			continue
		}
		name := logName(j.Name)
		if err := a.zipLogs(c.Context(), z, fmt.Sprintf("%d_%s.txt", i, name), r, j, func(Step) bool { return true }); err != nil {
			return nil, err
		}
		for _, s := range j.Steps {
			file := fmt.Sprintf("%s/%d_%s.txt", name, s.Number, logName(s.Name))
			if err := a.zipLogs(c.Context(), z, file, r, j, func(other Step) bool { return other.Number == s.Number }); err != nil {
				return nil, err
			}
		}
	}
	return nil, z.Close()
}

func (a *Actions) zipLogs(ctx context.Context, z *zip.Writer, name string, r Run, j Job, want func(Step) bool) error {
	w, err := z.Create(name)
	if err != nil {
		return err
	}
	return a.copyLogs(ctx, w, r, j, want, false)
}

// logName is a name of a job or step as GitHub puts it into the archive: without
// slashes and colons, at most 90 UTF-16 units.
func logName(name string) string {
	name = strings.NewReplacer("/", "", ":", "", "\\", "").Replace(name)
	if units := utf16.Encode([]rune(name)); len(units) > 90 {
		name = string(utf16.Decode(units[:90]))
	}
	return strings.TrimSpace(name)
}

func (a *Actions) apiDeleteLogs(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	if r.Status != store.Completed {
		return nil, fmt.Errorf("run %d is still going on: %w", r.ID, errConflict)
	}
	return done(http.StatusNoContent), a.logs.Remove(r.ID)
}
