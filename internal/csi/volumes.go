package csi

import (
	"hash/fnv"
	"sync"
	"time"
)

// maxVolumes bounds the memory of volumes that never got mounted; a node has
// far fewer that did.
const maxVolumes = 4096

// volumes is what the driver remembers of targets. All of it may be lost.
type volumes struct {
	mu sync.Mutex
	by map[string]*volumeState // by target path
}

// volumeState belongs to whoever made it busy.
type volumeState struct {
	busy     bool
	checked  time.Time         // when its content was last known to be current
	versions map[string]string // of the objects mounted, by id
	failure  string            // the last failure that was reported
}

// acquire takes the target for one call. ok is false when another has it.
func (v *volumes) acquire(target string) (s *volumeState, release func(), ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.by == nil {
		v.by = map[string]*volumeState{}
	}
	s = v.by[target]
	if s == nil {
		v.makeRoom()
		s = &volumeState{}
		v.by[target] = s
	}
	if s.busy {
		return nil, nil, false
	}
	s.busy = true
	return s, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		s.busy = false
	}, true
}

// forget drops what is known of a target that its caller has acquired.
func (v *volumes) forget(target string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.by, target)
}

// makeRoom forgets volumes that are not mounted, if there are too many.
func (v *volumes) makeRoom() {
	if len(v.by) < maxVolumes {
		return
	}
	for target, s := range v.by {
		if !s.busy && s.checked.IsZero() {
			delete(v.by, target)
		}
	}
}

// due says when the target is to be read anew: after the interval and up to a
// tenth of it, different for each target, so that pods of one deployment do
// not ask the vault at once.
func (s *volumeState) due(target string, interval time.Duration) time.Time {
	h := fnv.New32a()
	_, _ = h.Write([]byte(target)) // never fails
	return s.checked.Add(interval + interval/10*time.Duration(h.Sum32()%1000)/1000)
}
