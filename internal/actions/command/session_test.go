package command

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestSession(t *testing.T) {
	for name, c := range map[string]struct{ in, want []string }{
		"text":       {[]string{"hello", "::nonsense::x", "a ::error::x", "std::vector::x"}, []string{"0 hello", "0 ::nonsense::x", "0 a ::error::x", "0 std::vector::x"}},
		"groups":     {[]string{"::group::a b", "::endgroup::", "x ##[group]old"}, []string{"2(a b) ##[group]a b", "3 ##[endgroup]", "2(old) ##[group]old"}},
		"annotation": {[]string{"::error file=a.go,line=1::m%0An"}, []string{"1{error m\nn a.go 1} ##[error]m|n"}},
		"masks":      {[]string{"::add-mask::s%25", "::add-mask::  "}, []string{"5(s%) ", "12 ##[warning]Can't add secret mask for empty string in ##[add-mask] command."}},
		"echo": {[]string{"::echo::on", "::group::g", "::add-mask::s", "::error::e", "::echo::off", "::group::g", "::echo::maybe"}, []string{"12 ::echo::on", "2(g) ::group::g|##[group]g", "5(s) ::add-mask::***", "1{error e  0} ##[error]e",
			"12 ", "2(g) ##[group]g", "13 ##[error]Invalid echo command value. Possible values can be: 'on', 'off'. Current value is: 'maybe'."}},
		"stop":    {[]string{"::stop-commands::To-Ken", "::error::e", "::add-mask::s", "::TO-KEN::", "::error::e"}, []string{"12 ::stop-commands::To-Ken", "0 ::error::e", "0 ::add-mask::s", "12 ::TO-KEN::", "1{error e  0} ##[error]e"}},
		"bad":     {[]string{"::stop-commands::", "::stop-commands::error", "::error::e"}, []string{"13 ##[error]Invalid stop-commands token '': use a random text that is no command.", "13 ##[error]Invalid stop-commands token 'error': use a random text that is no command.", "1{error e  0} ##[error]e"}},
		"matcher": {[]string{"::add-matcher::m.json", "::add-matcher::", "::remove-matcher owner=x::", "::remove-matcher owner=x::f", "::remove-matcher::f"}, []string{"10(m.json) ", "12 ##[warning]File path must be specified.", "11(x=) ", "12 ##[warning]Give either an owner name or a file path in the ##[remove-matcher] command.", "11(f) "}},
		"debug":   {[]string{"::debug::d"}, []string{"4(d) ##[debug]d"}},
		"refused": {[]string{"::set-env name=A::b", "::set-output::b"}, []string{"13 ##[error]The `set-env` command is disabled, as on GitHub: write to the file in GITHUB_ENV, or set ACTIONS_ALLOW_UNSECURE_COMMANDS to true.",
			"13 ##[error]Unable to process command '::set-output::b' successfully. Required field 'name' is missing in ##[set-output] command."}},
	} {
		s := &Session{}
		var got []string
		for _, line := range c.in {
			e := s.Read(line)
			text := fmt.Sprint(int(e.Kind))
			switch {
			case e.Kind == Annotate:
				text += fmt.Sprintf("{%s %s %s %d}", e.Annotation.Level, e.Annotation.Message, e.Annotation.File, e.Annotation.Line)
			case e.Name != "":
				text += "(" + e.Name + "=" + e.Value + ")"
			case e.Value != "":
				text += "(" + e.Value + ")"
			}
			got = append(got, text+" "+strings.Join(e.Log, "|"))
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s\n got %q\nwant %q", name, got, c.want)
		}
	}
	e := (&Session{AllowUnsecure: true}).Read("::set-env name=A::b")
	if e.Kind != SetEnv || e.Name != "A" || e.Value != "b" {
		t.Errorf("%+v", e)
	}
	e = (&Session{}).Read("::set-output name=A::b%0Ac")
	if e.Kind != SetOutput || e.Name != "A" || e.Value != "b\nc" || !strings.Contains(e.Log[0], "deprecated") {
		t.Errorf("%+v", e)
	}
}

func session(t *testing.T, file string) *Session {
	t.Helper()
	list, err := ParseMatchers([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	m := &Matchers{}
	if err := m.Add(list...); err != nil {
		t.Fatal(err)
	}
	return &Session{Matchers: m, Workspace: "/home/runner/work/app/app"}
}

func problems(s *Session, text string) (got []string) {
	for line := range strings.SplitSeq(text, "\n") {
		if e := s.Read(line); e.Kind == Annotate {
			a := e.Annotation
			got = append(got, fmt.Sprintf("%s %s:%d:%d %s", a.Level, a.File, a.Line, a.Column, a.Message))
		}
	}
	return got
}

func TestMatchers(t *testing.T) {
	// Made for these tests, in the ways that tools' own matchers are written.
	const (
		goTool = `{"problemMatcher": [{"owner": "go", "pattern": [{"regexp": "^\\s*(.+\\.go):(?:(\\d+):(\\d+)|(\\d+)):\\s(.*)", "file": 1, "line": 2, "column": 3, "message": 5}]}]}`
		// Lookbehind, as the C# compiler's codes need it.
		csharp = `{"problemMatcher": [{"owner": "cs", "pattern": [{"regexp": "^([^\\s].*)\\((\\d+)(?:,\\d+)?\\):\\s+(error|warning)\\s+([a-zA-Z]+(?<!MSB)\\d+):\\s*(.*?)\\s+\\[(.*?)\\]$",
			"file": 1, "line": 2, "severity": 3, "code": 4, "message": 5, "fromPath": 6}]}]}`
		stylish = `{ // comments, and a comma too many
			"problemMatcher": [{"owner": "lint", /* block // */ "severity": "warning", "pattern": [
			{"regexp": "^([^\\s].*)$", "file": 1},
			{"regexp": "^\\s+(\\d+):(\\d+)\\s+(error|warning|info)\\s+(.*?)\\s\\s+(.*)$", "line": 1, "column": 2, "severity": 3, "message": 4, "code": 5, "loop": true,},
			]}]}`
		python = `{"problemMatcher": [{"owner": "py", "pattern": [
			{"regexp": "^\\s*File \"(.*)\", line (\\d+), in .*$", "file": 1, "line": 2},
			{"regexp": "^\\s*raise .*$"},
			{"regexp": "^\\s*([\\w-.]+Error.*)$", "message": 1}]}]}`
	)
	for name, c := range map[string]struct {
		file, text string
		want       []string
	}{
		"go": {goTool, "# app\n./main.go:3:7: undefined: x\nvet: pkg/a.go:9: odd\nok", []string{"error main.go:3:7 undefined: x", "error vet: pkg/a.go:0:0 odd"}},
		"csharp": {csharp, "src/A.cs(3,4): error CS1002: ; expected [/home/runner/work/app/app/web/web.csproj]\nsrc/A.cs(3): error MSB1: no [x]",
			[]string{"error web/src/A.cs:3:0 ; expected"}},
		"loop": {stylish, "\x1b[4msrc/a.js\x1b[24m\n  1:2  error  no semicolon  semi\n  3:4  warning  unused  no-unused\n  5:6  info  note  x\n\n  9:9  error  not in a file  semi",
			[]string{"error src/a.js:1:2 no semicolon", "warning src/a.js:3:4 unused"}},
		"lines":   {python, "  File \"/home/runner/work/app/app/a.py\", line 7, in f\n    raise ValueError()\nValueError: no\n", []string{"error a.py:7:0 ValueError: no"}},
		"outside": {goTool, "/usr/lib/go/x.go:3:7: in the library", []string{"error :3:7 in the library"}},
	} {
		if got := problems(session(t, c.file), c.text); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s\n got %q\nwant %q", name, got, c.want)
		}
	}
}

func TestMatchersComeAndGo(t *testing.T) {
	const file = `{"problemMatcher": [{"owner": "x", "severity": "%s", "pattern": [{"regexp": "^bad (.*)$", "message": 1}]}]}`
	s := session(t, fmt.Sprintf(file, "warning"))
	replacement, err := ParseMatchers(fmt.Appendf(nil, file, "notice"))
	if err != nil {
		t.Fatal(err)
	}
	first := problems(s, "bad thing")
	if err := s.Matchers.Add(replacement...); err != nil {
		t.Fatal(err)
	}
	second := problems(s, "bad thing")
	s.Matchers.Remove("X")
	if third := problems(s, "bad thing"); first[0] != "warning :0:0 thing" || second[0] != "notice :0:0 thing" || len(second) != 1 || third != nil {
		t.Errorf("%q, %q, %q", first, second, third)
	}
}

func TestSlowMatcherIsRemoved(t *testing.T) {
	s := session(t, `{"problemMatcher": [{"owner": "slow", "pattern": [{"regexp": "^(a+)+(?!b)c$", "message": 1}]}]}`)
	for range maxSlow {
		s.Read(strings.Repeat("a", 60))
	}
	if owners := s.Matchers.Owners(); len(owners) != 0 {
		t.Errorf("still in use: %v", owners)
	}
}

func TestBadMatchers(t *testing.T) {
	pattern := func(p string) string { return `{"problemMatcher": [{"owner": "x", "pattern": [` + p + `]}]}` }
	for file, want := range map[string]string{
		`[]`:                                     "not valid",
		`{"problemMatcher": [{}]}`:               "no owner",
		pattern(``):                              "it has 0 patterns",
		pattern(`{"regexp": "("}`):               `the expression "(" is not valid`,
		pattern(`{"regexp": "x"}`):               "no pattern sets message",
		pattern(`{"regexp": "x", "message": 1}`): "message is group 1, the expression has 0",
		pattern(`{"regexp": "x", "message": 0, "loop": true}`):                                   "only the last",
		pattern(`{"regexp": "x", "message": 0}, {"regexp": "x", "message": 0}`):                  "message is set by two",
		pattern(`{"regexp": "x", "message": 0}, {"regexp": "x", "loop": true}`):                  "must set message",
		`{"problemMatcher": [{"owner": "x", "severity": "fatal", "pattern": [{"regexp": ""}]}]}`: "fatal",
	} {
		if _, err := ParseMatchers([]byte(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n got %v\nwant %s", file, err, want)
		}
	}
}

func TestTranslate(t *testing.T) {
	for in, want := range map[string]string{`\u00e9\/`: `\x{00e9}\/`, `[^]x`: `(?s:.)x`, `[\w-.]`: `[\w\-.]`, `[[a]`: `[\[a]`, `[a-z\]]+`: `[a-z\]]+`, `\cA\0`: `\x01\x00`, `[\d-]`: `[\d-]`} {
		if got := translate(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func FuzzMatchers(f *testing.F) {
	f.Add(`^(.*):(\d+)$`, "a.go:3", `{"problemMatcher": [ /* c */ {"owner": "x", "pattern": [{"regexp": "(a)", "message": 1,}]}]}`)
	f.Add(`(?<!x)[\w-.]\u00e9`, "y", `{"a": "//", // c`+"\n}")
	f.Fuzz(func(t *testing.T, expression, line, file string) {
		if e, err := compile(expression); err == nil {
			if groups, err := e.match(line); err == nil && groups != nil && len(groups) != e.groups()+1 {
				t.Fatalf("%d groups of %d", len(groups), e.groups())
			}
		}
		if list, err := ParseMatchers([]byte(file)); err == nil {
			m := &Matchers{}
			if err := m.Add(list...); err != nil {
				t.Fatal(err)
			}
			s := &Session{Matchers: m}
			s.Read(line)
			s.Read(expression)
		}
	})
}
