package git

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxCachedEntries bounds the parsed trees that a repository keeps; an entry
	// takes about 200 bytes.
	maxCachedEntries = 1 << 16
	treesIdle        = 30 * time.Second
)

// Entries returns what the tree object with the given full id holds, sorted by
// name. The Path of an entry is its Name. The slice is shared: callers must
// not change it. Parsed trees are kept for a short time, so many readers of
// one commit, or of a commit and the next, parse each directory once.
func (r *Repository) Entries(ctx context.Context, treeID string) ([]Entry, error) {
	if entries, ok := r.trees.get(treeID); ok {
		return entries, nil
	}
	o, err := r.Object(ctx, treeID)
	if err != nil {
		return nil, err
	}
	if o.Kind != KindTree {
		return nil, fmt.Errorf("%s is a %s, not a directory: %w", treeID, o.Kind, ErrNotFound)
	}
	entries, err := parseEntries(o.Data, treeID)
	if err != nil {
		return nil, err
	}
	r.trees.put(treeID, entries)
	return entries, nil
}

// Root returns the id of the root tree of what rev names (a commit, tag, or a
// tree itself), or ErrNotFound.
func (r *Repository) Root(ctx context.Context, rev string) (string, error) {
	if err := checkRevision(rev); err != nil {
		return "", err
	}
	id, _, _, err := r.Stat(ctx, rev+"^{tree}")
	return id, err
}

// parseEntries is ParseTree for a tree that is to be kept: three allocations
// for the whole directory, sorted by name instead of git's order.
func parseEntries(data []byte, id string) ([]Entry, error) {
	const idLen = 20
	damaged := fmt.Errorf("tree object %s is damaged", id)
	names := string(data)
	entries := make([]Entry, 0, bytes.Count(data, []byte{0})) // one for each, and few in the ids
	ids := make([]byte, 0, len(data))
	at := 0
	for at < len(data) {
		head := bytes.IndexByte(data[at:], 0)
		if head < 0 || len(data)-at-head-1 < idLen {
			return nil, damaged
		}
		space := strings.IndexByte(names[at:at+head], ' ')
		if space < 0 {
			return nil, damaged
		}
		mode, ok := constantMode(names[at : at+space])
		name := names[at+space+1 : at+head]
		if !ok || name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
			return nil, damaged
		}
		at += head + 1
		ids = hex.AppendEncode(ids, data[at:at+idLen])
		at += idLen
		entries = append(entries, Entry{Name: name, Path: name, Mode: mode, Kind: kindOfMode(mode)})
	}
	all := string(ids)
	for i := range entries {
		entries[i].ID = all[i*2*idLen : (i+1)*2*idLen]
	}
	byName := func(a, b Entry) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(entries, byName) { // git sorts a directory as if it ended with "/"
		slices.SortFunc(entries, byName)
	}
	return entries, nil
}

// constantMode returns a mode as Entry has it, without keeping mode alive.
func constantMode(mode string) (string, bool) {
	switch mode {
	case "100644":
		return "100644", true
	case "40000", "040000":
		return "040000", true
	case "100755":
		return "100755", true
	case "120000":
		return "120000", true
	case "160000":
		return "160000", true
	}
	if len(mode) < 5 || len(mode) > 6 || strings.Trim(mode, "01234567") != "" {
		return "", false
	}
	if len(mode) == 5 {
		mode = "0" + mode
	}
	return strings.Clone(mode), true
}

// trees keeps parsed trees. When it is full it starts anew; when it was not
// used for treesIdle it is emptied. The zero value is ready.
type trees struct {
	mu      sync.Mutex
	byID    map[string][]Entry
	entries int
	expire  *time.Timer
	used    time.Time
}

func (t *trees) get(id string) ([]Entry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries, ok := t.byID[id]
	t.used = time.Now()
	return entries, ok
}

func (t *trees) put(id string, entries []Entry) {
	if len(entries) > maxCachedEntries {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID == nil || t.entries+len(entries)+1 > maxCachedEntries {
		t.byID, t.entries = map[string][]Entry{}, 0
	}
	if _, ok := t.byID[id]; ok {
		return
	}
	t.byID[strings.Clone(id)] = entries
	t.entries += len(entries) + 1
	t.used = time.Now()
	if t.expire == nil {
		t.expire = time.AfterFunc(treesIdle, t.age)
	}
}

func (t *trees) age() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.expire == nil {
		return
	}
	if left := treesIdle - time.Since(t.used); left > 0 {
		t.expire.Reset(left)
		return
	}
	t.byID, t.entries, t.expire = nil, 0, nil
}

func (t *trees) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.expire != nil {
		t.expire.Stop()
	}
	t.byID, t.entries, t.expire = nil, 0, nil
}
