//go:build lockstep_nocluster

package bundle

import (
	"embed"
	"io/fs"
)

// The slim binary carries nothing: an empty file system.
func payload() fs.FS { return embed.FS{} }
