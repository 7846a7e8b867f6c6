package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"os"
	"strings"
)

// Shop answers the requests of the storefront.
type Shop struct {
	Greeting   string
	Version    string
	SecretFile string // mounted by the Secrets Store CSI driver
}

// State is what the page shows. It never holds the secret itself.
type State struct {
	Greeting string `json:"greeting"`
	Version  string `json:"version"`
	Host     string `json:"host"`
	// Secret is the start of the secret's SHA-256: enough to see that a
	// rotation arrived, useless for anything else.
	Secret string `json:"secret"`
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{.Greeting}}</title>
<style>:root{color-scheme:light dark}body{font:1.1rem/1.6 system-ui;max-width:40rem;margin:15vh auto;padding:0 1rem}
code{background:color-mix(in srgb,currentColor 10%,transparent);padding:.1em .4em;border-radius:.3em}</style>
<h1>{{.Greeting}}</h1>
<p>Version <code>{{.Version}}</code>, answered by <code>{{.Host}}</code>.</p>
<p>Payment key from Key Vault: <code>sha256:{{.Secret}}…</code></p>
`))

// Handler serves the page, the same facts as JSON, and the health checks.
func (s Shop) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /api/state", s.state)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := s.fingerprint(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return mux
}

func (s Shop) home(w http.ResponseWriter, _ *http.Request) {
	state, err := s.current()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, state)
}

func (s Shop) state(w http.ResponseWriter, _ *http.Request) {
	state, err := s.current()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(state)
}

func (s Shop) current() (State, error) {
	secret, err := s.fingerprint()
	if err != nil {
		return State{}, err
	}
	host, _ := os.Hostname()
	return State{Greeting: s.Greeting, Version: s.Version, Host: host, Secret: secret}, nil
}

// fingerprint reads the secret anew each time, so that a rotated secret is
// used without a restart.
func (s Shop) fingerprint() (string, error) {
	secret, err := os.ReadFile(s.SecretFile)
	if err != nil {
		return "", fmt.Errorf("read the payment key: %w", err)
	}
	if strings.TrimSpace(string(secret)) == "" {
		return "", fmt.Errorf("read the payment key: %s is empty", s.SecretFile)
	}
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:6]), nil
}
