package expr

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func testEnv() Env {
	github := NewObject().Set("ref", "refs/heads/main").Set("sha", "abc").Set("actor", "Octocat").
		Set("event", FromAny(map[string]any{"commits": []any{
			map[string]any{"id": "1", "author": map[string]any{"name": "Ann"}},
			map[string]any{"id": "2", "author": map[string]any{"name": "Bob"}},
			map[string]any{"id": "3"},
		}}))
	return Env{
		Contexts: map[string]any{
			"github": github,
			"env":    Strings(map[string]string{"NAME": "value", "EMPTY": "", "with-dash": "d"}),
			"matrix": FromAny(map[string]any{"os": "linux", "versions": []any{1, 2.5, "3"}, "nested": map[string]any{"a": map[string]any{"x": 1}, "b": map[string]any{"x": 2}}}),
			"inputs": NewObject().Set("flag", true).Set("off", false).Set("n", float64(7)),
		},
		Status:    func(name string) bool { return name == "success" || name == "always" },
		HashFiles: func(p []string) (string, error) { return strings.Join(p, "+"), nil },
	}
}

func TestEval(t *testing.T) {
	for _, c := range []struct{ src, want string }{ // want is the JSON of the value
		// Literals.
		{"null", "null"}, {"true", "true"}, {"false", "false"},
		{"711", "711"}, {"-9.2", "-9.2"}, {"0xff", "255"}, {"0o17", "15"}, {"-2.99e-2", "-0.0299"}, {"1e3", "1000"},
		{".5", "0.5"}, {"+1", "1"}, {"5.", "5"}, {"-Infinity", `"-Infinity"`}, {"Infinity", `"Infinity"`}, {"NaN", `"NaN"`}, {"0xffffffff", "-1"},
		{"'Mona the Octocat'", `"Mona the Octocat"`}, {"'It''s open source!'", `"It's open source!"`}, {"''", `""`}, {"'}}'", `"}}"`},
		// Equality, with coercion.
		{"1 == 1", "true"}, {"1 == 1.0", "true"}, {"1 == '1'", "true"}, {"'0xff' == 255", "true"}, {"' 12 ' == 12", "true"},
		{"'' == 0", "true"}, {"null == 0", "true"}, {"null == ''", "true"}, {"null == false", "true"}, {"true == 1", "true"},
		{"true == '1'", "true"}, {"true == 'true'", "false"}, {"'abc' == 0", "false"}, {"'ABC' == 'abc'", "true"},
		{"'Straße' == 'STRASSE'", "false"}, {"'éa' == 'ÉA'", "true"}, {"NaN == NaN", "false"}, {"NaN != NaN", "true"},
		{"github == github", "true"}, {"github == env", "false"}, {"github.event.commits == github.event.commits", "true"},
		{"matrix.versions == 1", "false"}, {"null == null", "true"}, {"'' == null", "true"}, {"null == 'x'", "false"},
		// Order.
		{"1 < 2", "true"}, {"2 <= 2", "true"}, {"'a' < 'B'", "true"}, {"'A' < '['", "true"}, {"'10' < '9'", "true"}, {"10 > '9'", "true"},
		{"'abc' > 0", "false"}, {"'abc' < 0", "false"}, {"true > false", "true"}, {"null < 1", "true"}, {"null >= null", "true"}, {"null > null", "false"},
		{"NaN < 1", "false"}, {"NaN >= NaN", "false"}, {"matrix.versions > 0", "false"}, {"Infinity > 1e300", "true"},
		// Logic keeps operands and precedence.
		{"!true", "false"}, {"!''", "true"}, {"!!'x'", "true"}, {"!0", "true"}, {"!NaN", "true"}, {"!github", "false"},
		{"'a' && 'b'", `"b"`}, {"'' && 'b'", `""`}, {"'a' || 'b'", `"a"`}, {"'' || 'b'", `"b"`}, {"0 || null", "null"},
		{"true || false && false", "true"}, {"(true || false) && false", "false"}, {"1 < 2 == true", "true"}, {"1 == 1 && 2 == 2", "true"},
		{"3 > 2 > 1", "false"}, {"!true == false", "true"}, {"inputs.flag && 'yes' || 'no'", `"yes"`}, {"inputs.off && 'yes' || 'no'", `"no"`},
		// Access.
		{"github.ref", `"refs/heads/main"`}, {"GitHub.REF", `"refs/heads/main"`}, {"github['ref']", `"refs/heads/main"`},
		{"github.nothing", "null"}, {"github.nothing.deeper", "null"}, {"env.NAME", `"value"`}, {"env.with-dash", `"d"`},
		{"matrix.versions[0]", "1"}, {"matrix.versions[1.9]", "2.5"}, {"matrix.versions['2']", `"3"`}, {"matrix.versions[9]", "null"},
		{"matrix.versions[-1]", "null"}, {"github.ref.x", "null"}, {"github[matrix.os]", "null"}, {"github.event.commits[1].id", `"2"`},
		{"runner.os", "null"}, {"matrix.versions[matrix.versions[0]]", "2.5"},
		// Filters.
		{"join(github.event.commits.*.id)", `"1,2,3"`}, {"join(github.event.commits.*.author.name, '; ')", `"Ann; Bob"`},
		{"join(matrix.nested.*.x, '-')", `"1-2"`}, {"join(github.event.commits[*].id, '')", `"123"`}, {"github.ref.*", "[]"},
		{"contains(github.event.commits.*.author.name, 'bob')", "true"}, {"github.event.commits.*.id[0]", "[]"},
		{"matrix.*.x", "[]"}, {"matrix.nested.*.x == 1", "false"},
		// Functions.
		{"contains('Hello world', 'LLO')", "true"}, {"contains('abc', '')", "true"}, {"contains(matrix.versions, 2.5)", "true"},
		{"contains(matrix.versions, '1')", "true"}, {"contains(github, 'x')", "false"}, {"contains(12345, 34)", "true"},
		{"contains(fromJSON('[\"push\", \"pull_request\"]'), 'push')", "true"},
		{"startsWith('Hello world', 'he')", "true"}, {"startsWith(github.ref, 'refs/tags/')", "false"}, {"endsWith('Hello world', 'LD')", "true"},
		{"startsWith(github, '')", "false"}, {"startsWith(null, '')", "true"},
		{"format('Hello {0} {1} {2}', 'Mona', 'the', 'Octocat')", `"Hello Mona the Octocat"`},
		{"format('{{Hello {0} {1} {2}}}', 'Mona', 'the', 'Octocat')", `"{Hello Mona the Octocat}"`},
		{"format('{0}{0}', 1)", `"11"`}, {"format('{0}', null)", `""`}, {"format('{0}', github)", `"Object"`},
		{"join('one')", `"one"`}, {"join(github)", `""`}, {"join(fromJSON('[]'))", `""`}, {"join(fromJSON('[1,true,null]'), '|')", `"1|true|"`},
		{"toJSON('a\"b')", `"\"a\\\"b\""`}, {"fromJSON('{\"a\":[1,2]}').a[1]", "2"}, {"fromJSON('true')", "true"}, {"fromJSON('1.50')", "1.5"},
		{"toJSON(fromJSON('{\"b\":1,\"a\":{}}'))", `"{\n  \"b\": 1,\n  \"a\": {}\n}"`}, {"toJSON(fromJSON('[]'))", `"[]"`},
		{"hashFiles('**/go.sum', 'x')", `"**/go.sum+x"`},
		{"success()", "true"}, {"failure()", "false"}, {"always()", "true"}, {"CANCELLED()", "false"}, {"!cancelled()", "true"},
		{"case(1 == 2, 'a', 2 == 2, 'b', 'c')", `"b"`}, {"case(false, fromJSON('{'), 'c')", `"c"`},
	} {
		v, err := testEnv().EvalText(c.src)
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		if got := ToJSON(v); strings.Join(strings.Fields(got), "") != strings.Join(strings.Fields(c.want), "") {
			t.Errorf("%s\n got %s\nwant %s", c.src, got, c.want)
		}
	}
}

func TestNumbersAsText(t *testing.T) {
	for f, want := range map[float64]string{0: "0", math.Copysign(0, -1): "0", 1: "1", -1.5: "-1.5", 0.1: "0.1", 1e15: "1E+15", 123456789012345: "123456789012345",
		1234567890123456: "1.23456789012346E+15", 0.00001: "1E-05", 0.0001: "0.0001", 1e21: "1E+21", 1.0 / 3: "0.333333333333333", 1e-7: "1E-07", 100: "100"} {
		// 0.00001 has exponent -5, which G15 still prints in full.
		if f == 0.00001 {
			want = "0.00001"
		}
		if got := Text(f); got != want {
			t.Errorf("%g: got %s, want %s", f, got, want)
		}
	}
}

// The messages are those of GitHub's runner where it has one.
func TestErrorsSayWhere(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("!", n-1) + "1" }
	for _, c := range []struct {
		src    string
		offset int
		msg    string
	}{
		{"", 0, "An expression was expected"},
		{"  ", 0, "An expression was expected"},
		{"github.ref == \"main\"", 14, `Unexpected symbol: '"main"'. Located at position 15 within expression: github.ref == "main" (strings are written in single quotes, not double quotes)`},
		{"github.ref = 'x'", 11, `Unexpected symbol: '='. Located at position 12 within expression: github.ref = 'x' (did you mean "=="?)`},
		{"a.b", 0, "Unrecognized named-value: 'a'. Located at position 1 within expression: a.b (known are github, env, vars, secrets, needs, steps, job, runner, inputs, matrix, strategy; text needs single quotes)"},
		{"nope(1)", 0, "Unrecognized function: 'nope'. Located at position 1 within expression: nope(1)"},
		{"contains('a')", 0, "Too few parameters supplied: 'contains'. Located at position 1 within expression: contains('a') (contains takes 2)"},
		{"Always(1)", 0, "Too many parameters supplied: 'Always'. Located at position 1 within expression: Always(1) (Always takes no parameter)"},
		{"'abc", 0, "Unexpected symbol: ''abc'. Located at position 1 within expression: 'abc (the string that starts here has no closing quote)"},
		{"1 + 2", 2, "Unexpected symbol: '+'. Located at position 3 within expression: 1 + 2 (expressions have no arithmetic)"},
		{"1 && ", 2, "Unexpected end of expression: '&&'. Located at position 3 within expression: 1 &&"},
		{"github.", 6, "Unexpected end of expression: '.'. Located at position 7 within expression: github."},
		{"github.1", 7, "Unexpected symbol: '1'. Located at position 8 within expression: github.1"},
		{"github.a@b", 7, "Unexpected symbol: 'a@b'. Located at position 8 within expression: github.a@b"},
		{" contains('a', 'b' ", 15, "Unexpected end of expression: ''b''. Located at position 15 within expression: contains('a', 'b'"},
		{"(1", 1, "Unexpected end of expression: '1'. Located at position 2 within expression: (1"},
		{"1 2", 2, "Unexpected symbol: '2'. Located at position 3 within expression: 1 2"},
		{"1)", 1, "Unexpected symbol: ')'. Located at position 2 within expression: 1)"},
		{"1[0]", 1, "Unexpected symbol: '['. Located at position 2 within expression: 1[0]"},
		{"'a'.b", 3, "Unexpected symbol: '.b'. Located at position 4 within expression: 'a'.b"},
		{"1-1", 0, "Unexpected symbol: '1-1'. Located at position 1 within expression: 1-1"},
		{"TRUE", 0, "Unrecognized named-value: 'TRUE'. Located at position 1 within expression: TRUE (known are github, env, vars, secrets, needs, steps, job, runner, inputs, matrix, strategy; text needs single quotes)"},
		{"nan", 0, "Unrecognized named-value: 'nan'. Located at position 1 within expression: nan (known are github, env, vars, secrets, needs, steps, job, runner, inputs, matrix, strategy; text needs single quotes)"},
		{"format('{1}', 'x')", 0, "The following format string references more arguments than were supplied: {1}"},
		{"format('{0')", 0, "The following format string is invalid: {0"},
		{"format('{0}}', 1)", 0, "The following format string is invalid: {0}}"},
		{"format('}0{', 1)", 0, "The following format string is invalid: }0{"},
		{"format(env.NAME == 'value' && '{x}', 1)", 0, "The following format string is invalid: {x}"},
		{"fromJSON('')", 0, "Error parsing fromJson: Error reading JToken from JsonReader. Path '', line 0, position 0. (the text is empty)"},
		{"fromJSON('{')", 0, "Error parsing fromJson: empty or incomplete JSON"},
		{"fromJSON('1 2')", 0, "Error parsing fromJson: not valid JSON: something follows the value"},
		{"1.2.3", 0, "Unexpected symbol: '1.2.3'. Located at position 1 within expression: 1.2.3"},
		{"0x", 0, "Unexpected symbol: '0x'. Located at position 1 within expression: 0x"},
		{"0xfz", 0, "Unexpected symbol: '0xfz'. Located at position 1 within expression: 0xfz"},
		{"0o8", 0, "Unexpected symbol: '0o8'. Located at position 1 within expression: 0o8"},
		{"case(1, 2, 3)", 5, "case predicate must evaluate to a boolean value (condition 1 does not)"},
		{"case(true, 1, false, 2)", 0, "Even number of parameters supplied, requires an odd number of parameters: 'case'. Located at position 1 within expression: case(true, 1, false, 2) (case takes pairs of condition and value, then a default)"},
		{nested(51), 0, "Exceeded max expression depth 50"},
		{strings.Repeat("(", 5000) + "!", 5000, "Unexpected end of expression: '!'. Located at position 5001 within expression: " + strings.Repeat("(", 200) + "…"},
		{strings.Repeat(" ", 21_000) + "1", 0, "Exceeded max expression length 21000"},
	} {
		_, err := testEnv().EvalText(c.src)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.40s: error %v", c.src, err)
			continue
		}
		if e.Error() != c.msg || e.Offset != c.offset {
			t.Errorf("%.40s\n got %d: %s\nwant %d: %s", c.src, e.Offset, e.Error(), c.offset, c.msg)
		}
	}
	for _, fine := range []string{nested(50), strings.Repeat("(", 60) + "1" + strings.Repeat(")", 60), strings.Repeat("1 && ", 2000) + "1", "github" + strings.Repeat(".a", 9_000)} {
		if _, err := Parse(fine); err != nil {
			t.Errorf("%.40s: %v", fine, err)
		}
	}
}

func TestStatusOfJobs(t *testing.T) {
	needs := FromAny(map[string]any{"a": map[string]any{"result": "success"}, "b": map[string]any{"result": "failure"}, "c": map[string]any{"result": "skipped"}})
	for cancelled, want := range map[bool]map[string]bool{
		false: {"success('a')": true, "success('A', 'b')": false, "success('c')": false, "failure('b')": true, "failure('a', 'b')": true, "failure('a', 'c')": false, "success('x')": false},
		true:  {"success('a')": false, "failure('b')": false},
	} {
		env := Env{Contexts: map[string]any{"needs": needs}, Status: func(name string) bool { return name == "cancelled" && cancelled }}
		for src, want := range want {
			if got, err := env.Condition(src); err != nil || got != want {
				t.Errorf("%s (cancelled %v) is %v, %v", src, cancelled, got, err)
			}
		}
	}
}

func TestScope(t *testing.T) {
	s := Scope{Key: "jobs.<job_id>.if", Contexts: []string{"github", "needs"}, Functions: []string{"success", "failure"}}
	for _, ok := range []string{"github.ref == 'x' && Success()", "contains(needs.*.result, 'failure')", "1"} {
		if err := s.CheckCondition(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	const hint = " (jobs.<job_id>.if allows the contexts github, needs and the functions success, failure)"
	for _, c := range []struct{ src, want string }{
		{"secrets.A != ''", "Unrecognized named-value: 'secrets'. Located at position 1 within expression: secrets.A != ''" + hint},
		{"!hashFiles('x')", "Unrecognized function: 'hashFiles'. Located at position 2 within expression: !hashFiles('x')" + hint},
		{"x ${{ env.A }}", "Unrecognized named-value: 'env'. Located at position 7 within expression: x ${{ env.A }}" + hint},
	} {
		if err := s.CheckCondition(c.src); err == nil || err.Error() != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.src, err, c.want)
		}
	}
	var e *Error
	if err := s.Check("abc ${{ github.sha }} ${{ job.x }}"); !errors.As(err, &e) || e.Offset != 26 {
		t.Errorf("offset in a text: %+v", err)
	}
}

func TestInterpolate(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "": "", "a ${{ github.sha }} b": "a abc b", "${{ '}}' }}": "}}", "${{env.NAME}}${{ 1 == 1 }}": "valuetrue",
		"x ${{ github.none }} y": "x  y", "$ {{ }}": "$ {{ }}", "${{ format('{0}}}', 1) }}": "1}",
	} {
		if got, err := testEnv().Interpolate(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
	var e *Error
	if _, err := testEnv().Interpolate("abc ${{ nope.x }}"); !errors.As(err, &e) || e.Offset != 8 {
		t.Errorf("offset in a text: %v", err)
	}
	if _, err := testEnv().Interpolate("abc ${{ github.sha }"); !errors.As(err, &e) || e.Offset != 4 {
		t.Errorf("unclosed: %v", err)
	}
}

func TestCondition(t *testing.T) {
	failed := testEnv()
	failed.Status = func(name string) bool { return name == "failure" || name == "always" }
	for _, c := range []struct {
		text       string
		ok, onFail bool
	}{
		{"", true, false}, {"true", true, false}, {"${{ true }}", true, false}, {"always()", true, true}, {"failure()", false, true},
		{"success() || failure()", true, true}, {"github.ref == 'refs/heads/main'", true, false}, {"${{ false }} x", true, false}, {"${{ '' }}${{ null }}", false, false}, {"${{ 1 }}{0}", true, false},
		{"!cancelled()", true, true}, {"false", false, false}, {" ${{ always() }} ", true, true},
	} {
		if got, err := testEnv().Condition(c.text); err != nil || got != c.ok {
			t.Errorf("%q on success: %v, %v", c.text, got, err)
		}
		if got, err := failed.Condition(c.text); err != nil || got != c.onFail {
			t.Errorf("%q on failure: %v, %v", c.text, got, err)
		}
	}
}

func FuzzEval(f *testing.F) {
	for _, s := range []string{"github.ref == 'x'", "contains(github.*.x, 1)", "format('{0}', 1)", "fromJSON('[1,{}]')[1]", "((1", "!!!", "'", "${{ 1 }}", "1.e9", "0x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		v, err := testEnv().EvalText(src)
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Offset < 0 || e.Offset > len(src)) {
			t.Fatalf("%q: error without a place: %v", src, err)
		}
		if err == nil {
			_ = ToJSON(v)
		}
		_, _ = testEnv().Interpolate(src)
		_, _ = testEnv().Condition(src)
	})
}
