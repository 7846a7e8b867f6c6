package forge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// proposal is a set of refs that are about to move. Its objects can be read and
// are not yet accepted.
type proposal struct {
	repo       *repository
	by         Identity
	commands   []refCommand
	options    []string // git push -o
	quarantine string   // directory with the new objects; "" when they are in the repository
	viaPull    bool     // the merge of a pull request whose conditions were checked
}

// verdict is what becomes of a proposal: it is refused when there is a refusal.
type verdict struct {
	refusals []string // one line each, or several
	notes    []string // for the pusher to know
}

func (v verdict) refused() bool { return len(v.refusals) > 0 }

// text is what the pusher reads, one line after the other, without control characters.
func (v verdict) text() string {
	var out strings.Builder
	for _, list := range []struct {
		prefix string
		lines  []string
	}{{"error: ", v.refusals}, {"", v.notes}} {
		for _, entry := range list.lines {
			for line := range strings.Lines(entry) {
				out.WriteString(list.prefix + printable(cut(strings.TrimSuffix(line, "\n"), 500)) + "\n")
			}
		}
	}
	return out.String()
}

// printable keeps what a pusher named from steering other people's terminals.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return '?'
		}
		return c
	}, s)
}

// refusedError is a verdict against what the forge itself was to do.
type refusedError struct{ verdict verdict }

// Error implements error.
func (e *refusedError) Error() string { return strings.Join(e.verdict.refusals, "\n") }

// judge decides on a proposal. The caller holds the repository's lock.
func (f *Forge) judge(ctx context.Context, p proposal) (verdict, error) {
	var v verdict
	if p.repo.settings.Archived {
		v.refusals = append(v.refusals, "This repository was archived so it is read-only.")
		return v, nil
	}
	for _, c := range p.commands {
		if reason := hostileRef(c); reason != "" {
			v.refusals = append(v.refusals, reason)
		}
	}
	if v.refused() {
		return v, nil
	}
	if err := f.judgeRules(ctx, p, &v); err != nil || v.refused() {
		return v, err
	}
	if err := f.judgeContent(ctx, p, &v); err != nil || v.refused() {
		return v, err
	}
	refusals, err := f.review(ctx, p)
	for i, text := range refusals {
		if i == 20 {
			v.refusals = append(v.refusals, fmt.Sprintf("… and %d more", len(refusals)-i))
			break
		}
		v.refusals = append(v.refusals, text)
	}
	return v, err
}

// hostileRef says why a ref must not get its name; "" when it may.
func hostileRef(c refCommand) string {
	if c.New == git.ZeroID {
		return "" // what is there may go
	}
	name, isBranch := strings.CutPrefix(c.Ref, "refs/heads/")
	if !isBranch {
		name = strings.TrimPrefix(c.Ref, "refs/tags/")
	}
	switch {
	case objectID.MatchString(name):
		return fmt.Sprintf("GH002: a branch or tag can't be named like a commit: %s", name)
	case name == "HEAD" || strings.HasPrefix(name, "-"):
		return fmt.Sprintf("a branch or tag can't be named %q: git would take it for something else", name)
	case strings.HasPrefix(name, "refs/heads/") || strings.HasPrefix(name, "refs/tags/"):
		return fmt.Sprintf("a branch or tag can't be named %q: it begins like a full ref name", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r == 0xfffd || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 }):
		return fmt.Sprintf("%+q is no name for a branch or tag: it has characters that hide others or is not UTF-8", name)
	}
	return ""
}

// judgeRules holds a proposal against the protection of its branches.
func (f *Forge) judgeRules(ctx context.Context, p proposal, v *verdict) error {
	for _, c := range p.commands {
		rules, err := f.rulesFor(ctx, p.repo, c.Ref)
		if err != nil {
			return err
		}
		if rules == nil {
			continue
		}
		broken, err := f.brokenRules(ctx, p, c, rules)
		if err != nil {
			return err
		}
		admin := !rules.EnforceAdmins && p.by.mayAdminister(p.repo.key)
		var hard, soft []string
		for _, b := range broken {
			if b.soft && admin {
				soft = append(soft, b.text)
			} else {
				hard = append(hard, b.text)
			}
		}
		if len(hard) > 0 {
			v.refusals = append(v.refusals, "GH006: Protected branch update failed for "+c.Ref+".")
			v.refusals = append(v.refusals, hard...)
		} else if len(soft) > 0 {
			v.notes = append(v.notes, "Bypassed rule violations for "+c.Ref+":")
			for _, text := range soft {
				v.notes = append(v.notes, "- "+text)
			}
		}
	}
	return nil
}

// brokenRule is a rule that a command breaks. Administrators may break the soft
// ones unless rules are enforced for them too.
type brokenRule struct {
	text string
	soft bool
}

func (f *Forge) brokenRules(ctx context.Context, p proposal, c refCommand, rules *branchRules) ([]brokenRule, error) {
	var broken []brokenRule
	add := func(soft bool, format string, args ...any) {
		broken = append(broken, brokenRule{fmt.Sprintf(format, args...), soft})
	}
	if c.New == git.ZeroID {
		if !rules.AllowDeletions {
			add(false, "Cannot delete a protected branch.")
		}
		return broken, nil
	}
	if c.Old == git.ZeroID && rules.BlockCreations {
		add(true, "Creating branches of this name is restricted.")
	}
	if rules.LockBranch {
		add(true, "The branch is locked: it is read-only.")
	}
	if c.Old != git.ZeroID && !rules.AllowForcePushes {
		forced, err := f.forced(ctx, p, c)
		if err != nil {
			return nil, err
		}
		if forced {
			add(false, "Cannot force-push to a protected branch.")
		}
	}
	if rules.Restricted && !slices.ContainsFunc(rules.Pushers, func(login string) bool {
		return strings.EqualFold(login, p.by.Actor) || strings.EqualFold(login, p.by.User)
	}) {
		add(true, "%s is not among those who may push to this branch.", p.by.Actor)
	}
	if rules.LinearHistory {
		merge, err := f.firstMerge(ctx, p, c)
		if err != nil {
			return nil, err
		}
		if merge != "" {
			add(true, "This branch must not contain merge commits: %s is one.", merge)
		}
	}
	if p.viaPull || c.Old == git.ZeroID {
		return broken, nil
	}
	if rules.RequirePull {
		add(true, "Changes must be made through a pull request.")
	}
	if rules.RequireChecks {
		missing, err := f.missingChecks(ctx, p.repo, c.New, rules)
		if err != nil {
			return nil, err
		}
		for _, text := range missing {
			add(true, "%s", text)
		}
	}
	return broken, nil
}

// missingChecks says which required checks a commit has not passed.
func (f *Forge) missingChecks(ctx context.Context, repo *repository, sha string, rules *branchRules) ([]string, error) {
	if len(rules.Contexts) == 0 {
		return nil, nil
	}
	states, err := f.contextStates(ctx, repo, sha)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, name := range rules.Contexts {
		switch state := states[name]; state {
		case "success", "neutral", "skipped":
		case "":
			missing = append(missing, fmt.Sprintf("Required status check %q is expected.", name))
		default:
			missing = append(missing, fmt.Sprintf("Required status check %q is %s.", name, state))
		}
	}
	return missing, nil
}

// contextStates is what each status context and check run says of a commit.
func (f *Forge) contextStates(ctx context.Context, repo *repository, sha string) (map[string]string, error) {
	all, err := f.statuses(ctx, repo, sha, true)
	if err != nil {
		return nil, err
	}
	states, err := f.checkStates(ctx, repo, sha)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		states[s.Context] = s.State
	}
	return states, nil
}

// forced reports whether a command leaves commits of the branch behind.
func (f *Forge) forced(ctx context.Context, p proposal, c refCommand) (bool, error) {
	out, err := f.gitOn(ctx, p, nil, "rev-list", "--max-count=1", c.Old, "^"+c.New, "--")
	return len(out) > 0, err
}

// firstMerge is a merge commit among those that a command adds, or "".
func (f *Forge) firstMerge(ctx context.Context, p proposal, c refCommand) (string, error) {
	args := []string{"rev-list", "--max-count=1", "--merges", c.New}
	if c.Old != git.ZeroID {
		args = append(args, "^"+c.Old)
	} else {
		args = append(args, "--not", "--all")
	}
	out, err := f.gitOn(ctx, p, nil, append(args, "--")...)
	return cut(strings.TrimSpace(string(out)), 12), err
}

// gitOn runs git where the objects of a proposal can be read and returns what it
// writes, at most maxGitOutput bytes.
func (f *Forge) gitOn(ctx context.Context, p proposal, stdin []byte, args ...string) ([]byte, error) {
	var env []string
	if p.quarantine != "" {
		env = []string{"GIT_OBJECT_DIRECTORY=" + p.quarantine, "GIT_ALTERNATE_OBJECT_DIRECTORIES=" + p.repo.git.Dir() + "/objects"}
	}
	return f.gitIn(ctx, p.repo, env, stdin, args...)
}

var errOutput = errors.New("git wrote more than can be read at once")
