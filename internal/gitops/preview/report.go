package preview

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// Limit is how many bytes GitHub takes for a comment.
const Limit = 65_536

const (
	maxRows    = 60   // of the table
	maxTold    = 40   // problems that are spelled out
	maxMessage = 1000 // bytes of a problem
	openBelow  = 6    // objects: so few are shown without a click
)

// Report is what a change does to all Applications that it affects.
type Report struct {
	Base, Head string // commits
	Branch     string // that the change would go to, "main"
	Followers  int    // Applications that follow the branch
	Note       string // what to know of the whole, "" for nothing
	Outcomes   []Outcome
}

// Affected are the outcomes with something to tell.
func (r Report) Affected() []Outcome {
	return slices.DeleteFunc(slices.Clone(r.Outcomes), func(o Outcome) bool { return len(o.Objects) == 0 && len(o.Problems) == 0 })
}

// Broken reports whether the change makes something wrong that was not.
func (r Report) Broken() bool { return slices.ContainsFunc(r.Outcomes, Outcome.broken) }

// Faults reports whether the surroundings kept something from being rendered.
func (r Report) Faults() bool {
	return slices.ContainsFunc(r.Outcomes, func(o Outcome) bool {
		return slices.ContainsFunc(o.Problems, func(p Problem) bool { return p.Fault })
	})
}

// Refusals are the problems that the change makes, each in one line for a terminal.
func (r Report) Refusals() []string {
	var out []string
	for _, o := range r.Outcomes {
		for _, p := range o.Problems {
			if p.isNew() {
				out = append(out, fmt.Sprintf("application %s: %s", o.title(), cutTo(oneLine(p.String()), maxMessage)))
			}
		}
	}
	return out
}

// Summary is the report in one line of plain text.
func (r Report) Summary() string {
	apps, broken, unknown := 0, 0, 0
	var added, changed, removed int
	for _, o := range r.Outcomes {
		switch {
		case o.broken():
			broken++
		case slices.ContainsFunc(o.Problems, func(p Problem) bool { return p.Fault }):
			unknown++
		}
		if len(o.Objects) > 0 {
			apps++
		}
		added, changed, removed = added+o.Count(Added), changed+o.Count(Changed), removed+o.Count(Removed)
	}
	var parts []string
	if broken > 0 {
		parts = append(parts, plural(broken, "application", "cannot be synced", "cannot be synced"))
	}
	if unknown > 0 {
		parts = append(parts, plural(unknown, "application", "could not be looked at", "could not be looked at"))
	}
	if apps > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s: %s", apps, plural(r.Followers, "application", "changes", "change"), counts(added, changed, removed)))
	}
	if len(parts) == 0 {
		return fmt.Sprintf("no object of %s", plural(r.Followers, "application", "changes", "changes"))
	}
	return strings.Join(parts, "; ")
}

func counts(added, changed, removed int) string {
	var parts []string
	for _, c := range []struct {
		n    int
		what string
	}{{added, "added"}, {changed, "changed"}, {removed, "removed"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	first, rest, _ := strings.Cut(parts[0], " ")
	noun := " objects "
	if first == "1" {
		noun = " object "
	}
	parts[0] = first + noun + rest
	return strings.Join(parts, ", ")
}

func plural(n int, noun, one, many string) string {
	if n == 1 {
		return fmt.Sprintf("1 %s %s", noun, one)
	}
	return fmt.Sprintf("%d %ss %s", n, noun, many)
}

// Markdown is the report for people, in at most limit bytes (at least 4096).
func (r Report) Markdown(limit int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### What this changes in the clusters\n\n**%s.** %s: %s → %s\n", capital(r.Summary()), code(r.Branch), code(short(r.Base)), code(short(r.Head)))
	if r.Note != "" {
		fmt.Fprintf(&b, "\n%s\n", r.Note)
	}
	const reserve = 300 // for what counts the rest
	affected := r.Affected()
	writeProblems(&b, affected, limit/2)
	writeTable(&b, affected, limit*2/3)
	left := rest{}
	total := 0
	for _, o := range affected {
		total += len(o.Objects)
	}
	for _, o := range affected {
		if len(o.Objects) == 0 {
			continue
		}
		head := fmt.Sprintf("\n#### %s\n\n", o.heading())
		for _, x := range o.Objects {
			block := x.block(total < openBelow)
			if b.Len()+len(head)+len(block)+reserve > limit {
				left.add(o.title())
				continue
			}
			b.WriteString(head)
			b.WriteString(block)
			head = ""
		}
	}
	b.WriteString(left.text(limit))
	return b.String()
}

// rest counts what had no room.
type rest struct {
	objects int
	apps    map[string]bool
}

func (r *rest) add(app string) {
	if r.apps == nil {
		r.apps = map[string]bool{}
	}
	r.objects++
	r.apps[app] = true
}

func (r *rest) text(limit int) string {
	if r.objects == 0 {
		return ""
	}
	objects, apps := "objects have", "applications"
	if r.objects == 1 {
		objects = "object has"
	}
	if len(r.apps) == 1 {
		apps = "application"
	}
	return fmt.Sprintf("\n_%d more %s no room here (%d %s; a comment takes %d characters)._\n", r.objects, objects, len(r.apps), apps, limit)
}

func writeProblems(b *strings.Builder, outcomes []Outcome, limit int) {
	n, dropped := 0, 0
	for _, o := range outcomes {
		for _, p := range o.Problems {
			var line strings.Builder
			fmt.Fprintf(&line, "- %s", code(o.title()))
			if at := p.Place(); at != "" {
				fmt.Fprintf(&line, " at %s", code(at))
			}
			if p.Old {
				line.WriteString(", as before this change")
			}
			if p.Fault {
				line.WriteString(", for a reason outside of this change")
			}
			fmt.Fprintf(&line, ": %s\n", code(cutTo(p.Message, maxMessage)))
			if p.Hint != "" {
				fmt.Fprintf(&line, "  %s\n", code(cutTo(p.Hint, maxMessage)))
			}
			if n >= maxTold || b.Len()+line.Len() > limit {
				dropped++
				continue
			}
			if n == 0 {
				b.WriteString("\n#### Cannot be synced\n\n")
			}
			n++
			b.WriteString(line.String())
		}
	}
	if dropped > 0 {
		fmt.Fprintf(b, "- … and %d more\n", dropped)
	}
}

func writeTable(b *strings.Builder, outcomes []Outcome, limit int) {
	n, dropped := 0, 0
	for _, o := range outcomes {
		if len(o.Objects) == 0 && o.Note == "" {
			continue
		}
		row := fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %s |\n", cell(o.title()), cell(o.destination()), o.Count(Added), o.Count(Changed), o.Count(Removed), o.Same, html.EscapeString(o.Note))
		if n >= maxRows || b.Len()+len(row) > limit {
			dropped++
			continue
		}
		if n == 0 {
			b.WriteString("\n| Application | Environment | Added | Changed | Removed | Same | |\n|---|---|--:|--:|--:|--:|---|\n")
		}
		n++
		b.WriteString(row)
	}
	if dropped > 0 {
		fmt.Fprintf(b, "| … and %d more | | | | | | |\n", dropped)
	}
}

func (o Outcome) title() string {
	if o.Namespace == "" || o.Namespace == "argocd" {
		return o.Name
	}
	return o.Namespace + "/" + o.Name
}

// destination is the environment that the application is.
func (o Outcome) destination() string {
	if o.Target == "" {
		return o.Cluster
	}
	return o.Cluster + "/" + o.Target
}

func (o Outcome) heading() string {
	text := code(o.title()) + " → " + code(o.destination())
	if o.Path != "" {
		text += ", from " + code(o.Path)
	}
	return text
}

// block is one object with its differences, folded.
func (x Object) block(open bool) string {
	var b strings.Builder
	b.WriteString("<details")
	if open {
		b.WriteString(" open")
	}
	name := x.Key.String()
	if x.Group != "" {
		name += " (" + x.Group + ")"
	}
	fmt.Fprintf(&b, "><summary>%s: <code>%s</code>", x.Action, html.EscapeString(oneLine(name)))
	if x.Place != "" {
		fmt.Fprintf(&b, " <sub>%s</sub>", html.EscapeString(oneLine(x.Place)))
	}
	wall := fence(x.Text, "```")
	fmt.Fprintf(&b, "</summary>\n\n%sdiff\n%s", wall, x.Text)
	if x.Text != "" && !strings.HasSuffix(x.Text, "\n") {
		b.WriteByte('\n')
	}
	b.WriteString(wall + "\n")
	if x.Cut > 0 {
		fmt.Fprintf(&b, "\n_%d more lines are left out._\n", x.Cut)
	}
	b.WriteString("\n</details>\n")
	return b.String()
}

// fence is a run of backticks, at least as long as least, that text does not
// have.
func fence(text, least string) string {
	longest, run := len(least)-1, 0
	for i := range len(text) {
		if text[i] != '`' {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return strings.Repeat("`", longest+1)
}

// code is text as a code span.
func code(text string) string {
	text = oneLine(text)
	if text == "" {
		return ""
	}
	wall := fence(text, "`")
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") {
		text = " " + text + " "
	}
	return wall + text + wall
}

// cell is a code span that does not end a cell of a table.
func cell(text string) string { return code(strings.ReplaceAll(text, "|", "\\|")) }

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func cutTo(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "…"
}

func capital(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func short(commit string) string {
	if len(commit) > 7 {
		return commit[:7]
	}
	return commit
}
