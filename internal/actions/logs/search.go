package logs

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
)

// Query is a search in one log.
type Query struct {
	Text       string // literal
	Expression string // of Go's regexp, instead of Text
	IgnoreCase bool
	From       int64 // first line that is looked at, from 1
	Limit      int   // matches, at most 1000, which is also the meaning of 0
	MaxBytes   int64 // that are looked through at most; 0 is 256 MiB
}

// Found is the answer to a [Query].
type Found struct {
	Matches []Line
	// Next is where to search on, or 0 when the whole log was looked through.
	Next int64
}

// Search looks for lines. It stops at the query's bounds and says where to go
// on, so that a page stays quick however long the log is.
func (s *Store) Search(ctx context.Context, k Key, q Query) (Found, error) {
	match, err := q.compile()
	if err != nil {
		return Found{}, err
	}
	if q.Limit <= 0 || q.Limit > 1000 {
		q.Limit = 1000
	}
	if q.MaxBytes <= 0 {
		q.MaxBytes = 256 << 20
	}
	var found Found
	seen := int64(0)
	err = s.scan(ctx, k, Range{From: q.From}, func(n int64, raw []byte) bool {
		if seen > q.MaxBytes || len(found.Matches) == q.Limit {
			found.Next = n
			return false
		}
		seen += int64(len(raw)) + 1
		text := raw[min(stampLen, len(raw)):]
		if match(text) {
			t, _ := stampOf(raw)
			found.Matches = append(found.Matches, Line{n, t, string(text)})
		}
		return true
	})
	return found, err
}

func (q Query) compile() (func([]byte) bool, error) {
	expression := q.Expression
	switch {
	case (q.Text == "") == (expression == ""):
		return nil, fmt.Errorf("search: give either a text or an expression")
	case expression == "" && !q.IgnoreCase:
		text := []byte(q.Text)
		return func(line []byte) bool { return bytes.Contains(line, text) }, nil
	case expression == "":
		expression = regexp.QuoteMeta(q.Text)
	}
	if q.IgnoreCase {
		expression = "(?i)" + expression
	}
	e, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("search: the expression is not valid: %w", err)
	}
	return e.Match, nil
}
