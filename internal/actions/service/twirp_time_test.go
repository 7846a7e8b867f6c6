package service

import (
	"encoding/json"
	"testing"
	"time"
)

func TestTimestampsHaveThreeDigits(t *testing.T) {
	for nanos, want := range map[int]string{0: `"2026-11-24T06:14:33.000Z"`, 820_000_000: `"2026-11-24T06:14:33.820Z"`, 123_456_789: `"2026-11-24T06:14:33.123Z"`} {
		got, err := json.Marshal(timestamp(time.Date(2026, 11, 24, 6, 14, 33, nanos, time.UTC)))
		if err != nil || string(got) != want {
			t.Errorf("%d ns: %s, %v; want %s", nanos, got, err, want)
		}
	}
}
