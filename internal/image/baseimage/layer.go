package baseimage

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is one file of a layer. Exactly one of data, file, link and dir says
// what it is.
type entry struct {
	path string // without leading slash
	mode int64
	dir  bool
	data []byte
	file string // read from here
	size int64  // of file
	link string // symbolic link to
}

// fileLayer is a layer in a tar file. It is not compressed: it only travels
// inside this machine, where packing would take longer than it saves.
type fileLayer struct {
	path   string
	size   int64
	digest v1.Hash
}

var _ v1.Layer = (*fileLayer)(nil)

func (l *fileLayer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *fileLayer) DiffID() (v1.Hash, error)             { return l.digest, nil }
func (l *fileLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }
func (l *fileLayer) Size() (int64, error)                 { return l.size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }

// writeLayer writes entries as a tar file at path, in their order.
func writeLayer(path string, entries []entry) (_ *fileLayer, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	buffer := bufio.NewWriterSize(f, 1<<20)
	t := tar.NewWriter(io.MultiWriter(buffer, sum))
	for _, e := range entries {
		if err := writeEntry(t, e); err != nil {
			return nil, fmt.Errorf("layer file %s: %w", e.path, err)
		}
	}
	if err := errors.Join(t.Close(), buffer.Flush()); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &fileLayer{path: path, size: info.Size(), digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}}, nil
}

func writeEntry(t *tar.Writer, e entry) error {
	h := &tar.Header{Name: e.path, Mode: e.mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch {
	case e.dir:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(e.path, "/")+"/"
	case e.link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
	case e.file != "":
		h.Typeflag, h.Size = tar.TypeReg, e.size
	default:
		h.Typeflag, h.Size = tar.TypeReg, int64(len(e.data))
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	if e.file == "" {
		_, err := t.Write(e.data)
		return err
	}
	f, err := os.Open(e.file)
	if err != nil {
		return err
	}
	_, err = io.CopyN(t, f, e.size)
	return errors.Join(err, f.Close())
}
