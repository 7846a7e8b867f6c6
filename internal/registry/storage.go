package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

// driverName is how Distribution's configuration names our storage driver.
const driverName = "lockstepfilesystem"

// registerDriver tells Distribution about the driver. Distribution finds
// drivers only through its process-wide table, which must be written once.
var registerDriver = sync.OnceFunc(func() { factory.Register(driverName, driverFactory{}) })

type driverFactory struct{}

func (driverFactory) Create(_ context.Context, parameters map[string]any) (storagedriver.StorageDriver, error) {
	dir, ok := parameters["rootdirectory"].(string)
	if !ok {
		return nil, errors.New("registry storage: rootdirectory is missing")
	}
	return newDriver(dir), nil
}

// driver is Distribution's filesystem driver made safe against a power cut.
// Upstream syncs the content of files, but not the directories through which a
// moved blob and a new repository are found.
type driver struct {
	*filesystem.Driver
	dir string
}

func newDriver(dir string) *driver {
	return &driver{Driver: filesystem.New(filesystem.DriverParameters{RootDirectory: dir, MaxThreads: 100}), dir: dir}
}

// PutContent writes a file, durably.
func (d *driver) PutContent(ctx context.Context, path string, content []byte) error {
	settled := d.settled(path)
	if err := d.Driver.PutContent(ctx, path, content); err != nil {
		return err
	}
	return d.syncUpTo(path, settled)
}

// Move renames a file, durably.
func (d *driver) Move(ctx context.Context, from, to string) error {
	settled := d.settled(to)
	if err := d.Driver.Move(ctx, from, to); err != nil {
		return err
	}
	return d.syncUpTo(to, settled)
}

// settled is the nearest directory above path that is there already.
func (d *driver) settled(path string) string {
	dir := filepath.Dir(filepath.Join(d.dir, path))
	for dir != d.dir && dir != "/" {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// syncUpTo syncs the directories from that of path up to settled.
func (d *driver) syncUpTo(path, settled string) error {
	dir := filepath.Dir(filepath.Join(d.dir, path))
	for {
		if err := syncDir(dir); err != nil {
			return fmt.Errorf("registry storage: %w", err)
		}
		if dir == settled || dir == d.dir || dir == "/" {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// app is Distribution over one folder.
type app struct {
	handler http.Handler
	store   distribution.Namespace // reads the same folder, for Catalog and Tags
	stop    func() error
}

// newApp starts Distribution. It reports a wrong configuration by panicking;
// here that is an error.
func newApp(dir string) (a *app, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("start registry in %s: %v", dir, p)
		}
	}()
	registerDriver()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := handlers.NewApp(ctx, configure(dir))
	store, err := storage.NewRegistry(ctx, newDriver(dir))
	if err != nil {
		cancel()
		return nil, errors.Join(err, d.Shutdown())
	}
	return &app{handler: d, store: store, stop: func() error {
		cancel()
		return d.Shutdown()
	}}, nil
}

func (a *app) close() error { return a.stop() }

// configure is Distribution's configuration for one folder.
func configure(dir string) *configuration.Configuration {
	c := &configuration.Configuration{
		Storage: configuration.Storage{
			driverName: {"rootdirectory": dir},
			"delete":   {"enabled": true},
			"redirect": {"disable": true},
			"cache":    {"blobdescriptor": "inmemory"},
		},
	}
	// Locations stay valid behind whichever name and scheme the client used.
	c.HTTP.RelativeURLs = true
	c.Catalog.MaxEntries = maxCatalog
	c.Validation.Manifests.URLs.Allow = []string{"^https?://"}
	return c
}
