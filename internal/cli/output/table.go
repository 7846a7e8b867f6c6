package output

import (
	"io"
	"strings"
)

// Paint colours text where colours are on.
type Paint bool

// The colours that mean something: good, bad, in between, working, unimportant.
func (p Paint) Good(s string) string { return p.with("32", s) }
func (p Paint) Bad(s string) string  { return p.with("31", s) }
func (p Paint) Warn(s string) string { return p.with("33", s) }
func (p Paint) Busy(s string) string { return p.with("36", s) }
func (p Paint) Dim(s string) string  { return p.with("2", s) }
func (p Paint) Bold(s string) string { return p.with("1", s) }

func (p Paint) with(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// State colours the words that boxes use for states.
func (p Paint) State(s string) string {
	switch strings.ToLower(s) {
	case "synced", "healthy", "running", "ready", "success", "succeeded":
		return p.Good(s)
	case "degraded", "missing", "failed", "failure", "error":
		return p.Bad(s)
	case "outofsync", "restarting", "waiting", "queued", "suspended", "pending", "starting":
		return p.Warn(s)
	case "progressing", "in_progress":
		return p.Busy(s)
	}
	return s
}

// Table lays out rows in columns. A cell is a text and how it is painted.
type Table struct {
	Head []string
	// Width cuts the last column; 0 does not.
	Width int
	Paint Paint
	rows  [][]Cell
}

// Cell is one field of a table.
type Cell struct {
	Text  string
	Paint func(string) string // nil for none
}

// Text is a plain cell.
func Text(s string) Cell { return Cell{Text: s} }

// State is a cell that holds a state.
func (t *Table) State(s string) Cell { return Cell{s, t.Paint.State} }

// Row adds a row.
func (t *Table) Row(cells ...Cell) { t.rows = append(t.rows, cells) }

// Write writes the table; without rows it writes nothing.
func (t *Table) Write(w io.Writer) error {
	if len(t.rows) == 0 {
		return nil
	}
	head := make([]Cell, len(t.Head))
	for i, h := range t.Head {
		head[i] = Cell{h, t.Paint.Dim}
	}
	rows := append([][]Cell{head}, t.rows...)
	widths := make([]int, len(t.Head))
	for _, row := range rows {
		for i := range row {
			row[i].Text = Clean(row[i].Text)
			if row[i].Text == "" {
				row[i].Text = "-"
			}
			widths[i] = max(widths[i], len([]rune(row[i].Text)))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		used := 0
		for i, c := range row {
			text := c.Text
			if i == len(row)-1 && t.Width > 0 {
				text = Fit(text, max(10, t.Width-used))
			}
			gap := ""
			if i < len(row)-1 {
				gap = strings.Repeat(" ", widths[i]-len([]rune(text))+2)
			}
			used += widths[i] + 2
			if c.Paint != nil {
				text = c.Paint(text)
			}
			b.WriteString(text + gap)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Fit cuts text to cols columns.
func Fit(s string, cols int) string {
	if r := []rune(s); len(r) > cols {
		return string(r[:max(0, cols-1)]) + "…"
	}
	return s
}
