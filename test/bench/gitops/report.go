//go:build linux

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// report is the JSON that a run prints. Times are seconds or milliseconds as
// the names say; phases that did not run are missing.
type report struct {
	N          int         `json:"n"`
	Shape      string      `json:"shape"`
	Parallel   int         `json:"parallel"`
	Objects    int         `json:"objects"`
	Limit      *limit      `json:"limit,omitempty"`
	Cold       *fleet      `json:"cold,omitempty"`
	Idle       *idle       `json:"idle,omitempty"`
	NoopCommit *noopCommit `json:"noop_commit,omitempty"`
	CommitOne  *single     `json:"commit_one,omitempty"`
	CommitAll  *fleet      `json:"commit_all,omitempty"`
	Drift      *single     `json:"drift,omitempty"`
	Restart    *restart    `json:"restart,omitempty"`
	Error      string      `json:"error,omitempty"`
}

// limit is the bare loop on a fresh control plane.
type limit struct {
	ColdSeconds float64 `json:"cold_s"`
	ColdCPU     float64 `json:"cold_cpu_s"`
	AllSeconds  float64 `json:"all_s"`
	AllCPU      float64 `json:"all_cpu_s"`
	Plane       float64 `json:"plane_cpu_s"` // of the control plane, for both
}

// fleet is a phase that changes all applications.
type fleet struct {
	Wall    float64 `json:"wall_s"`   // until the last object is live
	Synced  float64 `json:"synced_s"` // until the last Application says so
	CPU     float64 `json:"cpu_s"`    // of the engine, until it was quiet
	Plane   float64 `json:"plane_cpu_s"`
	Writes  int     `json:"writes"`
	DryRuns int     `json:"dry_runs"`
	Status  int     `json:"status_writes"`
	Total   int     `json:"requests"`
	Ratio   float64 `json:"ratio_to_limit,omitempty"`
	RSS     float64 `json:"rss_mib"`
	Peak    float64 `json:"peak_mib"`
}

// single is a phase that changes one application at a time. Counts and CPU
// are for one repetition.
type single struct {
	Median   float64 `json:"median_ms"`
	P95      float64 `json:"p95_ms"`
	Max      float64 `json:"max_ms"`
	CPU      float64 `json:"cpu_s"`
	Plane    float64 `json:"plane_cpu_s"`
	Writes   float64 `json:"writes"`
	DryRuns  float64 `json:"dry_runs"`
	Requests float64 `json:"requests"`
	Others   int     `json:"requests_for_other_apps"` // over all repetitions
	Reps     int     `json:"reps"`
}

// idle is the engine when nothing happens.
type idle struct {
	CPUPercent   float64 `json:"cpu_percent"` // of one core
	RSS          float64 `json:"rss_mib"`
	PSS          float64 `json:"pss_mib"`
	Peak         float64 `json:"peak_mib"`
	Children     float64 `json:"children_rss_mib"` // git
	Heap         float64 `json:"heap_mib"`
	PerApp       float64 `json:"heap_kib_per_app"`
	Goroutines   int     `json:"goroutines"`
	Requests     int     `json:"requests"`
	Seconds      float64 `json:"seconds"`
	PlanePercent float64 `json:"plane_cpu_percent"`
}

// noopCommit is a commit that concerns no application.
type noopCommit struct {
	CPU      float64 `json:"cpu_s"`   // in three seconds, over idle
	Touched  int     `json:"touched"` // applications with an event or a request
	Events   int     `json:"events"`
	Requests int     `json:"requests"`
}

// restart is an engine that starts with everything in sync.
type restart struct {
	InSync       float64 `json:"in_sync_s"`
	CPU          float64 `json:"cpu_s"`
	Rendered     *int64  `json:"rendered"` // null where the engine does not count
	RenderEvents int     `json:"render_events"`
	Writes       int     `json:"writes"`
	DryRuns      int     `json:"dry_runs"`
	Requests     int     `json:"requests"`
	RSS          float64 `json:"rss_mib"`
}

// table prints the report for people.
func (r *report) table(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("applications", "%d (%s), %d objects, %d requests at a time", r.N, r.Shape, r.Objects, r.Parallel)
	if l := r.Limit; l != nil {
		row("limit", "cold %.2f s (%.2f CPU-s), all %.2f s (%.2f CPU-s)", l.ColdSeconds, l.ColdCPU, l.AllSeconds, l.AllCPU)
	}
	r.Cold.row(row, "cold")
	if i := r.Idle; i != nil {
		row("idle", "%.2f %% of a core, %.0f MiB resident (PSS %.0f, peak %.0f, git %.0f, heap %.0f = %.1f KiB per application), %d goroutines, %d requests in %.0f s; control plane %.1f %%",
			i.CPUPercent, i.RSS, i.PSS, i.Peak, i.Children, i.Heap, i.PerApp, i.Goroutines, i.Requests, i.Seconds, i.PlanePercent)
	}
	if c := r.NoopCommit; c != nil {
		row("no-op commit", "%.3f CPU-s, %d applications touched, %d events, %d requests", c.CPU, c.Touched, c.Events, c.Requests)
	}
	r.CommitOne.row(row, "one-app commit")
	r.CommitAll.row(row, "all-apps commit")
	r.Drift.row(row, "drift")
	if s := r.Restart; s != nil {
		rendered := "renders not counted"
		if s.Rendered != nil {
			rendered = fmt.Sprintf("%d rendered", *s.Rendered)
		}
		row("restart", "in sync after %.2f s, %.2f CPU-s, %s, %d requests (%d writes, %d dry runs), %.0f MiB resident", s.InSync, s.CPU, rendered, s.Requests, s.Writes, s.DryRuns, s.RSS)
	}
	_ = w.Flush()
}

func (f *fleet) row(row func(string, string, ...any), name string) {
	if f == nil {
		return
	}
	ratio := ""
	if f.Ratio > 0 {
		ratio = fmt.Sprintf(" = %.2f × limit", f.Ratio)
	}
	row(name, "live %.2f s%s, synced %.2f s, %.2f CPU-s (control plane %.2f), %d requests (%d writes, %d of them status, %d dry runs), %.0f MiB resident (peak %.0f)",
		f.Wall, ratio, f.Synced, f.CPU, f.Plane, f.Total, f.Writes, f.Status, f.DryRuns, f.RSS, f.Peak)
}

func (s *single) row(row func(string, string, ...any), name string) {
	if s == nil {
		return
	}
	row(name, "median %.1f ms, p95 %.1f ms, max %.1f ms; each %.4f CPU-s (control plane %.4f), %.1f requests (%.1f writes, %.1f dry runs); %d requests for other applications; %d times",
		s.Median, s.P95, s.Max, s.CPU, s.Plane, s.Requests, s.Writes, s.DryRuns, s.Others, s.Reps)
}
