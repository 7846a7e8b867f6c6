package forge

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"
)

type labelJSON struct {
	ID          int64   `json:"id"`
	NodeID      string  `json:"node_id"`
	URL         string  `json:"url"`
	Name        string  `json:"name"`
	Color       string  `json:"color"`
	Default     bool    `json:"default"`
	Description *string `json:"description"`
}

type milestoneJSON struct {
	URL          string      `json:"url"`
	HTMLURL      string      `json:"html_url"`
	LabelsURL    string      `json:"labels_url"`
	ID           int64       `json:"id"`
	NodeID       string      `json:"node_id"`
	Number       int         `json:"number"`
	State        string      `json:"state"`
	Title        string      `json:"title"`
	Description  *string     `json:"description"`
	Creator      accountJSON `json:"creator"`
	OpenIssues   int         `json:"open_issues"`
	ClosedIssues int         `json:"closed_issues"`
	CreatedAt    time.Time   `json:"created_at"`
	UpdatedAt    time.Time   `json:"updated_at"`
	ClosedAt     *time.Time  `json:"closed_at"`
	DueOn        *time.Time  `json:"due_on"`
}

// reactionContents are GitHub's, in its order.
var reactionContents = []string{"+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes"}

type reactionsJSON map[string]any

// eachRow calls scan for every row of a query.
func (sc *scene) eachRow(scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := sc.f.db.QueryContext(sc.r.Context(), query, args...)
	if err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("forge state: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	return nil
}

// readLabels returns the labels of the repository by their lower-case name.
func (sc *scene) readLabels() (map[string]labelJSON, error) {
	labels := map[string]labelJSON{}
	err := sc.eachRow(func(rows *sql.Rows) error {
		var l labelJSON
		var key, description string
		if err := rows.Scan(&l.ID, &key, &l.Name, &l.Color, &description); err != nil {
			return err
		}
		l.NodeID, l.Description = nodeID("Label", sc.repo.full()+"/"+l.Name), optional(description)
		l.URL, l.Default = sc.base()+"/labels/"+l.Name, defaultLabels[key].color != ""
		labels[key] = l
		return nil
	}, `select id, key, name, color, description from label where repo = ? order by key`, sc.repo.id)
	return labels, err
}

func (sc *scene) readMilestones() (map[int]milestoneJSON, error) {
	all := map[int]milestoneJSON{}
	err := sc.eachRow(func(rows *sql.Rows) error {
		var m milestoneJSON
		var open bool
		var description, author string
		var due, created, updated int64
		if err := rows.Scan(&m.ID, &m.Number, &m.Title, &description, &open, &due, &author, &created, &updated); err != nil {
			return err
		}
		m.URL, m.HTMLURL = sc.base()+"/milestones/"+strconv.Itoa(m.Number), sc.page()+"/milestone/"+strconv.Itoa(m.Number)
		m.LabelsURL, m.NodeID = m.URL+"/labels", nodeID("Milestone", sc.repo.full()+"/"+strconv.Itoa(m.Number))
		m.State, m.Description, m.Creator = "closed", optional(description), sc.account(author)
		m.CreatedAt, m.UpdatedAt = *moment(time.UnixMicro(created)), *moment(time.UnixMicro(updated))
		if open {
			m.State = "open"
		} else {
			m.ClosedAt = &m.UpdatedAt
		}
		if due != 0 {
			m.DueOn = moment(time.UnixMicro(due))
		}
		all[m.Number] = m
		return nil
	}, `select id, number, title, description, open, due, author, created, updated from milestone where repo = ?`, sc.repo.id)
	if err != nil || len(all) == 0 {
		return all, err
	}
	return all, sc.eachRow(func(rows *sql.Rows) error {
		var number, open, shut int
		if err := rows.Scan(&number, &open, &shut); err != nil {
			return err
		}
		m := all[number]
		m.OpenIssues, m.ClosedIssues = open, shut
		all[number] = m
		return nil
	}, `select m.number, coalesce(sum(i.open), 0), coalesce(sum(not i.open), 0) from milestone m
		join issue i on i.repo = m.repo and json_extract(cast(i.facts as text), '$.milestone') = m.number where m.repo = ? group by m.number`, sc.repo.id)
}

// readReactions counts the reactions to all of the repository's subjects.
func (sc *scene) readReactions() (map[string]map[string]int, error) {
	counts := map[string]map[string]int{}
	err := sc.eachRow(func(rows *sql.Rows) error {
		var kind, content string
		var subject int64
		var n int
		if err := rows.Scan(&kind, &subject, &content, &n); err != nil {
			return err
		}
		key := kind + "/" + strconv.FormatInt(subject, 10)
		if counts[key] == nil {
			counts[key] = map[string]int{}
		}
		counts[key][content] = n
		return nil
	}, `select kind, subject, content, count(*) from reaction where repo = ? group by kind, subject, content`, sc.repo.id)
	return counts, err
}

// reactionsOf sums up the reactions to a subject with the URL.
func (sc *scene) reactionsOf(kind string, id int64, url string) reactionsJSON {
	counts := sc.reactions[kind+"/"+strconv.FormatInt(id, 10)]
	j, total := reactionsJSON{"url": url + "/reactions"}, 0
	for _, content := range reactionContents {
		j[content] = counts[content]
		total += counts[content]
	}
	j["total_count"] = total
	return j
}

// defaultLabels are those that GitHub gives a new repository, in its colors.
var defaultLabels = map[string]struct{ color, description string }{
	"bug":              {"d73a4a", "Something isn't working"},
	"documentation":    {"0075ca", "Improvements or additions to documentation"},
	"duplicate":        {"cfd3d7", "This issue or pull request already exists"},
	"enhancement":      {"a2eeef", "New feature or request"},
	"good first issue": {"7057ff", "Good for newcomers"},
	"help wanted":      {"008672", "Extra attention is needed"},
	"invalid":          {"e4e669", "This doesn't seem right"},
	"question":         {"d876e3", "Further information is requested"},
	"wontfix":          {"ffffff", "This will not be worked on"},
}

// ensureLabel makes a label if it is not there, as GitHub does when an issue
// gets one that is new.
func ensureLabel(out *outbox, repo int64, name string) error {
	key := strings.ToLower(name)
	color, description := "ededed", ""
	if known, ok := defaultLabels[key]; ok {
		color, description = known.color, known.description
	}
	_, err := out.tx.ExecContext(out.ctx, `insert into label (repo, key, name, color, description) values (?,?,?,?,?) on conflict do nothing`,
		repo, key, name, color, description)
	return err
}

// addDefaultLabels gives a new repository the labels of GitHub.
func (f *Forge) addDefaultLabels(ctx context.Context, repo *repository) error {
	return f.publish(ctx, func(_ *sql.Tx, out *outbox) error {
		for name := range defaultLabels {
			if err := ensureLabel(out, repo.id, name); err != nil {
				return err
			}
		}
		return nil
	})
}
