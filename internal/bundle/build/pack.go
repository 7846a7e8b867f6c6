package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/lockstep-gitops/lockstep/internal/bundle"
)

// pack compresses the named programs of dir `from` into dir `to` and writes
// the index last, so that an interrupted run is completed by the next one.
func pack(from, to string, names []string) error {
	old, err := readIndex(to)
	if err != nil {
		return err
	}
	index := bundle.Index{}
	for _, name := range names {
		have, err := describe(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		index[name] = have
		packed := filepath.Join(to, name+".zst")
		if _, err := os.Stat(packed); err == nil && old[name] == have {
			continue
		}
		begin := time.Now()
		if err := compress(filepath.Join(from, name), packed); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		fmt.Printf("packed %-62s %6.1fs\n", name, time.Since(begin).Seconds())
	}
	if err := removeOthers(to, index); err != nil {
		return err
	}
	body, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(to, bundle.IndexFile), append(body, '\n'))
}

// removeOthers deletes programs that are carried no more: everything in the
// folder is embedded.
func removeOthers(dir string, index bundle.Index) error {
	packed, err := filepath.Glob(filepath.Join(dir, "*.zst*"))
	if err != nil {
		return err
	}
	for _, file := range packed {
		if _, wanted := index[strings.TrimSuffix(filepath.Base(file), ".zst")]; wanted {
			continue
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

func readIndex(dir string) (bundle.Index, error) {
	body, err := os.ReadFile(filepath.Join(dir, bundle.IndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var index bundle.Index
	if json.Unmarshal(body, &index) != nil {
		return nil, nil // damaged: pack everything again
	}
	return index, nil
}

func describe(path string) (bundle.Program, error) {
	f, err := os.Open(path)
	if err != nil {
		return bundle.Program{}, err
	}
	defer f.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	return bundle.Program{SHA256: hex.EncodeToString(hash.Sum(nil)), Size: n}, err
}

func compress(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to + ".tmp")
	if err != nil {
		return err
	}
	enc, err := zstd.NewWriter(dst, zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return errors.Join(err, dst.Close())
	}
	_, err = io.Copy(enc, src)
	if err := errors.Join(err, enc.Close(), dst.Close()); err != nil {
		return err
	}
	return os.Rename(to+".tmp", to)
}

// replace writes a file unless it has that content already: its time of
// change makes Go embed it again.
func replace(path string, body []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, body) {
		return nil
	}
	if err := os.WriteFile(path+".tmp", body, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
