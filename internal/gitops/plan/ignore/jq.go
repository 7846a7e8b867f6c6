package ignore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/itchyny/gojq"
)

// Timeout bounds one evaluation unless NewExpressions was told another.
const Timeout = time.Second

const (
	maxPaths       = 10_000 // that one expression names in one object
	maxExpression  = 16_384 // bytes of one expression
	maxExpressions = 2_048  // kept compiled
)

// Expressions keeps compiled jq expressions for all applications. It is safe
// for concurrent use. The zero value is not usable.
type Expressions struct {
	timeout time.Duration
	mu      sync.Mutex
	kept    map[string]compiled
}

type compiled struct {
	code *gojq.Code
	err  error
}

// NewExpressions returns an empty store. A timeout of 0 means [Timeout].
func NewExpressions(timeout time.Duration) *Expressions {
	if timeout <= 0 {
		timeout = Timeout
	}
	return &Expressions{timeout: timeout, kept: map[string]compiled{}}
}

func (e *Expressions) get(expression string) (*gojq.Code, error) {
	e.mu.Lock()
	c, ok := e.kept[expression]
	e.mu.Unlock()
	if ok {
		return c.code, c.err
	}
	c.code, c.err = compile(expression)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.kept) >= maxExpressions {
		clear(e.kept) // few installations have so many; all are compiled anew
	}
	e.kept[expression] = c
	return c.code, c.err
}

func compile(expression string) (*gojq.Code, error) {
	if len(expression) > maxExpression {
		return nil, fmt.Errorf("the expression has more than %d bytes", maxExpression)
	}
	query, err := gojq.Parse("path(" + expression + "\n)") // the line break ends a comment
	if err != nil {
		return nil, fmt.Errorf("does not parse: %w", err)
	}
	code, err := gojq.Compile(query)
	if err != nil {
		return nil, fmt.Errorf("does not compile: %w", err)
	}
	return code, nil
}

// paths evaluates an expression. An error of the expression itself means that
// it names nothing, as where a list that it goes through is not there.
func (e *Expressions) paths(expression string, input any) ([][]any, error) {
	code, err := e.get(expression)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), e.timeout)
	defer cancel()
	var out [][]any
	iter := code.RunWithContext(ctx, input)
	for {
		v, ok := iter.Next()
		if !ok {
			return out, nil
		}
		switch v := v.(type) {
		case error:
			if errors.Is(v, context.DeadlineExceeded) {
				return nil, fmt.Errorf("did not end within %s; make it simpler", e.timeout)
			}
			return nil, nil
		case []any:
			if len(out) >= maxPaths {
				return nil, fmt.Errorf("names more than %d fields of one object; make it narrower", maxPaths)
			}
			if exists(input, v) {
				out = append(out, v)
			}
		}
	}
}

// exists reports whether the object has the place: path(.a.b) names it whether
// it is there or not.
func exists(at any, steps []any) bool {
	if len(steps) == 0 {
		return false // the whole object cannot be ignored
	}
	for i, s := range steps {
		switch key := s.(type) {
		case string:
			m, ok := at.(map[string]any)
			if !ok {
				return false
			}
			if at, ok = m[key]; !ok {
				return false
			}
		case int:
			l, ok := at.([]any)
			if key < 0 {
				key += len(l)
				steps[i] = key
			}
			if !ok || key < 0 || key >= len(l) {
				return false
			}
			at = l[key]
		default:
			return false // slices
		}
	}
	return true
}

// jqValue copies a value into the types that jq knows.
func jqValue(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, sub := range x {
			out[k] = jqValue(sub)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, sub := range x {
			out[i] = jqValue(sub)
		}
		return out
	case int64:
		return int(x)
	case int32:
		return int(x)
	case float32:
		return float64(x)
	}
	return v
}
