// Package script runs the user stories: each .txtar file in testdata is one
// story, told with the real lockstep binary, the real git and a real cluster.
//
// Commands beside testscript's own: `lockstep`, `git`, `eventually`, `http`,
// `kill9` and `nothing-left`. Each story has its own state folder and
// platform name, chosen by the test, so that stories leave each other and the
// machine's own platform alone.
package script

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var (
	binary = flag.String("lockstep", "", "the lockstep binary under test; default ../../bin/lockstep")
	update = flag.Bool("update", false, "rewrite golden files in the stories")
)

func TestStories(t *testing.T) {
	bin := *binary
	if bin == "" {
		bin = "../../bin/lockstep"
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%v: build it with `make build`, or name one with -lockstep", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		// Stories that fail half-way still stop what they started.
		Setup: func(env *testscript.Env) error { return setup(env, bin) },
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			default:
				return false, fmt.Errorf("unknown condition %q", cond)
			}
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"lockstep":     lockstep,
			"eventually":   eventually,
			"http":         httpGet,
			"kill9":        kill9,
			"nothing-left": nothingLeft,
			"edit":         edit,
			"hold-port":    holdPort,
			"pick":         pick,
			"capture":      capture,
		},
	})
}

// setup gives a story its platform: a name, a state folder, a kubeconfig, and
// an environment that knows nothing of the machine's user.
func setup(env *testscript.Env, bin string) error {
	name := fmt.Sprintf("t%d", time.Now().UnixNano()%1e8)
	// A short path of its own: the node's sockets lie below it.
	state, err := os.MkdirTemp("/tmp", "ls")
	if err != nil {
		return err
	}
	for key, value := range map[string]string{
		"LOCKSTEP":           bin,
		"LOCKSTEP_NAME":      name,
		"LOCKSTEP_STATE_DIR": state,
		"KUBECONFIG":         filepath.Join(env.WorkDir, "kubeconfig"),
		"HOME":               env.WorkDir,
		"NO_COLOR":           "1",
		"GIT_CONFIG_GLOBAL":  filepath.Join(env.WorkDir, "gitconfig"),
		"GOPROXY":            os.Getenv("GOPROXY"),
		"GOFLAGS":            os.Getenv("GOFLAGS"),
		"GOTOOLCHAIN":        "local",
		"PATH":               filepath.Dir(bin) + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
	} {
		env.Setenv(key, value)
	}
	config := "[user]\n\tname = Ada\n\temail = ada@example.com\n[init]\n\tdefaultBranch = main\n"
	if err := os.WriteFile(filepath.Join(env.WorkDir, "gitconfig"), []byte(config), 0o600); err != nil {
		return err
	}
	env.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, n := range []string{name, name + "b"} {
			cmd := exec.CommandContext(ctx, bin, "down", "--purge", "--name", n, "--state-dir", state)
			cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(env.WorkDir, "kubeconfig"))
			_ = cmd.Run()
		}
		_ = os.RemoveAll(state)
	})
	return nil
}

// run executes a program in the story's folder and keeps its output for
// `stdout` and `stderr`.
func run(ts *testscript.TestScript, neg bool, program string, args []string) error {
	err := ts.Exec(program, args...)
	if neg && err == nil {
		return fmt.Errorf("%s %s: succeeded, want failure", filepath.Base(program), strings.Join(args, " "))
	}
	if !neg && err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(program), strings.Join(args, " "), err)
	}
	return nil
}

func lockstep(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(run(ts, neg, ts.Getenv("LOCKSTEP"), args))
}

// eventually repeats a command until it succeeds: `eventually 30s lockstep status`.
// `eventually 30s -match TEXT command…` also wants TEXT on standard output.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually DURATION [-match TEXT] command...")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	args = args[1:]
	match := ""
	if args[0] == "-match" {
		match, args = args[1], args[2:]
	}
	program := args[0]
	if program == "lockstep" {
		program = ts.Getenv("LOCKSTEP")
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		err := ts.Exec(program, args[1:]...)
		if err == nil && !strings.Contains(ts.ReadFile("stdout"), match) {
			err = fmt.Errorf("its output does not hold %q", match)
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("after %s still: %s: %v", limit, strings.Join(args, " "), err)
		}
	}
}

// httpGet fetches a URL until the body holds the text: `http URL TEXT [DURATION]`.
// Negated, the body must not hold it now.
func httpGet(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: http URL TEXT [DURATION]")
	}
	limit := time.Duration(0)
	if len(args) == 3 {
		d, err := time.ParseDuration(args[2])
		ts.Check(err)
		limit = d
	}
	client := &http.Client{Timeout: 5 * time.Second}
	for deadline := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		body, err := fetch(client, args[0])
		if err == nil && strings.Contains(body, args[1]) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("GET %s: want %q (negated: %t), got %q, %v", args[0], args[1], neg, body, err)
		}
	}
}

func fetch(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return string(body), err
}

// pick puts a value of a JSON file into a variable: `pick FILE .a.b VAR`.
func pick(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: pick FILE .path.to.value VAR")
	}
	var value any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &value))
	for key := range strings.SplitSeq(strings.TrimPrefix(args[1], "."), ".") {
		object, ok := value.(map[string]any)
		if !ok || object[key] == nil {
			ts.Fatalf("%s has no %s", args[0], args[1])
		}
		value = object[key]
	}
	ts.Setenv(args[2], fmt.Sprint(value))
}

// capture puts the last command's standard output into a variable.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: capture VAR")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// kill9 ends the process whose id is in the file, as a crash would.
func kill9(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: kill9 PIDFILE")
	}
	fields := strings.Fields(ts.ReadFile(args[0]))
	if len(fields) == 0 {
		ts.Fatalf("%s is empty", args[0])
	}
	pid, err := strconv.Atoi(fields[0])
	ts.Check(err)
	ts.Check(syscall.Kill(pid, syscall.SIGKILL))
}

// edit replaces text in a file: `edit FILE OLD NEW`. OLD has to be there; \n in
// NEW is a line break.
func edit(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	if !strings.Contains(string(data), args[1]) {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(path, []byte(strings.ReplaceAll(string(data), args[1], strings.ReplaceAll(args[2], `\n`, "\n"))), 0o644))
}

// holdPort occupies a free port of 127.0.0.1 for the rest of the story and puts
// its number into the variable: `hold-port PORT`.
func holdPort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
}
