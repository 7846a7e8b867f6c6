package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// marker is the name of the extension by which our entries in a user's
// kubeconfig are told from other people's.
const marker = "lockstep"

// MergeContext adds the platform's cluster, user and context to the
// kubeconfig file at path, named "lockstep" (or "lockstep-<name>" when the
// platform's name is not "lockstep"), and makes it the current context. Other
// entries, also ones it does not know, stay as they are. An entry of the same
// name that is not ours is an error. It returns the context's name.
func MergeContext(ctx context.Context, cfg Config, path string) (string, error) {
	cfg = cfg.withDefaults()
	name := cfg.contextName()
	body, err := os.ReadFile(cfg.adminKubeconfig())
	if err != nil {
		return "", fmt.Errorf("merge context %s: %w", name, err)
	}
	var admin kubeconfigFile
	if err := yaml.Unmarshal(body, &admin); err != nil {
		return "", fmt.Errorf("merge context %s: %w", name, err)
	}
	err = editKubeconfig(ctx, path, func(file kubeconfigFile) error {
		previous, _ := file["current-context"].(string)
		if old := file.find("contexts", name); old != nil {
			kept, ours := markerOf(old)
			if !ours {
				return fmt.Errorf("it has a context %q that Lockstep did not write; rename it: kubectl config rename-context %s my-%s", name, name, name)
			}
			if previous == name {
				previous = kept
			}
		} else if file.find("clusters", name) != nil || file.find("users", name) != nil {
			return fmt.Errorf("it has a cluster or user %q that Lockstep did not write; rename it", name)
		}
		file.put("clusters", name, "cluster", admin.first("clusters", "cluster"))
		file.put("users", name, "user", admin.first("users", "user"))
		file.put("contexts", name, "context", map[string]any{
			"cluster": name, "user": name,
			"extensions": []any{map[string]any{"name": marker, "extension": map[string]any{"previousContext": previous}}},
		})
		file["current-context"] = name
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("merge context %s into %s: %w", name, path, err)
	}
	return name, nil
}

// RemoveContext undoes MergeContext. The context that was current before
// becomes current again, if ours still is and the other still exists. A file
// without our context is left alone.
func RemoveContext(ctx context.Context, cfg Config, path string) error {
	name := cfg.withDefaults().contextName()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := editKubeconfig(ctx, path, func(file kubeconfigFile) error {
		entry := file.find("contexts", name)
		previous, ours := markerOf(entry)
		if entry == nil || !ours {
			return errUnchanged
		}
		for _, list := range []string{"clusters", "users", "contexts"} {
			file.remove(list, name)
		}
		if file["current-context"] == name {
			file["current-context"] = ""
			if previous != "" && file.find("contexts", previous) != nil {
				file["current-context"] = previous
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove context %s from %s: %w", name, path, err)
	}
	return nil
}

// errUnchanged ends an edit without writing.
var errUnchanged = errors.New("unchanged")

// editKubeconfig changes the file under the same lock that kubectl takes and
// replaces it in one step.
func editKubeconfig(ctx context.Context, path string, edit func(kubeconfigFile) error) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	unlock, err := lockKubeconfig(ctx, path+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	file, mode := kubeconfigFile{}, fs.FileMode(0o600)
	body, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if info, err := os.Stat(path); err == nil {
			mode = info.Mode().Perm()
		}
		if err := yaml.Unmarshal(body, &file); err != nil {
			return fmt.Errorf("it is not a kubeconfig: %w; mend or move it", err)
		}
		if file == nil { // an empty file
			file = kubeconfigFile{}
		}
	}
	if err := edit(file); err != nil {
		if errors.Is(err, errUnchanged) {
			return nil
		}
		return err
	}
	file["apiVersion"], file["kind"] = "v1", "Config"
	body, err = yaml.Marshal(file)
	if err != nil {
		return err
	}
	if _, err := clientcmd.Load(body); err != nil {
		return fmt.Errorf("it would not be a kubeconfig any more: %w; mend or move it", err)
	}
	return writeFile(path, body, mode)
}

// lockKubeconfig takes the lock file, waiting at most two seconds for others.
func lockKubeconfig(ctx context.Context, path string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			return func() { os.Remove(path) }, f.Close()
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another program is changing it; if none is, delete %s", path)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// kubeconfigFile is the whole file as it is written, unknown fields included.
type kubeconfigFile map[string]any

func (f kubeconfigFile) list(key string) []any {
	list, _ := f[key].([]any)
	return list
}

// find returns the entry of that name, or nil.
func (f kubeconfigFile) find(key, name string) map[string]any {
	for _, item := range f.list(key) {
		if entry, ok := item.(map[string]any); ok && entry["name"] == name {
			return entry
		}
	}
	return nil
}

// first returns the content of the first entry.
func (f kubeconfigFile) first(key, field string) any {
	for _, item := range f.list(key) {
		if entry, ok := item.(map[string]any); ok {
			return entry[field]
		}
	}
	return nil
}

func (f kubeconfigFile) remove(key, name string) {
	kept := []any{}
	for _, item := range f.list(key) {
		if entry, ok := item.(map[string]any); !ok || entry["name"] != name {
			kept = append(kept, item)
		}
	}
	f[key] = kept
}

// put replaces or appends the entry of that name.
func (f kubeconfigFile) put(key, name, field string, content any) {
	if entry := f.find(key, name); entry != nil {
		entry[field] = content
		return
	}
	f[key] = append(f.list(key), map[string]any{"name": name, field: content})
}

// markerOf returns the previous context that our marker remembers, and
// whether the marker is there.
func markerOf(entry map[string]any) (previous string, ours bool) {
	body, _ := entry["context"].(map[string]any)
	extensions, _ := body["extensions"].([]any)
	for _, item := range extensions {
		e, _ := item.(map[string]any)
		if e["name"] != marker {
			continue
		}
		content, _ := e["extension"].(map[string]any)
		previous, _ = content["previousContext"].(string)
		return previous, true
	}
	return "", false
}
