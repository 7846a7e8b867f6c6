package command

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]string{
		"::error file=app.js,line=1,col=5,endColumn=7,title=Oh%2C no::Missing%0Asemicolon": "error|app.js|1|Oh, no|Missing\nsemicolon",
		"::warning::plain":           "warning||0||plain",
		"  ::notice file=a b.go::x":  "notice|a b.go|0||x",
		"##[error]old":               "error||0||old",
		"::error line=x::y":          "error||0||y",
		"::ERROR::caps and 100%25":   "error||0||caps and 100%",
		"::error file=C%3A/x,line=2": "none",
		"text ::error::x":            "none", "::": "none", "::::": "none", "plain": "none",
	} {
		got := "none"
		if c, ok := Parse(line); ok {
			a, ok := c.Annotation()
			if !ok {
				t.Errorf("%s is no annotation", line)
			}
			got = fmt.Sprintf("%s|%s|%d|%s|%s", a.Level, a.File, a.Line, a.Title, a.Message)
		}
		if got != want {
			t.Errorf("%s\n got %q\nwant %q", line, got, want)
		}
	}
	for line, want := range map[string]Annotation{
		"::error line=3,endLine=5,col=1::m":            {Line: 3, EndLine: 5},
		"::error endLine=5::m":                         {Line: 5, EndLine: 5},
		"::error line=5,endLine=3::m":                  {},
		"::error col=3,endColumn=4::m":                 {},
		"::error line=1,col=3,endColumn=4::m":          {Line: 1, Column: 3, EndColumn: 4},
		"::error line=1,col=4,endColumn=3::m":          {Line: 1},
		"::error line=1,endLine=1,endColumn=3::m":      {Line: 1, EndLine: 1, Column: 3, EndColumn: 3},
		"##[error line=2;title=a%3Bb%5D]m":             {Line: 2, Title: "a;b]"},
		"::error line=99999999999999999999,title=x::m": {Title: "x"},
	} {
		c, _ := Parse(line)
		want.Level, want.Message = "error", "m"
		if got, _ := c.Annotation(); got != want {
			t.Errorf("%s\n got %+v\nwant %+v", line, got, want)
		}
	}
	if c, ok := Parse("::add-mask::a:b"); !ok || c.Name != "add-mask" || c.Data != "a:b" {
		t.Errorf("%+v", c)
	}
}

func TestParseFile(t *testing.T) {
	for content, want := range map[string][]Pair{
		"":                                      nil,
		"a=1\nb=x=y\n":                          {{"a", "1"}, {"b", "x=y"}},
		"a=\n":                                  {{"a", ""}},
		"json<<EOF\n{\n  \"a\": 1\n}\nEOF\nb=2": {{"json", "{\n  \"a\": 1\n}"}, {"b", "2"}},
		"a<<EOF\nEOF\n":                         {{"a", ""}},
		"a=x<<y\n":                              {{"a", "x<<y"}},
		"a<<=\nv\n=\n":                          {{"a", "v"}},
		"a=1\r\nb<<E\r\nx\r\nE\r\n":             {{"a", "1"}, {"b", "x"}},
		"\n\na=1":                               {{"a", "1"}},
	} {
		got, err := ParseFile(content)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", content, got, err)
		}
	}
	for content, want := range map[string]string{
		"a=1\nnonsense":   `line 2: "nonsense" is neither name=value nor name<<DELIMITER`,
		"=x":              `line 1: "=x" has no name before "="`,
		"a<<EOF\nb\n":     `line 1: the value of "a" has no closing line "EOF"`,
		"<<EOF\nb\nEOF\n": `line 1: "<<EOF" needs a name before and a delimiter after "<<"`,
	} {
		if _, err := ParseFile(content); err == nil || err.Error() != want {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add("a=1\nb<<E\nx\nE\n")
	f.Add("<<\n=")
	f.Fuzz(func(t *testing.T, content string) {
		pairs, err := ParseFile(content)
		if err != nil && !strings.HasPrefix(err.Error(), "line ") {
			t.Fatalf("no line in %v", err)
		}
		for _, p := range pairs {
			if p.Name == "" || strings.Contains(p.Name, "\n") {
				t.Fatalf("name %q", p.Name)
			}
		}
		for line := range strings.Lines(content) {
			Parse(line)
		}
		ParsePath(content)
	})
}
