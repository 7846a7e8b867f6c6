package forge

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Keys of a push event's data beside those of the journal.
const (
	DataAfter    = "after"    // object that the ref now names; 40 zeros when it was deleted
	DataPush     = "push"     // the same for all refs of one push
	DataDuration = "duration" // of git's part of the push, as "41ms"
)

// ActorUnknown is the actor of a ref that moved otherwise than by a push.
const ActorUnknown = "unknown"

// pushedRefs are the refs that pushes move. Others are the forge's own.
var pushedRefs = []string{"refs/heads/", "refs/tags/"}

// push is an accepted push whose events are not yet all written.
type push struct {
	id           string
	actor, cause string
	time         time.Time
	took         time.Duration // 0: unknown
	commands     []refCommand
	recovered    bool // written before the forge started: events may exist
}

// recordPush makes a push durable before git may move its refs.
func (f *Forge) recordPush(ctx context.Context, repo *repository, actor, cause string, commands []refCommand) (*push, error) {
	var random [16]byte
	_, _ = rand.Read(random[:])
	p := &push{id: hex.EncodeToString(random[:]), actor: actor, cause: cause, time: f.deps.Now(), commands: commands}
	err := f.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `insert into push (id, repo, actor, cause, time) values (?,?,?,?,?)`,
			p.id, repo.key, actor, cause, p.time.UnixMicro()); err != nil {
			return err
		}
		for n, c := range commands {
			if _, err := tx.ExecContext(ctx, `insert into push_ref (push, n, ref, old, new) values (?,?,?,?,?)`, p.id, n, c.Ref, c.Old, c.New); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// settle finds out which refs of a push moved, tells the journal and then forgets
// the push. The caller holds the repository's lock.
func (f *Forge) settle(ctx context.Context, repo *repository, p *push) error {
	told, err := f.toldRefs(ctx, repo)
	if err != nil {
		return err
	}
	now, err := repo.git.Refs(ctx, pushedRefs...)
	if err != nil {
		return err
	}
	var moved []refCommand
	for _, c := range p.commands {
		before, after := idOrZero(told[c.Ref]), idOrZero(now[c.Ref])
		if before != after && after == c.New {
			moved = append(moved, refCommand{Ref: c.Ref, Old: before, New: after})
		}
	}
	if err := f.setHead(ctx, repo, now, moved); err != nil {
		return err
	}
	for _, c := range moved {
		if err := f.tell(ctx, repo, p, c); err != nil {
			return err
		}
	}
	defer f.pushed.wake()
	news, err := f.newsOf(ctx, repo, p, moved)
	if err != nil {
		return err
	}
	defer news.close()
	made, err := f.refEvents(ctx, repo, p, moved)
	if err != nil {
		return err
	}
	return f.forget(ctx, repo, p, moved, news, made)
}

// forget records the refs as told together with what that means for pull
// requests, and removes the push.
func (f *Forge) forget(ctx context.Context, repo *repository, p *push, moved []refCommand, news *pullNews, made []Event) error {
	return f.publish(ctx, func(tx *sql.Tx, out *outbox) error {
		for _, e := range made {
			if err := out.add(e); err != nil {
				return err
			}
		}
		if err := news.record(tx, out); err != nil {
			return err
		}
		for _, c := range moved {
			statement, args := `insert or replace into ref (repo, name, id) values (?,?,?)`, []any{repo.key, c.Ref, c.New}
			if c.New == git.ZeroID {
				statement, args = `delete from ref where repo = ? and name = ?`, args[:2]
			}
			if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
				return err
			}
		}
		if len(moved) > 0 {
			if _, err := tx.ExecContext(ctx, `update repository set pushed = ? where key = ?`, p.time.UnixMicro(), repo.key); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `delete from push_ref where push = ?`, p.id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `delete from push where id = ?`, p.id)
		return err
	})
}

// tell writes the event of one moved ref, unless a recovered push has it.
func (f *Forge) tell(ctx context.Context, repo *repository, p *push, c refCommand) error {
	if p.recovered {
		events, err := f.deps.Journal.Events(ctx, journal.Query{
			Repo: repo.full(), Stages: []journal.Stage{journal.StagePush}, Subject: c.Ref, Newest: true, Limit: 1000,
		})
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Data[DataPush] == p.id {
				return nil
			}
		}
	}
	e := journal.Event{
		Time: f.deps.Now(), Repo: repo.full(), Stage: journal.StagePush, Subject: c.Ref, Status: journal.StatusSucceeded,
		Data: map[string]string{
			journal.DataActor: p.actor, journal.DataRef: c.Ref, journal.DataBefore: c.Old, DataAfter: c.New, DataPush: p.id,
		},
	}
	if p.recovered {
		e.Time = p.time
	}
	if p.cause != "" {
		e.Data[journal.DataCause] = p.cause
	}
	if p.took > 0 {
		e.Data[DataDuration] = p.took.Round(time.Millisecond).String()
	}
	if c.New == git.ZeroID {
		e.Status, e.Message = journal.StatusInfo, "deleted "+c.Ref
	} else {
		e.Commit, e.Message = c.New, c.Ref
		// A tag's object names its commit. Of anything else there is no subject.
		if commit, err := repo.git.Commit(ctx, c.New); err == nil {
			e.Commit, e.Message = commit.ID, cut(commit.Subject, 200)
			e.Data[journal.DataSubject], e.Data[journal.DataAuthor] = e.Message, cut(commit.AuthorName, 100)
		}
	}
	_, err := f.deps.Journal.Append(ctx, e)
	return err
}

// cut shortens a text to at most n bytes at a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// setHead makes the first pushed branch the default one while the present
// default does not exist.
func (f *Forge) setHead(ctx context.Context, repo *repository, refs map[string]string, moved []refCommand) error {
	first := ""
	for _, c := range moved {
		if strings.HasPrefix(c.Ref, "refs/heads/") && c.New != git.ZeroID {
			first = c.Ref
			break
		}
	}
	if first == "" {
		return nil
	}
	head, err := f.head(ctx, repo)
	if err != nil {
		return err
	}
	if _, ok := refs["refs/heads/"+head]; ok {
		return nil
	}
	_, err = repo.git.Run(ctx, "symbolic-ref", "HEAD", first)
	return err
}

// head is the name of the default branch, which need not exist yet.
func (f *Forge) head(ctx context.Context, repo *repository) (string, error) {
	out, err := repo.git.Run(ctx, "symbolic-ref", "--quiet", "HEAD")
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "refs/heads/"), nil
}

func idOrZero(id string) string {
	if id == "" {
		return git.ZeroID
	}
	return id
}

// toldRefs returns the refs as the journal was last told.
func (f *Forge) toldRefs(ctx context.Context, repo *repository) (map[string]string, error) {
	rows, err := f.db.QueryContext(ctx, `select name, id from ref where repo = ?`, repo.key)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	refs := map[string]string{}
	for rows.Next() {
		var name, id string
		if err := rows.Scan(&name, &id); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		refs[name] = id
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return refs, nil
}

// refEvents are the events "create" and "delete" of the branches and tags that
// came and went.
func (f *Forge) refEvents(ctx context.Context, repo *repository, p *push, moved []refCommand) ([]Event, error) {
	var events []Event
	for _, c := range moved {
		if c.Old != git.ZeroID && c.New != git.ZeroID || p.actor == ActorUnknown {
			continue
		}
		kind, name := "branch", strings.TrimPrefix(c.Ref, "refs/heads/")
		if tag, ok := strings.CutPrefix(c.Ref, "refs/tags/"); ok {
			kind, name = "tag", tag
		}
		e := Event{Repo: repo.full(), Name: "create", Ref: c.Ref, Commit: c.New, Actor: p.actor, Cause: p.cause, Time: p.time}
		fields := map[string]any{"ref": name, "ref_type": kind, "pusher_type": "user"}
		if c.New == git.ZeroID {
			e.Name, e.Commit = "delete", c.Old
		} else {
			head, err := f.head(ctx, repo)
			if err != nil {
				return nil, err
			}
			fields["master_branch"], fields["description"] = head, repo.description
		}
		var err error
		if e.Payload, err = f.payload(ctx, repo, p.actor, "", fields); err != nil {
			return nil, err
		}
		if events = append(events, e); len(events) == 10 {
			break // as GitHub: a push of many refs has no such events for the rest
		}
	}
	return events, nil
}
