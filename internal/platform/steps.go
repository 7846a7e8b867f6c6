package platform

import (
	"slices"
	"sync"
	"time"
)

// Step is one part of starting a platform.
type Step struct {
	Name    string    // "node Ready"
	Started time.Time // when its work began
	Ended   time.Time // zero while it runs
	Note    string    // what it waits for, or a remark on how it ended
	Err     string    // why it failed
}

// steps records the start of a platform for whoever watches it.
type steps struct {
	mu   sync.Mutex
	list []Step
	now  func() time.Time
}

// begin opens a step and returns how to end it.
func (s *steps) begin(name string) func(note string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := len(s.list)
	s.list = append(s.list, Step{Name: name, Started: s.now()})
	return func(note string, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.list[i].Ended, s.list[i].Note = s.now(), note
		if err != nil {
			s.list[i].Err = err.Error()
		}
	}
}

// note says what the open step of that name waits for.
func (s *steps) note(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.list {
		if s.list[i].Name == name && s.list[i].Ended.IsZero() {
			s.list[i].Note = text
		}
	}
}

// snapshot returns the steps so far, in the order in which they began.
func (s *steps) snapshot() []Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}
