package git

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// maxDepth bounds the directories in one another that a comparison enters.
const maxDepth = 1024

// Changed returns the paths that differ between two commits, sorted. A from of
// ZeroID or "" means everything in to. Only directories that differ are read.
func (r *Repository) Changed(ctx context.Context, from, to string) ([]string, error) {
	newRoot, err := r.Root(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("revision %q: %w", to, err)
	}
	oldRoot := ""
	if from != "" && from != ZeroID {
		if oldRoot, err = r.Root(ctx, from); err != nil {
			return nil, fmt.Errorf("revision %q: %w", from, err)
		}
	}
	d := difference{repo: r, ctx: ctx}
	if err := d.trees("", oldRoot, newRoot, 0); err != nil {
		return nil, err
	}
	slices.Sort(d.paths)
	return slices.Compact(d.paths), nil
}

// difference is one comparison of two trees.
type difference struct {
	repo  *Repository
	ctx   context.Context
	paths []string
}

// trees compares two directories by their ids, "" for none.
func (d *difference) trees(prefix, from, to string, depth int) error {
	if from == to {
		return nil
	}
	if depth > maxDepth {
		return fmt.Errorf("compare trees: %q is too deep", prefix)
	}
	before, err := d.read(from)
	if err != nil {
		return err
	}
	after, err := d.read(to)
	if err != nil {
		return err
	}
	for len(before) > 0 || len(after) > 0 {
		var a, b *Entry
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].Name < after[0].Name:
			a, before = &before[0], before[1:]
		case len(before) == 0 || after[0].Name < before[0].Name:
			b, after = &after[0], after[1:]
		default:
			a, b, before, after = &before[0], &after[0], before[1:], after[1:]
		}
		if err := d.entries(prefix, a, b, depth); err != nil {
			return err
		}
	}
	return nil
}

func (d *difference) read(id string) ([]Entry, error) {
	if id == "" {
		return nil, nil
	}
	return d.repo.Entries(d.ctx, id)
}

// entries compares what one name is in both; nil means that it is not there.
func (d *difference) entries(prefix string, a, b *Entry, depth int) error {
	if a != nil && b != nil && a.ID == b.ID && a.Mode == b.Mode {
		return nil
	}
	name, from, to, file := "", "", "", false
	for _, side := range []struct {
		e  *Entry
		id *string
	}{{a, &from}, {b, &to}} {
		if side.e == nil {
			continue
		}
		name = side.e.Name
		if side.e.Kind == KindTree {
			*side.id = side.e.ID
		} else {
			file = true
		}
	}
	if file {
		d.paths = append(d.paths, prefix+name)
	}
	if from == "" && to == "" {
		return nil
	}
	return d.trees(strings.Join([]string{prefix, name, "/"}, ""), from, to, depth+1)
}
