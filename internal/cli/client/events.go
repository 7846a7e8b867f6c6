package client

import (
	"bufio"
	"context"
	"strings"
	"time"
)

// Changes sends a value soon after anything happened on the platform, and at
// least every interval, until ctx ends; the first at once. It outlives a
// restart of the platform. Values that nobody takes are joined into one.
func (c *Client) Changes(ctx context.Context, interval time.Duration) <-chan struct{} {
	out := make(chan struct{}, 1)
	wake := func() {
		select {
		case out <- struct{}{}:
		default:
		}
	}
	wake()
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				wake()
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() {
		for ctx.Err() == nil {
			c.watch(ctx, wake)
			select { // the platform restarts, or it is busy: the ticks go on
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// watch calls wake for every message of the stream of events until it ends.
func (c *Client) watch(ctx context.Context, wake func()) {
	body, err := c.stream(ctx, "/events")
	if err != nil {
		return
	}
	defer func() { _ = body.Close() }()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: [") {
			wake()
		}
	}
}
