// Package web holds the status page: hand-written HTML, CSS and JavaScript
// modules without a build step. Input: none. Output: [Files], for
// internal/server to serve. The page reads /api/v1 and follows one stream of
// events; it changes nothing. Start reading at page/index.html, then
// page/main.js.
package web

import (
	"embed"
	"io/fs"
)

//go:embed page
var embedded embed.FS

// Files are the page's files, "index.html" first.
func Files() (fs.FS, error) { return fs.Sub(embedded, "page") }
