package mirror

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

const sweepEvery = 10 * time.Minute

// Run lists every tracked repository once per interval, and removes mirrors
// that nobody wants, until the context ends.
func (s *Store) Run(ctx context.Context) error {
	sweep := s.deps.Now().Add(sweepEvery)
	for {
		now := s.deps.Now()
		if !now.Before(sweep) {
			s.sweep()
			sweep = now.Add(sweepEvery)
		}
		at := s.listDue(ctx, now, sweep)
		timer := time.NewTimer(at.Sub(now))
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// listDue begins the listings that are due, and returns when the next one is,
// at latest limit.
func (s *Store) listDue(ctx context.Context, now, limit time.Time) time.Time {
	next := limit
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || ctx.Err() != nil {
		return next
	}
	for _, m := range s.mirrors {
		m.mu.Lock()
		idle := m.running == nil && m.next == nil
		polled := m.tracked > 0 && s.cfg.Interval > 0 || m.suspect || m.tracked > 0 && m.listed.IsZero()
		switch {
		case !idle || !polled:
		case !m.due.After(now):
			m.next = &round{done: make(chan struct{})}
			m.startLocked()
		case m.due.Before(next):
			next = m.due
		}
		m.mu.Unlock()
	}
	return next
}

// interval is the time to the next listing.
func (s *Store) interval() time.Duration {
	if s.cfg.Interval < 0 {
		return time.Hour
	}
	if s.cfg.Jitter <= 0 {
		return s.cfg.Interval
	}
	return s.cfg.Interval + rand.N(s.cfg.Jitter)
}

func (s *Store) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Refresh lists the repositories of that name ("github.com/o/r") now and waits
// for what it brings. Of names that nobody wants nothing happens.
func (s *Store) Refresh(ctx context.Context, name string) error {
	var errs []error
	done := make(chan error)
	found := s.named(name)
	for _, m := range found {
		go func() { done <- m.refresh(ctx) }()
	}
	for range found {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// Pushed says that the repository at one of the URLs was pushed to, as a
// webhook tells. It is listed soon; nothing is waited for. It reports whether
// somebody wants it.
func (s *Store) Pushed(urls ...string) bool {
	any := false
	for _, url := range urls {
		at, err := credential.Parse(url)
		if err != nil {
			continue
		}
		for _, m := range s.at(at) {
			any = true
			m.mu.Lock()
			m.tried = time.Time{} // a failure of before does not count
			switch {
			case m.next != nil:
			case m.running != nil:
				m.next = &round{done: make(chan struct{})}
			default:
				m.next = &round{done: make(chan struct{})}
				m.startLocked()
			}
			m.mu.Unlock()
		}
	}
	return any
}

// Retry lists the repositories soon that could not be read, as when other
// credentials came.
func (s *Store) Retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.mirrors {
		m.mu.Lock()
		if m.err != nil {
			m.due, m.tried = s.deps.Now(), time.Time{}
		}
		m.mu.Unlock()
	}
	s.poke()
}

// at returns the mirrors of a place, by whatever protocol and port.
func (s *Store) at(where credential.Location) []*mirror {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*mirror
	for _, m := range s.mirrors {
		if !s.closed && strings.EqualFold(host(m.at.Host), host(where.Host)) && strings.EqualFold(strings.TrimLeft(m.at.Path, "/"), strings.TrimLeft(where.Path, "/")) {
			found = append(found, m)
		}
	}
	return found
}

// host is a host without its port.
func host(h string) string {
	if i := strings.LastIndexByte(h, ':'); i > 0 && !strings.HasSuffix(h, "]") {
		return h[:i]
	}
	return h
}

// named returns the mirrors of that name that are not closed.
func (s *Store) named(name string) []*mirror {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*mirror
	for _, m := range s.mirrors {
		if !s.closed && strings.EqualFold(m.name, name) {
			found = append(found, m)
		}
	}
	return found
}

// sweep removes mirrors that nobody tracks or has used for a while, and folders
// of earlier processes that nobody asked for since.
func (s *Store) sweep() {
	now := s.deps.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := map[string]bool{}
	for key, m := range s.mirrors {
		m.mu.Lock()
		unused := m.tracked == 0 && m.running == nil && m.next == nil && now.Sub(m.used) > s.cfg.KeepUnused
		m.mu.Unlock()
		if !unused {
			keep[filepath.Base(m.dir)] = true
			continue
		}
		delete(s.mirrors, key)
		m.repo.Close()
		if err := os.RemoveAll(m.dir); err != nil {
			s.deps.Log.Warn("remove a mirror that nobody uses", "repo", m.name, "error", err)
		}
	}
	if now.Sub(s.started) < s.cfg.KeepUnused {
		return
	}
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || keep[e.Name()] || now.Sub(info.ModTime()) <= s.cfg.KeepUnused {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.cfg.Dir, e.Name())); err != nil {
			s.deps.Log.Warn("remove a mirror of an earlier time", "error", err)
		}
	}
}
