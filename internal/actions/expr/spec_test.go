package expr

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestSpecification lists what GitHub's own evaluators agree on, one rule a row.
func TestSpecification(t *testing.T) {
	env := Env{Contexts: map[string]any{
		"github": FromAny(map[string]any{"true": "t", "NaN": "n", "format": "f", "b_ar": 1, "_x": 2, "empty": []any{}, "obj": map[string]any{"Ä": 1}}),
		"matrix": FromAny(map[string]any{"list": []any{"a", "b", []any{"c", "d"}, map[string]any{"k": "v"}}, "objects": []any{map[string]any{"n": 1, "l": []any{1, 2}}, map[string]any{"n": 2, "l": []any{3}}, map[string]any{"m": 3}}}),
	}}
	for _, c := range []struct{ src, want string }{ // want is the JSON of the value
		// Numbers.
		{".5", "0.5"}, {"-.5", "-0.5"}, {"+.5", "0.5"}, {"5.", "5"}, {"+1", "1"}, {"1.2e+2", "120"}, {"1.2E-2", "0.012"}, {"0xFF", "255"}, {"0o10", "8"},
		{"0xffffffff", "-1"}, {"0x80000000", "-2147483648"}, {"-Infinity < 0", "true"}, {"+Infinity > 0", "true"}, {"1e400 == Infinity", "true"},
		{"format('{0}', -0.0)", `"0"`}, {"format('{0}', 0.84551240822557006)", `"0.84551240822557"`}, {"format('{0}', -2.0)", `"-2"`},
		// Strings that become numbers.
		{"'' == 0", "true"}, {"' ' == 0", "true"}, {"' 1 ' == 1", "true"}, {"'\t1' == 1", "true"}, {"'.5' == .5", "true"}, {"'+1' == 1", "true"},
		{"'0xff' == 255", "true"}, {"'0o17' == 15", "true"}, {"'-Infinity' == -Infinity", "true"}, {"'1_0' == 10", "false"}, {"'0b1' == 1", "false"},
		{"'1e1' == 10", "true"}, {"'NaN' == NaN", "false"}, {"'abc' == 0", "false"}, {"'abc' < 1", "false"}, {"'abc' > 1", "false"}, {"'inf' == Infinity", "false"},
		// Case of letters.
		{"'Ä' == 'ä'", "true"}, {"'ß' == 'SS'", "false"}, {"'ı' == 'I'", "false"}, {"'ſ' == 'S'", "false"}, {"'Σ' == 'σ'", "true"}, {"'ς' == 'σ'", "true"}, {"'i' < 'İ'", "true"}, {"'ı' > 'I'", "true"}, {"'абвгд' == 'АБВГД'", "true"}, {"'\u212a' == 'k'", "false"},
		{"'A' < '['", "true"}, {"'a' < '['", "true"}, {"'a' < 'B'", "true"}, {"'b' >= 'B'", "true"}, {"github.obj['ä']", "1"},
		{"startsWith('ÄB', 'ä')", "true"}, {"endsWith('xÄ', 'ä')", "true"}, {"contains('xÄy', 'ä')", "true"},
		// Properties.
		{"github.true", `"t"`}, {"github.NaN", `"n"`}, {"github.format", `"f"`}, {"github.b_ar", "1"}, {"github._x", "2"}, {"fromJSON('{\"one\": 1}').ONE", "1"},
		{"(fromJSON('{\"one\": 1}')).one", "1"}, {"('a').b", "null"}, {"(1)[0]", "null"}, {"github['true']", `"t"`}, {"github[true]", `"t"`},
		// Indexes of arrays.
		{"matrix.list[0]", `"a"`}, {"matrix.list['1']", `"b"`}, {"matrix.list[1.9]", `"b"`}, {"matrix.list[true]", `"b"`}, {"matrix.list[null]", `"a"`}, {"matrix.list['']", `"a"`},
		{"matrix.list['x']", "null"}, {"matrix.list[-1]", "null"}, {"matrix.list[NaN]", "null"}, {"matrix.list[Infinity]", "null"}, {"matrix.list[99]", "null"}, {"matrix.list.x", "null"},
		{"matrix.list[matrix.list]", "null"}, {"github[github]", "null"},
		// Filters.
		{"matrix.objects.*.n", "[1,2]"}, {"matrix.objects[*].n", "[1,2]"}, {"matrix.objects.*.l.*", "[1,2,3]"}, {"matrix.objects.*.l[0]", "[1,3]"}, {"matrix.objects.*['n']", "[1,2]"},
		{"github.obj.*", "[1]"}, {"github.empty.*", "[]"}, {"matrix.list.*", `["a","b",["c","d"],{"k":"v"}]`}, {"matrix.list.*[0]", `["c"]`}, {"matrix.list.*.k", `["v"]`},
		{"matrix.*.*.n", "[1,2]"}, {"'a'== matrix.list.*", "false"}, {"contains(matrix.list.*, 'B')", "true"}, {"toJSON(matrix.objects.*.n)", `"[\n  1,\n  2\n]"`},
		// Equality of collections is identity.
		{"matrix.list == matrix.list", "true"}, {"fromJSON('[1]') == fromJSON('[1]')", "false"}, {"fromJSON('{}') == fromJSON('{}')", "false"}, {"github.obj == 'Object'", "false"},
		{"github.obj > 0", "false"}, {"github.obj <= github.obj", "true"}, {"null > null", "false"}, {"null >= null", "true"}, {"false < true", "true"}, {"true > '0'", "true"},
		// && and || give operands and do not look further than they must.
		{"'a' && 0", "0"}, {"0 || ''", `""`}, {"null && fromJSON('{')", "null"}, {"'x' || fromJSON('{')", `"x"`}, {"!github.obj", "false"}, {"!!''", "false"}, {"!'false'", "false"},
		{"true && 'a' || 'b'", `"a"`}, {"true == 1 && 1 == '1'", "true"}, {"1 == 1 == 1", "true"}, {"2 == 2 == 2", "false"}, {"!1 == 0", "true"}, {"!(1 == 0)", "true"},
		// Functions.
		{"contains('abc', null)", "true"}, {"contains(null, 'a')", "false"}, {"contains(1234, 23)", "true"}, {"contains(true, 'RU')", "true"}, {"contains(matrix.list, '')", "false"},
		{"contains(fromJSON('[null]'), '')", "true"}, {"contains(fromJSON('[1]'), '1')", "true"}, {"contains(fromJSON('[[1]]'), 1)", "false"},
		{"startsWith(123, 12)", "true"}, {"startsWith(null, null)", "true"}, {"endsWith('abc', '')", "true"}, {"endsWith(github.obj, '')", "false"},
		{"format('}}{{')", `"}{"`}, {"format('{{{{0}}}}')", `"{{0}}"`}, {"format(null, 1)", `""`}, {"format('{0} {1}', true, github.empty)", `"true Array"`},
		{"join(fromJSON('[1,[2],{}]'), ' ')", `"1 Array Object"`}, {"join(fromJSON('[1,2]'), github.obj)", `"1,2"`}, {"join('a', 'x')", `"a"`}, {"join(fromJSON('[1,2]'), null)", `"12"`}, {"join(fromJSON('[1,2]'), true)", `"1true2"`}, {"join(null)", `""`}, {"join(1)", `"1"`},
		{"toJSON(-0)", `"0"`}, {"toJSON('a<b>&\"')", `"\"a<b>&\\\"\""`}, {"fromJSON('-0')", "0"}, {"fromJSON(' [1] ')", "[1]"}, {"fromJSON(1)", "1"}, {"fromJSON(true)", "true"},
		{"fromJSON('{\"A\":1,\"a\":2}')", `{"A":2}`},
		{"case(true, '', 'default')", `""`}, {"case(false, 1, false, 2, 3)", "3"}, {"case(false, 1, true, fromJSON('[1]'), 3)", "[1]"},
	} {
		v, err := env.EvalText(c.src)
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		if got := ToJSON(v); strings.Join(strings.Fields(got), "") != strings.Join(strings.Fields(c.want), "") {
			t.Errorf("%s\n got %s\nwant %s", c.src, got, c.want)
		}
	}
}

// values draws any value of the language.
func values(depth int) *rapid.Generator[any] {
	scalars := []*rapid.Generator[any]{
		rapid.Just(any(nil)), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.OneOf(rapid.Float64Range(-1e300, 1e300), rapid.Map(rapid.IntRange(-9, 9), func(i int) float64 { return float64(i) }), rapid.Just(math.NaN())), func(f float64) any { return f }),
		rapid.Map(rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "0", "1", "true", "a", "A", " 1 "})), func(s string) any { return s }),
	}
	if depth == 0 {
		return rapid.OneOf(scalars...)
	}
	lists := rapid.Map(rapid.SliceOfN(rapid.Deferred(func() *rapid.Generator[any] { return values(depth - 1) }), 0, 3), func(l []any) any { return append(Array{}, l...) })
	objects := rapid.Map(rapid.MapOfN(rapid.StringMatching("[a-c]"), rapid.Deferred(func() *rapid.Generator[any] { return values(depth - 1) }), 0, 3), func(m map[string]any) any {
		o := NewObject()
		for k, v := range m {
			o.Set(k, v)
		}
		return o
	})
	return rapid.OneOf(append(scalars, lists, objects)...)
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		env := Env{Contexts: map[string]any{"inputs": NewObject().Set("a", values(2).Draw(rt, "a")).Set("b", values(2).Draw(rt, "b"))}}
		holds := func(src string) {
			if v, err := env.EvalText(src); err != nil || v != true {
				rt.Fatalf("%s is %v, %v", src, v, err)
			}
		}
		holds("(inputs.a == inputs.b) == (inputs.b == inputs.a)")
		holds("(inputs.a != inputs.b) == !(inputs.a == inputs.b)")
		holds("(inputs.a < inputs.b) == (inputs.b > inputs.a)")
		holds("(inputs.a <= inputs.b) == (inputs.a == inputs.b || inputs.a < inputs.b)")
		holds("!(inputs.a < inputs.b && inputs.a > inputs.b)")
		holds("!!(inputs.a && inputs.b) == (!!inputs.a && !!inputs.b)")
		holds("toJSON(fromJSON(toJSON(inputs))) == toJSON(inputs)")
	})
}
