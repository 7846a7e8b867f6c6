package store

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/box"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestAnEventStartsAWorkflowOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	runs := []Start{{Run: Run{Repo: "o/r", File: "a.yml", EventID: 7, Status: Queued, Commit: "abc"}}, {Run: Run{Repo: "o/r", File: "b.yml", EventID: 7, Status: Queued}}}
	first, err := s.Consume(t.Context(), FromJournal, 7, runs, nil)
	if err != nil || len(first) != 2 || first[0].Number != 1 || first[0].ID == 0 {
		t.Fatalf("%+v %v", first, err)
	}
	again, err := s.Consume(t.Context(), FromJournal, 7, runs, nil)
	if err != nil || len(again) != 0 {
		t.Errorf("second time: %+v %v", again, err)
	}
	if _, err := s.Consume(t.Context(), FromJournal, 3, nil, nil); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Cursor(t.Context(), FromJournal); err != nil || c != 7 {
		t.Errorf("cursor %d %v", c, err)
	}
	_ = s.Close()
	s = open(t, dir)
	if c, _ := s.Cursor(t.Context(), FromJournal); c != 7 {
		t.Errorf("cursor after a restart: %d", c)
	}
	r, err := s.CreateRun(t.Context(), Run{Repo: "o/r", File: "a.yml", Status: Queued}, nil)
	if err != nil || r.Number != 2 {
		t.Errorf("%+v %v", r, err)
	}
	list, err := s.Runs(t.Context(), Filter{Repo: "O/R", Commit: "ab"})
	if err != nil || len(list) != 1 || list[0].File != "a.yml" {
		t.Errorf("%+v %v", list, err)
	}
	if _, err := s.Run(t.Context(), 99); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown run: %v", err)
	}
}

func TestPruneKeepsTheNewest(t *testing.T) {
	s := open(t, t.TempDir())
	for i := range 6 {
		r := Run{Repo: "o/r", File: "a.yml", Status: Completed}
		if i == 0 {
			r.File = "rare.yml"
		}
		if i == 1 {
			r.Status = Queued
		}
		created, err := s.CreateRun(t.Context(), r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Change(t.Context(), false, func(tx *Tx) error { return tx.SaveJob(&Job{RunID: created.ID, Attempt: 1}) }); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := s.Prune(t.Context(), 2)
	if err != nil || len(ids) != 2 || ids[0] != 3 || ids[1] != 4 {
		t.Errorf("deleted %v %v", ids, err)
	}
	if jobs, _ := s.Jobs(t.Context(), 3, 1); len(jobs) != 0 {
		t.Errorf("jobs are left: %v", jobs)
	}
}

func TestSecretsAreEncryptedAtRest(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const value = "correct-horse-battery-staple"
	if created, err := s.SetSecret(t.Context(), "o/r", "token", []byte(value)); err != nil || !created {
		t.Fatal(created, err)
	}
	if created, err := s.SetSecret(t.Context(), "O/R", "TOKEN", []byte(value)); err != nil || created {
		t.Fatal(created, err)
	}
	if got, err := s.Secrets(t.Context(), "O/r"); err != nil || got["TOKEN"] != value {
		t.Errorf("%v %v", got, err)
	}
	if list, err := s.ListSecrets(t.Context(), "o/r"); err != nil || len(list) != 1 || list[0].Value != "" {
		t.Errorf("%+v %v", list, err)
	}
	_ = s.Close()
	files, _ := filepath.Glob(dir + "/*")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(value)) {
			t.Errorf("%s holds the plain value", f)
		}
	}
	if fi, err := os.Stat(dir + "/secrets.key"); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", fi.Mode(), err)
	}
	s = open(t, dir)
	if got, err := s.Secrets(t.Context(), "o/r"); err != nil || got["TOKEN"] != value {
		t.Errorf("after a restart: %v %v", got, err)
	}
	if err := s.DeleteSecret(t.Context(), "o/r", "token"); err != nil {
		t.Error(err)
	}
	if err := s.DeleteSecret(t.Context(), "o/r", "token"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second delete: %v", err)
	}
}

func TestSealedBox(t *testing.T) {
	s := open(t, t.TempDir())
	_, key := s.PublicKey()
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(raw) != 32 {
		t.Fatal(err)
	}
	sealed, err := box.SealAnonymous(nil, []byte("hello"), (*[32]byte)(raw), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Unseal(base64.StdEncoding.EncodeToString(sealed)); err != nil || string(got) != "hello" {
		t.Errorf("%q %v", got, err)
	}
	for _, bad := range []string{"%", "aGVsbG8=", ""} {
		if _, err := s.Unseal(bad); err == nil {
			t.Errorf("%q was opened", bad)
		}
	}
}

func TestNames(t *testing.T) {
	s := open(t, t.TempDir())
	for _, bad := range []string{"", "1A", "a-b", "GITHUB_X", "github_x", strings.Repeat("a", 256)} {
		if _, err := s.SetVariable(t.Context(), "o/r", bad, "v"); err == nil {
			t.Errorf("%q is allowed", bad)
		}
	}
	if _, err := s.SetVariable(t.Context(), "o/r", "a", strings.Repeat("x", maxVariable+1)); err == nil {
		t.Error("a huge variable is allowed")
	}
}
