package az

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jmespath-community/go-jmespath"
	"go.yaml.in/yaml/v3"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// print writes a result by --query and --output. nil prints nothing.
func (c *call) print(out any) error {
	format := c.Or("output", orElse(c.Getenv("AZURE_CORE_OUTPUT"), "json"))
	if out == nil || format == "none" {
		return nil
	}
	data, err := json.Marshal(out)
	if err != nil {
		return err
	}
	var plain any
	if err := json.Unmarshal(data, &plain); err != nil {
		return err
	}
	if q := c.Get("query"); q != "" {
		if plain, err = jmespath.Search(q, plain); err != nil {
			return fmt.Errorf("argument --query: invalid jmespath_type value %q: %w", q, err)
		}
	}
	switch format {
	case "json", "jsonc":
		data, err := json.MarshalIndent(plain, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.Stdout, string(data))
		return err
	case "yaml", "yamlc":
		data, err := yaml.Marshal(plain)
		if err != nil {
			return err
		}
		_, err = c.Stdout.Write(data)
		return err
	case "tsv":
		return c.tsv(plain)
	case "table":
		return c.table(plain)
	}
	return shim.Usagef("argument --output: invalid choice %q (choose from json, jsonc, none, table, tsv, yaml, yamlc)", format)
}

// columns are the keys of an object in the order of the query, others after.
func (c *call) columns(m map[string]any) []string {
	query := c.Get("query")
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	at := func(k string) int {
		for _, form := range []string{"{" + k + ":", "," + k + ":", " " + k + ":", "{\"" + k + "\":", "\"" + k + "\":"} {
			if i := strings.LastIndex(query, form); i >= 0 {
				return i
			}
		}
		return len(query)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if x, y := at(a), at(b); x != y {
			return x - y
		}
		return strings.Compare(a, b)
	})
	return keys
}

func (c *call) tsv(v any) error {
	rows, ok := v.([]any)
	if !ok {
		rows = []any{v}
	}
	for _, row := range rows {
		var cells []string
		switch r := row.(type) {
		case map[string]any:
			for _, k := range c.columns(r) {
				cells = append(cells, cell(r[k]))
			}
		case []any:
			for _, item := range r {
				cells = append(cells, cell(item))
			}
		case nil:
			if !ok {
				continue // no value, no line
			}
			cells = []string{""}
		default:
			cells = []string{cell(r)}
		}
		if _, err := fmt.Fprintln(c.Stdout, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return nil
}

// cell is a scalar as text. What has parts is left out, or counted.
func cell(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case bool:
		if x {
			return "True"
		}
		return "False"
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	case []any:
		return strconv.Itoa(len(x))
	}
	return ""
}

func (c *call) table(v any) error {
	rows, ok := v.([]any)
	if !ok {
		rows = []any{v}
	}
	var head []string
	var lines [][]string
	for _, row := range rows {
		r, isMap := row.(map[string]any)
		if !isMap {
			r = map[string]any{"result": row}
		}
		if head == nil {
			for _, k := range c.columns(r) {
				switch r[k].(type) {
				case map[string]any, []any:
				default:
					head = append(head, k)
				}
			}
		}
		var cells []string
		for _, k := range head {
			cells = append(cells, cell(r[k]))
		}
		lines = append(lines, cells)
	}
	if head == nil {
		return nil
	}
	width, titles, rules := make([]int, len(head)), make([]string, len(head)), make([]string, len(head))
	for i, k := range head {
		titles[i] = strings.ToUpper(k[:1]) + k[1:]
		width[i] = len(titles[i])
		for _, l := range lines {
			width[i] = max(width[i], len(l[i]))
		}
		rules[i] = strings.Repeat("-", width[i])
	}
	for _, l := range append([][]string{titles, rules}, lines...) {
		var text strings.Builder
		for i, s := range l {
			_, _ = fmt.Fprintf(&text, "%-*s  ", width[i], s)
		}
		if _, err := fmt.Fprintln(c.Stdout, strings.TrimRight(text.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
