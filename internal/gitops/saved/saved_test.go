package saved

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("SAVED_CRASH"); path != "" {
		crash(path)
	}
	// The engine of engine_test.go leaves the timer of a work queue behind.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("k8s.io/client-go/util/workqueue.(*delayingType[...]).waitingLoop"))
}

var quiet = slog.New(slog.DiscardHandler)

func opened(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// run starts the writer; stop ends it and closes the store.
func (s *Store) start(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// sample is a render as a small real application has one.
func sample(n int) application.SavedRender {
	r := application.SavedRender{Format: 1, Params: fmt.Sprintf("%024x", n), Revisions: []string{fmt.Sprintf("%040x", n)}, Tools: []render.Tool{render.ToolKustomize}, Announced: fmt.Sprintf("%040x", n)}
	in := source.Inputs{}
	for _, name := range []string{"kustomization.yaml", "deployment.yaml", "service.yaml", "config.yaml", "ingress.yaml"} {
		in[fmt.Sprintf("apps/team-%d/app-%d/base/%s", n/100, n, name)] = fmt.Sprintf("%040x", n*31)
	}
	in[fmt.Sprintf("apps/team-%d/app-%d/base", n/100, n)] = "list:" + fmt.Sprintf("%032x", n)
	in[fmt.Sprintf("apps/team-%d/app-%d/base/Kustomization", n/100, n)] = "absent"
	r.Inputs = []source.Inputs{in}
	for i, kind := range []string{"Deployment", "Service", "ConfigMap", "Ingress"} {
		r.Objects = append(r.Objects, application.SavedObject{Group: "apps", Version: "v1", Kind: kind, Namespace: fmt.Sprintf("app-%d", n), Name: "web",
			File: fmt.Sprintf("apps/team-%d/app-%d/base/%s.yaml", n/100, n, strings.ToLower(kind)), Line: 1, Digest: plan.Digest{byte(i), byte(n)}, Raw: bytes.Repeat([]byte{byte(n), byte(i)}, 250)})
	}
	return r
}

func TestSavesAcrossRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "saved.db")
	s := opened(t, path)
	stop := s.start(t)
	for i := range 50 {
		s.Save(fmt.Sprint("argocd/", i), sample(i))
	}
	s.Save("argocd/7", sample(77)) // the newest counts
	s.Delete("argocd/8")
	if got, ok := s.Load("argocd/7"); !ok || !reflect.DeepEqual(got, sample(77)) {
		t.Errorf("before it is written: %v %+v", ok, got)
	}
	stop()
	s = opened(t, path)
	for i := range 50 {
		want, has := sample(i), i != 8
		if i == 7 {
			want = sample(77)
		}
		got, ok := s.Load(fmt.Sprint("argocd/", i))
		if ok != has || ok && !reflect.DeepEqual(got, want) {
			t.Fatalf("%d: %v\n%+v\n%+v", i, ok, got, want)
		}
	}
	if _, ok := s.Load("argocd/1"); ok {
		t.Error("it was handed out twice")
	}
	for _, name := range []string{path, path + ".key"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
}

// TestEveryField fails when the type gets a field that rows do not have.
func TestEveryField(t *testing.T) {
	var r application.SavedRender
	fill(reflect.ValueOf(&r).Elem(), new(int))
	key, err := openKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	row, err := encode("a", r, key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode("a", row, key)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Fatalf("%v\n%+v\n%+v", err, got, r)
	}
	if _, err := decode("b", row, key); err == nil {
		t.Error("the row of another application was opened")
	}
	for i := range row {
		bad := bytes.Clone(row)
		bad[i] ^= 1
		if _, err := decode("a", bad, key); err == nil {
			t.Fatalf("a damaged byte %d was not noticed", i)
		}
	}
}

// fill gives every field a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(k, n)
			fill(e, n)
			v.SetMapIndex(k, e)
		}
	case reflect.String:
		v.SetString(fmt.Sprint("value ", *n))
	case reflect.Int:
		v.SetInt(int64(*n))
	case reflect.Uint8:
		v.SetUint(uint64(*n % 256))
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("a field of kind " + v.Kind().String())
	}
}

func TestIdentities(t *testing.T) {
	for _, id := range []string{"", "absent", "list:", "list:abc", "list:" + strings.Repeat("ab", 16), strings.Repeat("0f", 20), strings.Repeat("0F", 20), "abc", "sha256:" + strings.Repeat("ab", 32), "1.2.3"} {
		w := &writer{}
		w.identity(id)
		if got := (&reader{data: w.data}).identity(); got != id {
			t.Errorf("%q became %q", id, got)
		}
	}
}

func TestNothingInClear(t *testing.T) {
	path := filepath.Join(t.TempDir(), "saved.db")
	s := opened(t, path)
	stop := s.start(t)
	r := sample(1)
	r.Objects[0].Raw = []byte("hunter2-is-the-password")
	s.Save("argocd/secret", r)
	stop()
	for _, suffix := range []string{"", "-wal"} {
		if data, err := os.ReadFile(path + suffix); err == nil && bytes.Contains(data, []byte("hunter2")) {
			t.Errorf("%s shows the secret", suffix)
		}
	}
	// Without the key the file is of no use, and of no harm.
	if err := os.WriteFile(path+".key", []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := opened(t, path).Load("argocd/secret"); ok {
		t.Error("it was opened with another key")
	}
}

func TestReplacesWhatCannotBeUsed(t *testing.T) {
	for name, spoil := range map[string]func(path string){
		"damaged": func(path string) {
			_ = os.WriteFile(path, bytes.Repeat([]byte("not a database "), 1000), 0o644)
		},
		"cut short": func(path string) { _ = os.Truncate(path, 700) },
		"of another format": func(path string) {
			f, _, err := open(context.Background(), path)
			if err != nil {
				panic(err)
			}
			_, _ = f.db.Exec(`pragma user_version = 99`)
			_ = f.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "saved.db")
			s := opened(t, path)
			stop := s.start(t)
			s.Save("argocd/a", sample(1))
			stop()
			spoil(path)
			s = opened(t, path)
			stop = s.start(t)
			if _, ok := s.Load("argocd/a"); ok {
				t.Error("it was used")
			}
			s.Save("argocd/a", sample(2))
			stop()
			if got, ok := opened(t, path).Load("argocd/a"); !ok || !reflect.DeepEqual(got, sample(2)) {
				t.Errorf("after it was replaced: %v %+v", ok, got)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v %v", info.Mode(), err)
			}
		})
	}
	if _, err := Open(t.Context(), filepath.Join(t.TempDir(), "no", "folder"), quiet); err == nil {
		t.Error("a folder that does not exist")
	}
}

func TestForgetsApplicationsThatAreGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "saved.db")
	s := opened(t, path)
	stop := s.start(t)
	s.Save("argocd/a", sample(1))
	s.Save("argocd/b", sample(2))
	stop()
	s = opened(t, path)
	stop = s.start(t)
	s.Load("argocd/a")
	s.dropUnread() // its time has come
	stop()
	s = opened(t, path)
	_, a := s.Load("argocd/a")
	_, b := s.Load("argocd/b")
	if !a || b {
		t.Errorf("a is there: %v, b: %v", a, b)
	}
}

func TestBoundsWhatWaits(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "saved.db"))
	for i := range maxQueued + 5 {
		s.Save(fmt.Sprint("argocd/", i), application.SavedRender{})
	}
	s.Save("argocd/1", application.SavedRender{Format: 7})
	if len(s.queue) != maxQueued || s.dropped != 5 || s.queue["argocd/1"].render.Format != 7 {
		t.Errorf("%d wait, %d dropped", len(s.queue), s.dropped)
	}
}

func TestConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "saved.db")
	s := opened(t, path)
	stop := s.start(t)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 200 {
				key := fmt.Sprint("argocd/", i%40)
				switch (i + worker) % 4 {
				case 0:
					s.Delete(key)
				case 1:
					s.Load(key)
				default:
					s.Save(key, sample(i))
				}
			}
		})
	}
	wg.Wait()
	for i := range 40 {
		s.Save(fmt.Sprint("argocd/", i), sample(i))
	}
	stop()
	s.Save("argocd/0", sample(99)) // after the end: nothing happens
	s = opened(t, path)
	for i := range 40 {
		if got, ok := s.Load(fmt.Sprint("argocd/", i)); !ok || !reflect.DeepEqual(got, sample(i)) {
			t.Errorf("%d: %v", i, ok)
		}
	}
}

// crash saves for ever, until it is killed.
func crash(path string) {
	s, err := Open(context.Background(), path, quiet)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() { _ = s.Run(context.Background()) }()
	for i := 0; ; i++ {
		s.Save(fmt.Sprint("argocd/", i%500), sample(i%500))
		if i%500 == 499 {
			fmt.Println("round")
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "saved.db")
	rows := 0
	for range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "SAVED_CRASH="+path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(700 * time.Millisecond) // in the middle of writes
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s, err := Open(t.Context(), path, slog.New(slog.NewTextHandler(failing{t}, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			got, ok := s.Load(fmt.Sprint("argocd/", i))
			if ok && !reflect.DeepEqual(got, sample(i)) {
				t.Errorf("%d is damaged", i)
			}
			if ok {
				rows++
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if rows == 0 {
		t.Error("nothing was ever written")
	}
}

type failing struct{ t *testing.T }

func (f failing) Write(p []byte) (int, error) {
	f.t.Errorf("after a crash: %s", p)
	return len(p), nil
}

func FuzzRow(f *testing.F) {
	key, err := openKey(filepath.Join(f.TempDir(), "key"))
	if err != nil {
		f.Fatal(err)
	}
	row, _ := encode("a", sample(1), key)
	plain, _ := key.open("a", row)
	f.Add(plain)
	f.Add([]byte{rowFormat})
	f.Fuzz(func(t *testing.T, plain []byte) {
		row, err := key.seal("a", plain)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = decode("a", row, key)
	})
}

// BenchmarkStart measures 10,000 applications: size, start, and loading all.
func BenchmarkStart(b *testing.B) {
	const n = 10_000
	path := filepath.Join(b.TempDir(), "saved.db")
	s := opened(b, path)
	stop := s.start(b)
	for i := range n {
		s.Save(fmt.Sprint("argocd/app-", i), sample(i))
	}
	stop()
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(b.Context(), path, quiet)
		if err != nil {
			b.Fatal(err)
		}
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range n {
			if _, ok := s.Load(fmt.Sprint("argocd/app-", i)); !ok {
				b.Fatal(i)
			}
		}
		_ = s.Close()
	}
	b.ReportMetric(float64(info.Size())/n, "disk-B/app")
}
