package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

const (
	wantsLast  = time.Hour // a revision that was asked for once is kept up to date so long
	firstRetry = 5 * time.Second
)

// mirror is one repository.
type mirror struct {
	store   *Store
	repo    *git.Repository
	dir     string
	name    string // host/path
	address string // URL without secrets
	at      credential.Location

	mu          sync.Mutex
	project     string // on whose behalf it was asked for last
	url         string // as it was asked for last
	fingerprint string // of the credentials
	wants       map[source.Revision]*want
	tracked     int // readers
	used        time.Time
	due         time.Time // of the next listing, when somebody tracks it

	running, next *round
	listed        time.Time // last success
	tried         time.Time // end of the last round
	err           error     // of the last round
	failures      int       // in a row
	suspect       bool
	verified      bool // what is on disk was looked at by this process
	rebuilt       time.Time
}

// want is a revision of a mirror that somebody needs.
type want struct {
	mirror   *mirror
	revision source.Revision
	tracked  int
	used     time.Time
	covered  bool  // a round succeeded since it is wanted
	err      error // why it alone cannot be had
}

// round is one listing and fetch, for all who wait for it.
type round struct {
	done chan struct{}
	err  error
}

// want registers a revision; it stays so for a while after the last call.
func (m *mirror) want(rev source.Revision) *want {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wantLocked(rev)
}

func (m *mirror) wantLocked(rev source.Revision) *want {
	if rev.IsHead() {
		rev = source.Revision{}
	}
	w, ok := m.wants[rev]
	if !ok {
		w = &want{mirror: m, revision: rev}
		m.wants[rev] = w
	}
	w.used = m.store.deps.Now()
	return w
}

// has reports whether the mirror can answer without the server.
func (m *mirror) has(ctx context.Context, w *want) bool {
	if w.revision.IsSHA() {
		m.mu.Lock()
		suspect := m.suspect
		m.mu.Unlock()
		if suspect {
			return false
		}
		_, err := m.repo.Root(ctx, w.revision.Target)
		return err == nil
	}
	age := m.store.cfg.Interval
	if age < 0 {
		age = 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return w.covered && m.err == nil && w.err == nil && !m.suspect && m.store.deps.Now().Sub(m.listed) <= age+m.store.cfg.Jitter+m.store.cfg.ListTimeout
}

// recent returns the error of a round that ended just now: a server that is
// down is not asked again for each reader.
func (m *mirror) recent() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil && m.running == nil && m.store.deps.Now().Sub(m.tried) < m.backOff()/2 {
		return m.err
	}
	return nil
}

// backOff is the time from a failure to the next try.
func (m *mirror) backOff() time.Duration {
	wait := firstRetry << min(max(m.failures-1, 0), 10)
	if most := m.store.cfg.Interval; most > 0 && wait > most {
		wait = most
	}
	return wait
}

func (m *mirror) failed(w *want) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return w.err
}

// refresh waits for a round that begins after the call.
func (m *mirror) refresh(ctx context.Context) error {
	m.mu.Lock()
	r := m.next
	if r == nil {
		r = &round{done: make(chan struct{})}
		m.next = r
		if m.running == nil {
			m.startLocked()
		}
	}
	m.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", m.name, ctx.Err())
	}
}

// startLocked begins the round that was asked for.
func (m *mirror) startLocked() {
	r := m.next
	m.running, m.next = r, nil
	m.store.rounds.Go(func() {
		moves, err := m.sync(m.store.ctx)
		m.end(r, moves, err)
	})
}

// end tells of the round, and begins the next one when somebody waits for it.
func (m *mirror) end(r *round, moves []Move, err error) {
	now := m.store.deps.Now()
	m.mu.Lock()
	before := m.err
	m.err, m.tried = err, now
	if err != nil {
		m.failures++
		m.due = now.Add(m.backOff())
	} else {
		m.failures, m.listed = 0, now
		m.due = now.Add(m.store.interval())
	}
	for rev, w := range m.wants {
		if w.tracked == 0 && now.Sub(w.used) > wantsLast {
			delete(m.wants, rev)
		}
	}
	r.err = err
	m.mu.Unlock()
	for _, move := range moves {
		m.store.deps.Moved(move)
	}
	if (before == nil) != (err == nil) && !errors.Is(err, context.Canceled) {
		m.store.deps.Health(m.name, err)
	}
	m.mu.Lock()
	m.running = nil
	if m.next != nil { // only now, so that moves are told in their order
		m.startLocked()
	}
	m.mu.Unlock()
	close(r.done) // those who wait find everything told
	m.store.poke()
}

// Want is a revision of a repository that a reader follows.
type Want struct {
	Project, RepoURL string
	Revision         source.Revision
}

// Track replaces what reader follows; nothing ends it. Followed repositories
// are listed by Run, and kept. URLs that are wrong are left out: Commit says why.
func (s *Store) Track(reader string, wants ...Want) {
	var now []*want
	for _, t := range wants {
		m, err := s.mirror(t.Project, t.RepoURL)
		if err != nil {
			continue
		}
		m.mu.Lock()
		w := m.wantLocked(t.Revision)
		w.tracked++
		m.tracked++
		if m.tracked == 1 && m.due.IsZero() {
			m.due = s.deps.Now()
		}
		m.mu.Unlock()
		now = append(now, w)
	}
	s.mu.Lock()
	before := s.readers[reader]
	if len(now) == 0 {
		delete(s.readers, reader)
	} else {
		s.readers[strings.Clone(reader)] = now
	}
	s.mu.Unlock()
	for _, w := range before {
		w.mirror.mu.Lock()
		w.tracked--
		w.mirror.tracked--
		w.used = s.deps.Now()
		w.mirror.mu.Unlock()
	}
	s.poke()
}
