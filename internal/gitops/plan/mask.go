package plan

import "slices"

const (
	hidden      = "(hidden)"
	hiddenOther = "(hidden, not the same)"
)

// maskAll hides the values of a Secret.
func maskAll(ds []Difference, annotations []string) {
	for i, d := range ds {
		if !sensitive(d.fields, annotations) {
			continue
		}
		if d.Live != nil {
			ds[i].Live = hidden
		}
		if d.Want != nil {
			ds[i].Want = hidden
			if d.Live != nil {
				ds[i].Want = hiddenOther
			}
		}
		for j := range ds[i].fields {
			ds[i].fields[j].item = nil
		}
	}
}

// sensitive reports whether a place of a Secret, or something inside it, is
// not to be seen.
func sensitive(path []segment, annotations []string) bool {
	if len(path) == 0 {
		return true
	}
	switch path[0].field {
	case "data", "stringData":
		return true
	case "metadata":
		if len(path) == 1 {
			return true
		}
		return path[1].field == "annotations" && (len(path) == 2 || path[2].field == lastApplied || slices.Contains(annotations, path[2].field))
	}
	return false
}

// hide replaces the values of Secrets in a printable object.
func hide(o map[string]any, annotations []string) {
	for _, field := range []string{"data", "stringData"} {
		switch m := o[field].(type) {
		case nil:
		case map[string]any:
			for k := range m {
				m[k] = hidden
			}
		default:
			o[field] = hidden
		}
	}
	md, _ := o["metadata"].(map[string]any)
	set, _ := md["annotations"].(map[string]any)
	for k := range set {
		if k == lastApplied || slices.Contains(annotations, k) {
			set[k] = hidden
		}
	}
}
