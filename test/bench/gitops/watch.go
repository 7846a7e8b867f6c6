//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// fact is what is seen of one thing: "app/name", "revision/name",
// "configmap/name", "deployment/name", and its state.
type fact struct{ key, value string }

// watcher sees the cluster as anybody else would: through watches.
type watcher struct {
	client *http.Client
	host   string

	mu     sync.Mutex
	facts  map[string]string
	wants  map[*expectation]bool
	broken error
}

// expectation is a set of facts to come.
type expectation struct {
	left map[string]string
	done chan struct{} // closed when all facts are there
	at   time.Time     // when the last one came
}

func newWatcher(config *rest.Config) (*watcher, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return &watcher{client: client, host: config.Host, facts: map[string]string{}, wants: map[*expectation]bool{}}, nil
}

// seen is the little of an object that is looked at.
type seen struct {
	Metadata struct{ Name string }
	Data     struct{ Value string }
	Spec     struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Env []struct{ Name, Value string }
				}
			}
		}
	}
	Status struct {
		Sync           struct{ Status, Revision string }
		OperationState struct{ Phase string }
		Conditions     []struct{ Type, Message string }
	}
}

var (
	applicationsPath = "/apis/argoproj.io/v1alpha1/applications"
	configMapsPath   = "/api/v1/configmaps"
	deploymentsPath  = "/apis/apps/v1/deployments"
)

// factsOf turns an object of one of the paths into facts.
func factsOf(path string, o *seen) []fact {
	name := o.Metadata.Name
	switch path {
	case applicationsPath:
		state := o.Status.Sync.Status + " " + o.Status.OperationState.Phase
		for _, c := range o.Status.Conditions {
			state += "; " + c.Type + ": " + c.Message
		}
		return []fact{{"app/" + name, state}, {"revision/" + name, o.Status.Sync.Revision}}
	case configMapsPath:
		return []fact{{"configmap/" + name, o.Data.Value}}
	}
	for _, c := range o.Spec.Template.Spec.Containers {
		for _, e := range c.Env {
			return []fact{{"deployment/" + name, e.Value}}
		}
	}
	return nil
}

// watch follows one kind until ctx ends. It returns when the watch is set up.
func (w *watcher) watch(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.host+path+"?watch=true&timeoutSeconds=86400", nil)
	if err != nil {
		return err
	}
	res, err := w.client.Do(req)
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return fmt.Errorf("watch %s: %s", path, res.Status)
	}
	go func() {
		defer res.Body.Close()
		dec := json.NewDecoder(bufio.NewReaderSize(res.Body, 1<<20))
		for {
			var event struct {
				Type   string
				Object seen
			}
			if err := dec.Decode(&event); err != nil {
				w.fail(ctx, fmt.Errorf("watch %s ended: %w", path, err))
				return
			}
			w.note(factsOf(path, &event.Object))
		}
	}()
	return nil
}

func (w *watcher) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = errors.Join(w.broken, err)
	for e := range w.wants {
		close(e.done)
		delete(w.wants, e)
	}
}

func (w *watcher) note(facts []fact) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range facts {
		w.facts[f.key] = f.value
		for e := range w.wants {
			if want, ok := e.left[f.key]; ok && want == f.value {
				delete(e.left, f.key)
			}
			if len(e.left) == 0 {
				e.at = time.Now()
				close(e.done)
				delete(w.wants, e)
			}
		}
	}
}

// expect starts waiting for facts; it takes over the map. Facts that are there
// already count.
func (w *watcher) expect(facts map[string]string) *expectation {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := &expectation{left: facts, done: make(chan struct{}), at: time.Now()}
	for key, want := range facts {
		if w.facts[key] == want {
			delete(facts, key)
		}
	}
	if len(facts) == 0 {
		close(e.done)
	} else {
		w.wants[e] = true
	}
	return e
}

// wait returns when the facts are there, with the time of the last.
func (w *watcher) wait(ctx context.Context, e *expectation, limit time.Duration) (time.Time, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var err error
	select {
	case <-e.done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timer.C:
		err = fmt.Errorf("not done after %s", limit)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wants, e)
	if err = errors.Join(err, w.broken); err == nil {
		return e.at, nil
	}
	n := 0
	for key, want := range e.left {
		if n++; n <= 3 {
			err = fmt.Errorf("%w\n%s is %q, not %q", err, key, w.facts[key], want)
		}
	}
	return e.at, fmt.Errorf("%d facts did not come: %w", len(e.left), err)
}
