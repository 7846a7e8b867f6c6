//go:build linux

package main

import (
	"maps"
	"net/http"
	"regexp"
	"sync"
)

var appName = regexp.MustCompile(`app-\d{5}`)

// requests are what was asked of the API server.
type requests struct {
	Total  int            `json:"total"`
	Writes int            `json:"writes"`   // that change something
	DryRun int            `json:"dry_runs"` // that would
	Status int            `json:"status"`   // writes to Applications, among Writes
	Lists  int            `json:"lists"`
	Apps   map[string]int `json:"apps,omitempty"` // by the application that the path names
}

// counter counts the requests that pass.
type counter struct {
	next http.RoundTripper
	mu   *sync.Mutex
	sum  *requests
}

// RoundTrip implements http.RoundTripper.
func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.sum.Total++
	query := r.URL.Query()
	name := appName.FindString(r.URL.Path)
	switch {
	case query.Has("dryRun"):
		c.sum.DryRun++
	case r.Method != http.MethodGet:
		c.sum.Writes++
		if applications.MatchString(r.URL.Path) {
			c.sum.Status++
		}
	case name == "" && query.Get("watch") == "":
		c.sum.Lists++
	}
	if name != "" {
		c.sum.Apps[name]++
	}
	c.mu.Unlock()
	return c.next.RoundTrip(r)
}

var applications = regexp.MustCompile(`/applications/`)

// take returns the counts; with reset, counting by application starts anew.
func (c counter) take(reset bool) requests {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := *c.sum
	out.Apps = maps.Clone(c.sum.Apps)
	if reset {
		clear(c.sum.Apps)
	}
	return out
}
