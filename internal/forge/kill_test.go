package forge

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// childDir names the state directory of a forge in a process of its own.
const childDir = "LOCKSTEP_TEST_FORGE_DIR"

// serveChild runs a forge until it is killed, and prints its address.
func serveChild(dir string) {
	j, err := journal.Open(context.Background(), filepath.Join(dir, "journal.db"))
	if err != nil {
		log.Fatal(err)
	}
	f, err := New(Config{Dir: filepath.Join(dir, "forge")}, Deps{Journal: j})
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(f.Run(context.Background())) }()
	<-f.Ready()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("http://" + listener.Addr().String())
	log.Fatal(http.Serve(listener, f.Handler()))
}

// TestKill9 kills the forge at random moments of pushes. Whatever the moment,
// afterwards the events of a branch are a chain without gaps or doubles from
// nothing to where the branch is, and every acknowledged push is among them.
func TestKill9(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	h := newHouse(t) // makes the state, and checks it in the end
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main")
	h.stop()
	acked := map[string]bool{}
	interrupted := 0
	for round := range 6 {
		child := exec.Command(os.Args[0], "-test.run=^$")
		child.Env = append(os.Environ(), childDir+"="+h.dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		child.Stderr = t.Output()
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		address, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		remote := strings.Replace(strings.TrimSpace(address), "http://", "http://x:"+h.token+"@", 1) + "/a/b.git"
		kill := time.AfterFunc(time.Duration(80+rand.IntN(250))*time.Millisecond, func() { _ = child.Process.Kill() })
		for i := range 50 {
			id := h.commit(dir, "file", fmt.Sprint(round, i), fmt.Sprintf("Commit %d of round %d", i, round))
			if _, err := h.tryGit(dir, "push", "-q", remote, "HEAD:main", fmt.Sprintf("HEAD:refs/tags/%d-%d", round, i)); err != nil {
				interrupted++
				break
			}
			acked[id] = true
		}
		kill.Stop()
		_ = child.Process.Kill()
		_ = child.Wait()
	}
	h = openHouse(t, h.dir)
	repo, err := h.Repository(t.Context(), "a/b")
	if err != nil {
		t.Fatal(err)
	}
	refs, err := repo.Refs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at, unknown := map[string]string{}, 0
	for _, e := range h.pushes("a/b") {
		if e.Data[journal.DataBefore] != idOrZero(at[e.Subject]) {
			t.Errorf("event %d of %s begins at %s, but the one before ended at %s", e.ID, e.Subject, e.Data[journal.DataBefore], idOrZero(at[e.Subject]))
		}
		at[e.Subject] = e.Commit
		delete(acked, e.Commit)
		if e.Data[journal.DataActor] != "developer" {
			unknown++
		}
	}
	for ref, id := range refs {
		if at[ref] != id {
			t.Errorf("%s is at %s; its events end at %s", ref, id, idOrZero(at[ref]))
		}
	}
	if len(at) != len(refs) || len(acked) != 0 || unknown != 0 || interrupted == 0 {
		t.Errorf("%d refs, %d told; acknowledged and not told: %v; %d events of unknown actors; %d pushes interrupted",
			len(refs), len(at), acked, unknown, interrupted)
	}
	if out, err := repo.Run(t.Context(), "fsck", "--strict"); err != nil {
		t.Errorf("fsck: %v\n%s", err, out)
	}
	t.Logf("%d refs, %d pushes interrupted", len(refs), interrupted)
}
