package registry

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/sirupsen/logrus"
)

var redirectOnce sync.Once

// redirectDistributionLogs sends what Distribution writes to logrus' standard
// logger to log instead of standard error. Distribution offers no other door:
// its logger is process-wide, so the first registry of a process decides.
func redirectDistributionLogs(log *slog.Logger) {
	redirectOnce.Do(func() {
		logrus.SetOutput(io.Discard)
		logrus.SetFormatter(silent{})
		logrus.AddHook(slogHook{log})
	})
}

// silent saves the formatting of entries that the hook has taken already.
type silent struct{}

func (silent) Format(*logrus.Entry) ([]byte, error) { return nil, nil }

type slogHook struct{ log *slog.Logger }

func (slogHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire passes an entry on. Distribution reports each request that a client got
// wrong as an error; for us that is detail. Only messages are passed on, for
// fields hold request headers.
func (h slogHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	if e.Level <= logrus.WarnLevel && e.Message != "response completed with error" {
		level = slog.LevelWarn
	}
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	h.log.Log(ctx, level, e.Message, "source", "distribution")
	return nil
}
