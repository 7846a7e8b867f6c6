package helm

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// durationFunctions are those that Helm adds for durations. A duration is
// written as Go does ("1h30m"), or a number of seconds. What is none counts as
// zero.
var durationFunctions = template.FuncMap{
	"mustToDuration":       toDuration,
	"durationSeconds":      lengthIn(time.Second),
	"durationMilliseconds": wholeIn(time.Millisecond),
	"durationMicroseconds": wholeIn(time.Microsecond),
	"durationNanoseconds":  wholeIn(time.Nanosecond),
	"durationMinutes":      lengthIn(time.Minute),
	"durationHours":        lengthIn(time.Hour),
	"durationDays":         lengthIn(24 * time.Hour),
	"durationWeeks":        lengthIn(7 * 24 * time.Hour),
	"durationRoundTo":      byMultiple(time.Duration.Round),
	"durationTruncateTo":   byMultiple(time.Duration.Truncate),
}

func lengthIn(unit time.Duration) func(any) float64 {
	return func(v any) float64 {
		d, err := toDuration(v)
		if err != nil {
			return 0
		}
		whole, rest := d/unit, d%unit
		return float64(whole) + float64(rest)/float64(unit)
	}
}

func wholeIn(unit time.Duration) func(any) int64 {
	return func(v any) int64 {
		d, err := toDuration(v)
		if err != nil {
			return 0
		}
		return int64(d / unit)
	}
}

func byMultiple(change func(d, m time.Duration) time.Duration) func(v, m any) time.Duration {
	return func(v, multiple any) time.Duration {
		d, err := toDuration(v)
		if err != nil {
			return 0
		}
		m, err := toDuration(multiple)
		if err != nil {
			return d
		}
		return change(d, m)
	}
}

func toDuration(v any) (time.Duration, error) {
	switch v := v.(type) {
	case nil:
		return 0, errors.New("invalid duration")
	case time.Duration:
		return v, nil
	case string:
		v = strings.TrimSpace(v)
		if d, err := time.ParseDuration(v); err == nil {
			return d, nil
		}
		seconds, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration", v)
		}
		return ofSeconds(seconds)
	}
	switch r := reflect.ValueOf(v); {
	case r.CanInt():
		if n := r.Int(); n <= math.MaxInt64/int64(time.Second) && n >= math.MinInt64/int64(time.Second) {
			return time.Duration(n) * time.Second, nil
		}
	case r.CanUint():
		if n := r.Uint(); n <= uint64(math.MaxInt64/int64(time.Second)) {
			return time.Duration(n) * time.Second, nil
		}
	case r.CanFloat():
		return ofSeconds(r.Float())
	default:
		return 0, fmt.Errorf("%T is not a duration", v)
	}
	return 0, errors.New("the duration is too long")
}

func ofSeconds(seconds float64) (time.Duration, error) {
	const limit = float64(math.MaxInt64) / float64(time.Second)
	if math.IsNaN(seconds) || seconds > limit || seconds < -limit {
		return 0, errors.New("the duration is too long")
	}
	return time.Duration(seconds * float64(time.Second)), nil
}
