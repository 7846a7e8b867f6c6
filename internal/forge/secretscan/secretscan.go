// Package secretscan finds secrets of well-known shapes in a file.
//
// Input: the content of a file. Output: which kind of secret stands on which
// line; never the secret itself.
//
// Invariants: pure, and time that grows with the size of the file only: a file
// without one of the fixed texts that secrets begin with is never looked at by
// a regular expression. Only shapes that hardly anything else has are known;
// private keys are not among them, as test data is full of them.
//
// Start reading at [Scan].
package secretscan

import (
	"bytes"
	"regexp"
	"sync"
)

// Finding is one secret.
type Finding struct {
	Kind string // "GitHub token"
	Line int    // from 1
}

// maxFindings bounds the findings of one file.
const maxFindings = 20

// shape is a kind of secret. mark is a text that each of them holds.
type shape struct {
	kind, mark string
	pattern    *regexp.Regexp
	before     int // bytes before mark that the pattern may take
	near       *regexp.Regexp
}

// known is made at the first scan: most runs of the program scan nothing.
var known = sync.OnceValue(func() *index { return newIndex(shapes()) })

// index finds marks in one pass. For each pair of bytes that stands in a mark it has the
// shapes to try.
type index struct {
	pairs [1 << 16]bool
	by    map[uint16][]shape
}

// newIndex files each shape by the last pair of its mark, which is rarer in text than the first.
func newIndex(all []shape) *index {
	x := &index{by: map[uint16][]shape{}}
	for _, s := range all {
		n := len(s.mark)
		pair := uint16(s.mark[n-2])<<8 | uint16(s.mark[n-1])
		x.pairs[pair] = true
		x.by[pair] = append(x.by[pair], s)
	}
	return x
}

// shapes are what is known. The patterns are matched with the text around a mark,
// so they are short.
func shapes() []shape {
	return []shape{
		{kind: "GitHub token", mark: "ghp_", pattern: regexp.MustCompile(`\bghp_[A-Za-z0-9]{36}\b`)},
		{kind: "GitHub token", mark: "gho_", pattern: regexp.MustCompile(`\bgho_[A-Za-z0-9]{36}\b`)},
		{kind: "GitHub token", mark: "ghs_", pattern: regexp.MustCompile(`\bghs_[A-Za-z0-9]{36}\b`)},
		{kind: "GitHub token", mark: "ghu_", pattern: regexp.MustCompile(`\bghu_[A-Za-z0-9]{36}\b`)},
		{kind: "GitHub token", mark: "ghr_", pattern: regexp.MustCompile(`\bghr_[A-Za-z0-9]{36,76}\b`)},
		{kind: "GitHub fine-grained token", mark: "github_pat_", pattern: regexp.MustCompile(`\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b`)},
		{kind: "Lockstep token", mark: "lockstep_", pattern: regexp.MustCompile(`\blockstep_[A-Za-z0-9_-]{43}`)},
		{kind: "GitLab token", mark: "glpat-", pattern: regexp.MustCompile(`\bglpat-[A-Za-z0-9_-]{20,}`)},
		{kind: "AWS access key with its secret", mark: "AKIA", pattern: regexp.MustCompile(`\bAKIA[A-Z0-9]{16}\b`),
			near: regexp.MustCompile(`(?i)secret[a-z_" ]*[:=]["' ]*[A-Za-z0-9/+]{40}\b`)},
		{kind: "Azure storage account key", mark: "AccountKey=", pattern: regexp.MustCompile(`AccountKey=[A-Za-z0-9+/]{86}==`)},
		{kind: "Azure Entra client secret", mark: "Q~", before: 8, pattern: regexp.MustCompile(`(?:^|[^A-Za-z0-9_~.-])[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}(?:$|[^A-Za-z0-9_~.-])`)},
		{kind: "Google API key", mark: "AIza", pattern: regexp.MustCompile(`\bAIza[A-Za-z0-9_-]{35}`)},
		{kind: "Slack token", mark: "xox", pattern: regexp.MustCompile(`\bxox[bpars]-[0-9]{10,13}-[A-Za-z0-9-]{20,}`)},
		{kind: "Slack webhook", mark: "hooks.slack.com/services/", pattern: regexp.MustCompile(`hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}`)},
		{kind: "Stripe live key", mark: "_live_", before: 2, pattern: regexp.MustCompile(`\b[sr]k_live_[A-Za-z0-9]{24,}`)},
		{kind: "npm token", mark: "npm_", pattern: regexp.MustCompile(`\bnpm_[A-Za-z0-9]{36}\b`)},
		{kind: "PyPI token", mark: "pypi-AgEIcHlwaS5vcmc", pattern: regexp.MustCompile(`pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}`)},
		{kind: "Docker Hub token", mark: "dckr_pat_", pattern: regexp.MustCompile(`\bdckr_pat_[A-Za-z0-9_-]{27}`)},
		{kind: "SendGrid key", mark: "SG.", pattern: regexp.MustCompile(`\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}`)},
		{kind: "HashiCorp Vault token", mark: "hvs.", pattern: regexp.MustCompile(`\bhvs\.[A-Za-z0-9_-]{90,}`)},
		{kind: "DigitalOcean token", mark: "dop_v1_", pattern: regexp.MustCompile(`\bdop_v1_[a-f0-9]{64}\b`)},
	}
}

// Scan returns the secrets in data, by line, at most 20. A file with a NUL in its first 8,000
// bytes is binary and has none.
func Scan(data []byte) []Finding {
	if bytes.IndexByte(data[:min(len(data), 8000)], 0) >= 0 {
		return nil
	}
	x := known()
	var found []Finding
	var pair uint16
	for end, c := range data {
		if pair = pair<<8 | uint16(c); !x.pairs[pair] || end == 0 {
			continue
		}
		for _, s := range x.by[pair] {
			at := end + 1 - len(s.mark)
			if at < 0 || string(data[at:end+1]) != s.mark || !s.at(data, at) {
				continue
			}
			found = append(found, Finding{Kind: s.kind, Line: 1 + bytes.Count(data[:at], []byte("\n"))})
			if len(found) == maxFindings {
				return found
			}
		}
	}
	return found
}

// at reports whether a secret of the shape is around its mark at an offset.
func (s shape) at(data []byte, at int) bool {
	from, to := max(0, at-s.before-1), min(len(data), at+400)
	match := s.pattern.Find(data[from:to])
	if match == nil || bytes.Contains(match, []byte("EXAMPLE")) || plain(match[min(len(match), len(s.mark)):]) {
		return false
	}
	if s.near == nil {
		return true
	}
	return s.near.Match(data[max(0, at-300):min(len(data), at+300)])
}

// plain reports whether a text is a placeholder: a secret has many different
// characters.
func plain(text []byte) bool {
	var seen [256]bool
	n := 0
	for _, c := range text {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n < 8
}
