package schedule

import (
	"fmt"
	"math"
	"strconv"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// Settings are what a strategy says beside its matrix.
type Settings struct {
	FailFast    bool
	MaxParallel int // 0: no limit
}

// ReadSettings evaluates fail-fast (true when absent) and max-parallel.
func ReadSettings(s *syntax.Strategy, env expr.Env) (Settings, error) {
	out := Settings{FailFast: true}
	if s == nil {
		return out, nil
	}
	var failFast, limit any
	var err error
	if s.Expr.IsSet() {
		whole, err := object(s.Expr, env, "the strategy expression")
		if err != nil {
			return out, err
		}
		failFast, _ = whole.Get("fail-fast")
		limit, _ = whole.Get("max-parallel")
	} else {
		if failFast, err = value(s.FailFast, env); err != nil {
			return out, fmt.Errorf("fail-fast: %w", err)
		}
		if limit, err = value(s.MaxParallel, env); err != nil {
			return out, fmt.Errorf("max-parallel: %w", err)
		}
	}
	switch text := expr.Text(failFast); text {
	case "", "true", "false":
		out.FailFast = text != "false"
	default:
		return out, fmt.Errorf("fail-fast is %q, not true or false", text)
	}
	if text := expr.Text(limit); text != "" {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || n < 1 || n != math.Trunc(n) || n > math.MaxInt32 {
			return out, fmt.Errorf("max-parallel is %q, not a whole number above 0", text)
		}
		out.MaxParallel = int(n)
	}
	return out, nil
}

func value(t syntax.Text, env expr.Env) (any, error) {
	if !t.IsSet() {
		return nil, nil
	}
	return env.Value(t.Value)
}

func object(t syntax.Text, env expr.Env, what string) (*expr.Object, error) {
	v, err := env.Value(t.Value)
	if err != nil {
		return nil, err
	}
	o, ok := v.(*expr.Object)
	if !ok {
		return nil, fmt.Errorf("%s does not give an object", what)
	}
	return o, nil
}
