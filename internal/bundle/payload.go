//go:build !lockstep_nocluster

package bundle

import (
	"embed"
	"io/fs"
)

//go:embed all:payload
var embedded embed.FS

func payload() fs.FS {
	sub, err := fs.Sub(embedded, "payload")
	if err != nil {
		panic(err) // "payload" is a valid path
	}
	return sub
}
