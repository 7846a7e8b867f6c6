package shim

import (
	"slices"
	"strings"
)

// Flag is one option of a command.
type Flag struct {
	Names []string // "--name", "-n"
	Bool  bool     // takes no value, or =true and =false
	Many  bool     // takes several values, as az does: --ids a b c
}

// Flags are the options of a command.
type Flags []Flag

// F makes an option with a value.
func F(names ...string) Flag { return Flag{Names: names} }

// B makes an option without one.
func B(names ...string) Flag { return Flag{Names: names, Bool: true} }

// M makes an option with several values.
func M(names ...string) Flag { return Flag{Names: names, Many: true} }

// Parsed is what was given.
type Parsed struct {
	Rest   []string // what is no option
	values map[string][]string
}

// Get is the last value of an option, by its first name without dashes.
func (p Parsed) Get(name string) string {
	if v := p.values[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// Or is Get with a default.
func (p Parsed) Or(name, otherwise string) string {
	if p.Has(name) {
		return p.Get(name)
	}
	return otherwise
}

// All are all values of an option.
func (p Parsed) All(name string) []string { return p.values[name] }

// Has reports whether an option was given.
func (p Parsed) Has(name string) bool { return len(p.values[name]) > 0 }

// On reports whether an option without value was given and not =false.
func (p Parsed) On(name string) bool { return p.Has(name) && p.Get(name) != "false" }

func (f Flags) find(name string) (Flag, bool) {
	for _, flag := range f {
		if slices.Contains(flag.Names, name) {
			return flag, true
		}
	}
	return Flag{}, false
}

// Parse reads arguments. It stops at "--", and at the first word that is no
// option when stop is set. An unknown option is a [UsageError] that names it.
func (f Flags) Parse(args []string, stop bool) (Parsed, error) {
	out := Parsed{values: map[string][]string{}}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			out.Rest = append(out.Rest, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			if stop {
				out.Rest = append(out.Rest, args[i:]...)
				break
			}
			out.Rest = append(out.Rest, arg)
			continue
		}
		name, value, given := strings.Cut(arg, "=")
		flag, ok := f.find(name)
		if !ok && arg[1] != '-' && len(arg) > 2 { // -nvalue, or -it as -i -t
			flag, ok = f.find(arg[:2])
			switch {
			case ok && flag.Bool:
				args = slices.Insert(slices.Clone(args), i+1, "-"+arg[2:])
			case ok:
				value, given = strings.TrimPrefix(arg[2:], "="), true
			}
		}
		if !ok {
			return out, Usagef("unknown option %s", name)
		}
		key := strings.TrimLeft(flag.Names[0], "-")
		switch {
		case flag.Bool && !given:
			out.values[key] = append(out.values[key], "true")
		case flag.Bool, given:
			out.values[key] = append(out.values[key], value)
		case i+1 >= len(args):
			return out, Usagef("option %s needs a value", name)
		case flag.Many:
			for i+1 < len(args) && (len(args[i+1]) < 2 || args[i+1][:2] != "--") && !(len(args[i+1]) == 2 && args[i+1][0] == '-') {
				i++
				out.values[key] = append(out.values[key], args[i])
			}
		default:
			i++
			out.values[key] = append(out.values[key], args[i])
		}
	}
	return out, nil
}
