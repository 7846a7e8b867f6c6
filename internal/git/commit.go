package git

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseCommit decodes a commit object with the given id. A missing or damaged
// time is the zero time, as old histories have such commits.
func ParseCommit(id string, data []byte) (Commit, error) {
	head, message, _ := bytes.Cut(data, []byte("\n\n"))
	c := Commit{ID: id}
	for line := range strings.Lines(string(head)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch key {
		case "tree":
			c.Tree = value
		case "parent":
			c.Parents = append(c.Parents, value)
		case "author":
			c.AuthorName, c.AuthorEmail, c.AuthorTime = parseSignature(value)
		case "committer":
			c.CommitterName, c.CommitterEmail, c.CommitterTime = parseSignature(value)
		}
	}
	if c.Tree == "" {
		return Commit{}, fmt.Errorf("commit object %s is damaged: it names no tree", id)
	}
	text := strings.ToValidUTF8(strings.TrimLeft(string(message), "\n"), "\uFFFD")
	// As git does, the subject is the first paragraph on one line.
	subject, body, _ := strings.Cut(text, "\n\n")
	c.Subject = strings.Join(strings.FieldsFunc(subject, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
	c.Subject = strings.TrimSpace(c.Subject)
	c.Message = strings.TrimRight(text, "\n")
	c.Body = strings.TrimSpace(body)
	return c, nil
}

// parseSignature splits "Name <email> 1700000000 +0100".
func parseSignature(s string) (name, email string, at time.Time) {
	s = strings.ToValidUTF8(s, "\uFFFD")
	name, rest, ok := strings.Cut(s, "<")
	if !ok {
		return strings.TrimSpace(s), "", time.Time{}
	}
	email, rest, _ = strings.Cut(rest, ">")
	name = strings.TrimSpace(name)
	if f := strings.Fields(rest); len(f) > 0 {
		if sec, err := strconv.ParseInt(f[0], 10, 64); err == nil {
			at = time.Unix(sec, 0).UTC()
		}
	}
	return name, email, at
}
