package remote

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/chart"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/mirror"
)

const maxSeen = 20_000

// followed is a chart or artifact that somebody tracks.
type followed struct {
	readers int
	due     time.Time
	err     error
}

// Track replaces the sources that reader follows; none ends it. Moved is told
// when one of them means another revision. Sources of the local forge need no
// looking after: their pushes are known.
func (s *Service) Track(ctx context.Context, reader, project string, sources ...v1alpha1.ApplicationSource) {
	var wants []mirror.Want
	var refs []chart.Ref
	for _, src := range sources {
		if KindOf(src) != Git {
			if ref := refOf(project, src); moves(ref) {
				refs = append(refs, ref)
			}
			continue
		}
		if _, ok := s.local(ctx, src.RepoURL); !ok {
			wants = append(wants, mirror.Want{Project: project, RepoURL: src.RepoURL, Revision: source.Revision{Target: src.TargetRevision, TagPrefix: src.TagPrefix}})
		}
	}
	s.mirrors.Track(reader, wants...)
	s.trackCharts(reader, refs)
}

// moves reports whether a chart or artifact can mean another revision later. A
// version of a chart and a digest cannot.
func moves(r chart.Ref) bool {
	if r.Chart == "" {
		return !strings.HasPrefix(r.Constraint, "sha256:")
	}
	_, err := semver.StrictNewVersion(strings.TrimPrefix(r.Constraint, "v"))
	return err != nil
}

func (s *Service) trackCharts(reader string, refs []chart.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.readers[reader]
	delete(s.readers, reader)
	for _, ref := range refs {
		f := s.follows[ref]
		if f == nil {
			f = &followed{due: s.deps.Now().Add(s.interval())}
			s.follows[ref] = f
			select {
			case s.changed <- struct{}{}:
			default:
			}
		}
		f.readers++
	}
	if len(refs) > 0 {
		s.readers[strings.Clone(reader)] = refs
	}
	for _, ref := range before {
		if f := s.follows[ref]; f != nil {
			if f.readers--; f.readers <= 0 {
				delete(s.follows, ref)
			}
		}
	}
}

// saw notes the revision that a reader was told.
func (s *Service) saw(ref chart.Ref, revision string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) >= maxSeen {
		clear(s.seen)
	}
	s.seen[ref] = revision
}

func (s *Service) interval() time.Duration {
	if s.cfg.Jitter <= 0 {
		return max(s.cfg.Interval, time.Millisecond)
	}
	return s.cfg.Interval + rand.N(s.cfg.Jitter)
}

// followCharts looks at tracked charts and artifacts when they are due.
func (s *Service) followCharts(ctx context.Context) {
	if s.cfg.Interval < 0 {
		<-ctx.Done()
		return
	}
	for {
		due, next := s.dueCharts()
		s.lookAt(ctx, due)
		if len(due) > 0 {
			continue
		}
		timer := time.NewTimer(next.Sub(s.deps.Now()))
		select {
		case <-timer.C:
		case <-s.changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// dueCharts returns the refs to look at, and the time of the next ones.
func (s *Service) dueCharts() ([]chart.Ref, time.Time) {
	now := s.deps.Now()
	next := now.Add(time.Hour)
	var due []chart.Ref
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, f := range s.follows {
		if f.due.After(now) {
			if f.due.Before(next) {
				next = f.due
			}
			continue
		}
		f.due = now.Add(s.interval())
		due = append(due, ref)
	}
	return due, next
}

// lookAt resolves refs again. Those of one index or list of tags ask the server
// once.
func (s *Service) lookAt(ctx context.Context, refs []chart.Ref) {
	asked := map[chart.Ref]bool{}
	for _, ref := range refs {
		if ctx.Err() != nil {
			return
		}
		group := chart.Ref{Project: ref.Project, RepoURL: ref.RepoURL}
		if ref.OCI() {
			group.Chart = ref.Chart
		}
		again := ref
		again.Again = !asked[group]
		asked[group] = true
		v, err := s.charts.Resolve(ctx, again)
		if ctx.Err() != nil {
			return
		}
		s.told(ref, ref.Revision(v), err)
	}
}

// told passes on what became of a ref.
func (s *Service) told(ref chart.Ref, revision string, err error) {
	s.mu.Lock()
	f := s.follows[ref]
	if f == nil {
		s.mu.Unlock()
		return
	}
	ill, was := f.err != nil, s.seen[ref]
	f.err = err
	s.mu.Unlock()
	if ill != (err != nil) {
		s.deps.Health(ref.Name(), err)
	}
	if err == nil && was != revision {
		s.saw(ref, revision)
		s.deps.Moved(Move{Repo: ref.Name(), Ref: ref.Constraint, Before: was, After: revision})
	}
}
