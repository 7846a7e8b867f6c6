package trace

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Style is how Render draws.
type Style struct {
	Color    bool           // ANSI colours
	Width    int            // columns; 0 means 80, less than 60 is drawn as 60
	Location *time.Location // of clock times; nil means UTC
}

// Bounds of a drawing.
const (
	maxWidth    = 160
	maxRows     = 14 // of one lane
	maxAttempts = 4  // of one subject
)

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// Render draws the trace: the lanes of the commit and of each commit that it
// caused on one time axis, what failed with file, reason and next step, where
// it stands, and where the time went. Text from events cannot move the cursor
// or colour anything.
func Render(w io.Writer, t Trace, style Style) error {
	if style.Width == 0 {
		style.Width = 80
	}
	style.Width = max(60, min(style.Width, maxWidth))
	if style.Location == nil {
		style.Location = time.UTC
	}
	d := drawing{Style: style, start: t.Start, end: t.End}
	d.commit(t, "", !t.State.Settled())
	d.line("")
	d.foot(t)
	_, err := io.WriteString(w, d.text.String())
	return err
}

type drawing struct {
	Style
	start, end time.Time // the time axis
	text       strings.Builder
}

func (d *drawing) line(parts ...string) {
	d.text.WriteString(strings.TrimRight(strings.Join(parts, ""), " "))
	d.text.WriteByte('\n')
}

func (d *drawing) paint(color, s string) string {
	if !d.Color || s == "" {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

// commit draws a commit's heading and lanes, then what it caused.
func (d *drawing) commit(t Trace, lead string, live bool) {
	subject := clean(t.Subject)
	if lead == "" {
		d.line(d.paint(bold, Short(t.Commit)), "  ", d.paint(bold, fit(subject, d.Width-9)))
		d.line(d.paint(dim, fit(d.origin(t), d.Width)))
	} else {
		by := ""
		if t.Actor != "" {
			by = "  by " + fit(clean(t.Actor), 30)
		}
		head := lead + "caused "
		room := d.Width - len(head) - 9
		d.line()
		d.line(d.paint(dim, head), d.paint(bold, Short(t.Commit)), "  ", fit(subject, room-len([]rune(by))), d.paint(dim, by))
	}
	d.lanes(t, live && len(t.Children) == 0)
	for _, c := range t.Children {
		d.commit(c, "  ", live)
	}
}

// origin says where the commit was pushed, by whom and when.
func (d *drawing) origin(t Trace) string {
	s := clean(t.Repo)
	if t.Ref != "" {
		s += " " + clean(ShortRef(t.Ref))
	}
	if t.Author != "" {
		s += " by " + clean(t.Author)
	}
	return strings.TrimSpace(s) + ", " + t.Start.In(d.Location).Format("2006-01-02 15:04:05")
}

// lanes draws one commit's rows; of a live one also the stages still to come.
func (d *drawing) lanes(t Trace, live bool) {
	reached := -1
	for _, l := range t.Lanes {
		reached = max(reached, slices.Index(Stages, l.Stage))
	}
	for i, stage := range Stages {
		at := slices.IndexFunc(t.Lanes, func(l Lane) bool { return l.Stage == stage })
		switch {
		case at >= 0:
			d.lane(t.Lanes[at])
		case live && i > reached && reached >= 0:
			d.line(fmt.Sprintf("  %-7s ", stage), d.paint(dim, "· to come"))
		}
	}
}

func (d *drawing) lane(l Lane) {
	rows := shown(l)
	hidden := len(rows) - maxRows
	if hidden > 0 { // keep the ones that matter, in their order
		rows = slices.DeleteFunc(rows, func(s Span) bool {
			if hidden > 0 && s.Status == journal.StatusSucceeded {
				hidden--
				return true
			}
			return false
		})
	}
	name := string(l.Stage)
	for i, s := range rows {
		if i == maxRows {
			break
		}
		d.span(name, s)
		name = ""
	}
	if all := len(shown(l)); all > min(len(rows), maxRows) {
		d.line(strings.Repeat(" ", 12), d.paint(dim, fmt.Sprintf("and %d more", all-min(len(rows), maxRows))))
	}
}

// shown picks the spans that get a row: no finished steps unless they failed,
// and of many attempts the last ones.
func shown(l Lane) []Span {
	attempts := map[string]int{}
	for _, s := range l.Spans {
		attempts[key(s.Subject, s.Data)] = s.Attempt
	}
	return slices.DeleteFunc(slices.Clone(l.Spans), func(s Span) bool {
		if s.Detail() && !s.Open() && s.Status != journal.StatusFailed {
			return true
		}
		return s.Attempt <= attempts[key(s.Subject, s.Data)]-maxAttempts
	})
}

// The columns of a row: stage, mark, subject, bar, duration.
const (
	indent   = 12 // two spaces, the stage and the mark
	timeCols = 8
)

func (d *drawing) span(stage string, s Span) {
	subjectCols := 33 + (d.Width-80)/4
	barCols := d.Width - indent - subjectCols - timeCols - 2
	subject := clean(ShortRef(s.Subject))
	if s.Detail() {
		subject += " step " + clean(s.Data[journal.DataStep])
	}
	if s.Attempt > 1 {
		suffix := fmt.Sprintf(" (attempt %d)", s.Attempt)
		subject = fit(subject, subjectCols-len(suffix)) + suffix
	}
	mark, color := glyph(s)
	took := ""
	if s.Duration > 0 || s.Open() {
		took = Format(time.Duration(s.Duration))
	}
	d.line(fmt.Sprintf("  %-7s ", stage), d.paint(color, mark), " ", pad(fit(subject, subjectCols), subjectCols), " ",
		d.bar(s, barCols, color), " ", fmt.Sprintf("%*s", timeCols, took))
	d.why(s)
}

// why explains what is not simply done.
func (d *drawing) why(s Span) {
	lead := strings.Repeat(" ", indent)
	color := dim
	switch s.Status {
	case journal.StatusFailed:
		color = red
	case journal.StatusWaiting:
		color = yellow
	case journal.StatusStarted, journal.StatusSkipped, journal.StatusCancelled:
	default:
		return
	}
	if s.File != "" {
		d.line(lead, d.paint(bold, fit(position(clean(s.File), s.Line), d.Width-indent)))
	}
	for _, line := range wrap(clean(s.Message), d.Width-indent) {
		d.line(lead, d.paint(color, line))
	}
	if s.Hint != "" && s.Status != journal.StatusSkipped {
		for i, line := range wrap(clean(s.Hint), d.Width-indent-5) {
			d.line(lead, d.paint(cyan, []string{"try: ", "     "}[min(i, 1)]), line)
		}
	}
}

// bar draws when the span was, on the axis of the whole trace.
func (d *drawing) bar(s Span, cols int, color string) string {
	total := d.end.Sub(d.start)
	end := s.End
	if s.Open() {
		end = d.end
	}
	if total <= 0 || s.Start.After(d.end) {
		return strings.Repeat(" ", cols)
	}
	place := func(t time.Time) int {
		return int(float64(cols)*float64(t.Sub(d.start))/float64(total) + 0.5)
	}
	from := max(0, min(place(s.Start), cols-1))
	to := max(from+1, min(place(end), cols))
	piece := "━"
	if s.Status == journal.StatusWaiting {
		piece = "┄"
	}
	return strings.Repeat(" ", from) + d.paint(color, strings.Repeat(piece, to-from)) + strings.Repeat(" ", cols-to)
}

// foot ends the drawing: where it stands, and where the time went.
func (d *drawing) foot(t Trace) {
	mark, color := stateGlyph(t.State)
	for i, line := range wrap(clean(t.Now), d.Width-2) {
		lead := "  "
		if i == 0 {
			lead = d.paint(color, mark) + " "
		}
		d.line(lead, d.paint(bold, line))
	}
	if r := t.reason(); r != nil && r.Hint != "" {
		for i, line := range wrap(clean(r.Hint), d.Width-7) {
			d.line("  ", d.paint(cyan, []string{"try: ", "     "}[min(i, 1)]), line)
		}
	}
	var parts []string
	image := slices.ContainsFunc(t.Spent, func(s Share) bool { return s.Stage == journal.StageImage })
	for _, s := range t.Spent {
		name := string(s.Stage)
		switch {
		case name == "":
			name = "in between"
		case s.Stage == journal.StageRun && image:
			name = "rest of run" // the image was built within it
		}
		percent := 100 * float64(s.Time) / float64(max(1, t.Total))
		if percent >= 1 {
			parts = append(parts, fmt.Sprintf("%s %s (%.0f%%)", name, Format(time.Duration(s.Time)), percent))
		}
	}
	total := "total " + Format(time.Duration(t.Total))
	if len(parts) > 0 {
		total += ": " + strings.Join(parts, ", ")
	}
	for _, line := range wrap(total, d.Width-2) {
		d.line("  ", d.paint(dim, line))
	}
}

func (t Trace) reason() *Reason {
	if t.Failed != nil {
		return t.Failed
	}
	return t.Waiting
}

func glyph(s Span) (mark, color string) {
	switch s.Status {
	case journal.StatusSucceeded:
		return "✓", green
	case journal.StatusFailed:
		return "✗", red
	case journal.StatusSkipped:
		return "-", dim
	case journal.StatusCancelled:
		return "⊘", dim
	case journal.StatusWaiting:
		return "…", yellow
	case journal.StatusInfo:
		return "·", dim
	}
	return "▸", cyan
}

func stateGlyph(s State) (mark, color string) {
	switch s {
	case StateReady:
		return "✓", green
	case StateFailed:
		return "✗", red
	case StateWaiting, StatePending:
		return "…", yellow
	case StateCancelled:
		return "⊘", dim
	case StateIdle:
		return "·", dim
	}
	return "▸", cyan
}

// Format writes a duration for people: 120ms, 4.2s, 41.2s, 3m05s, 2h07m, 3d4h.
func Format(d time.Duration) string {
	switch {
	case d <= 0:
		return "0s"
	case d < time.Second:
		return fmt.Sprintf("%dms", max(1, d.Milliseconds()))
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// clean takes what could steer a terminal out of text, and line breaks.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
}

// fit shortens text to cols columns, leaving both ends to see.
func fit(s string, cols int) string {
	r := []rune(s)
	if cols = max(1, cols); len(r) <= cols {
		return s
	}
	tail := (cols - 1) / 3
	return string(r[:cols-1-tail]) + "…" + string(r[len(r)-tail:])
}

func pad(s string, cols int) string {
	return s + strings.Repeat(" ", max(0, cols-len([]rune(s))))
}

// wrap breaks text into lines of at most cols columns, at most 12 of them.
func wrap(s string, cols int) []string {
	const most = 12
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		for len([]rune(word)) > cols {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			r := []rune(word)
			lines, word = append(lines, string(r[:cols])), string(r[cols:])
		}
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) > cols:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	if len(lines) > most {
		lines = append(lines[:most-1], "…")
	}
	return lines
}
