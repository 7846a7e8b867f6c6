package template

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"unicode"

	"github.com/Masterminds/sprig/v3"
	"golang.org/x/text/unicode/norm"
	"sigs.k8s.io/yaml"
)

const maxItems = 100_000 // of lists that functions make

// functions are those of sprig without the ones that look around, and ours.
func functions() template.FuncMap {
	fns := maps.Clone(sprig.GenericFuncMap())
	for _, name := range []string{"env", "expandenv", "getHostByName"} {
		delete(fns, name)
	}
	fns["normalize"] = Normalize
	fns["slugify"] = slugify
	fns["toYaml"] = toYAML
	fns["fromYaml"] = fromYAML
	fns["fromYamlArray"] = fromYAMLArray
	fns["until"] = until
	fns["untilStep"] = untilStep
	fns["repeat"] = repeat
	fns["seq"] = seq
	return fns
}

var (
	notDNS        = regexp.MustCompile(`[^-a-z0-9.]`)
	notSlug       = regexp.MustCompile(`[^a-z0-9-]`)
	manyDashes    = regexp.MustCompile(`-{2,}`)
	withoutAccent = strings.NewReplacer("ß", "ss", "æ", "ae", "Æ", "AE", "œ", "oe", "Œ", "OE", "ø", "o", "Ø", "O", "đ", "d", "Đ", "D", "ł", "l", "Ł", "L", "þ", "th", "ð", "d",
		"&", "and", "@", "at", "_", "-", "‒", "-", "–", "-", "—", "-", "―", "-", "'", "", "’", "", `"`, "")
)

const maxName = 253

// Normalize makes a name of lower case letters, digits, "-" and ".".
func Normalize(name string) string {
	name = notDNS.ReplaceAllString(strings.ToLower(name), "-")
	return strings.Trim(name[:min(len(name), maxName)], "-.")
}

// Slug makes a name of lower case letters, digits and single dashes, at most
// limit bytes; whole cuts at the last dash before that.
func Slug(s string, limit int, whole bool) string {
	s = withoutAccent.Replace(strings.TrimSpace(s))
	var b strings.Builder
	for _, r := range norm.NFD.String(s) {
		if !unicode.Is(unicode.Mn, r) {
			b.WriteRune(r)
		}
	}
	s = strings.ToLower(b.String())
	if limit > 0 && !whole && len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	s = manyDashes.ReplaceAllString(notSlug.ReplaceAllString(s, "-"), "-")
	s = strings.Trim(s, "-")
	if limit <= 0 || !whole || len(s) <= limit {
		return s
	}
	if i := strings.LastIndexByte(s[:limit+1], '-'); i >= 0 {
		return s[:i]
	}
	return s[:limit]
}

// slugify is slugify [limit [whole]] text.
func slugify(args ...any) (string, error) {
	limit, whole := 50, true
	if len(args) == 0 || len(args) > 3 {
		return "", fmt.Errorf("slugify takes a text, before it a limit, and before that nothing else: it got %d values", len(args))
	}
	if len(args) > 1 {
		n, ok := args[0].(int)
		if !ok {
			return "", errors.New("slugify: the limit must be a whole number")
		}
		limit = n
	}
	if len(args) > 2 {
		b, ok := args[1].(bool)
		if !ok {
			return "", errors.New("slugify: the second value must be true or false")
		}
		whole = b
	}
	s, ok := args[len(args)-1].(string)
	if !ok {
		return "", errors.New("slugify: the last value must be a text")
	}
	return Slug(s, limit, whole), nil
}

func toYAML(v any) (string, error) {
	data, err := yaml.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("toYaml: %w", err)
	}
	return strings.TrimSuffix(string(data), "\n"), nil
}

func fromYAML(s string) (map[string]any, error) {
	m := map[string]any{}
	if err := yaml.Unmarshal([]byte(s), &m); err != nil {
		return nil, fmt.Errorf("fromYaml: %w", err)
	}
	return m, nil
}

func fromYAMLArray(s string) ([]any, error) {
	var a []any
	if err := yaml.Unmarshal([]byte(s), &a); err != nil {
		return nil, fmt.Errorf("fromYamlArray: %w", err)
	}
	return a, nil
}

func until(n int) ([]int, error) {
	if n < 0 {
		return untilStep(0, n, -1)
	}
	return untilStep(0, n, 1)
}

func untilStep(start, stop, step int) ([]int, error) {
	out := []int{}
	if step == 0 {
		return out, nil
	}
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		if len(out) == maxItems {
			return nil, fmt.Errorf("a list of more than %d items", maxItems)
		}
		out = append(out, i)
	}
	return out, nil
}

// seq is seq [first [step]] last, as the shell has it.
func seq(params ...int) (string, error) {
	first, step := 1, 1
	var last int
	switch len(params) {
	case 0:
		return "", nil
	case 1:
		last = params[0]
	case 2:
		first, last = params[0], params[1]
	case 3:
		first, step, last = params[0], params[1], params[2]
	default:
		return "", errors.New("seq takes at most three numbers")
	}
	if len(params) < 3 && last < first {
		step = -1
	}
	end := last + 1
	if step < 0 {
		end = last - 1
	}
	numbers, err := untilStep(first, end, step)
	if err != nil {
		return "", err
	}
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, " "), nil
}

func repeat(n int, s string) (string, error) {
	if n < 0 || len(s) > 0 && n > maxOutput/len(s) {
		return "", errTooLong
	}
	return strings.Repeat(s, n), nil
}
