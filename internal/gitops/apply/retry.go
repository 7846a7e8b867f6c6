package apply

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	attempts        = 8 // of one request, about 20 s in all, when the server cannot answer
	attemptsRefused = 3 // when the server answers, but failed inside
	firstPause      = 250 * time.Millisecond
	longestPause    = 5 * time.Second
	longestWish     = 30 * time.Second // of the server's Retry-After that is heeded
)

// pause waits, or returns the cause of the context's end.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// repeat calls f until it succeeds or fails for a reason that does not pass by
// itself, a bounded number of times, with growing pauses that differ between
// callers.
func (w *Writer) repeat(ctx context.Context, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if err == nil || ctx.Err() != nil || n >= allowed(err) {
			return err
		}
		d := min(firstPause<<(n-1), longestPause)
		d = d/2 + rand.N(d)
		if wish, ok := apierrors.SuggestsClientDelay(err); ok {
			d = max(d, min(time.Duration(wish)*time.Second, longestWish))
		}
		if perr := w.pause(ctx, d); perr != nil {
			return err
		}
	}
}

// allowed is how often a request may be made that ends with this error.
func allowed(err error) int {
	switch {
	case apierrors.IsTooManyRequests(err), apierrors.IsServiceUnavailable(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), unreachable(err):
		return attempts
	case apierrors.IsInternalError(err), apierrors.IsConflict(err) && !strings.Contains(err.Error(), "UID in"), apierrors.IsUnexpectedServerError(err):
		if tooLarge(err) || typedRefusal(err) {
			return 1
		}
		return attemptsRefused
	}
	return 1
}

// unreachable reports whether there was no answer at all.
func unreachable(err error) bool {
	var status apierrors.APIStatus
	if err == nil || errors.As(err, &status) {
		return false
	}
	var timeout net.Error
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() || strings.Contains(err.Error(), "http2: ")
}

func isGone(err error) bool { return apierrors.IsNotFound(err) }
