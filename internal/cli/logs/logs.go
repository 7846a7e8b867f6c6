// Package logs is `lockstep logs`: what the platform's own parts wrote. Start
// reading at [New].
package logs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

type options struct {
	component string // empty: all
	follow    bool
	since     time.Duration
	tail      int
}

// New makes the command.
func New(inv *invocation.Invocation) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "logs [component]", Short: "Logs of the platform's parts", Args: cobra.MaximumNArgs(1),
		Long: `Prints the end of a component's log; without a component that of all, each line with
its component's name. lockstep status lists the components.`,
		Example: `  lockstep logs kubelet
  lockstep logs kubelet --follow
  lockstep logs --since 5m`,
		ValidArgsFunction: inv.Complete(names),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.component = args[0]
			}
			return show(cmd.Context(), inv, o)
		},
	}
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on as more comes")
	cmd.Flags().DurationVar(&o.since, "since", 0, "only lines of this last time, as in 5m")
	cmd.Flags().IntVar(&o.tail, "tail", -1, "at most this many lines, 0 for all (default 200 of one component, 20 of each of all; all with --since)")
	return cmd
}

func names(ctx context.Context, c *client.Client) []string {
	list, err := c.Components(ctx)
	if err != nil {
		return nil
	}
	var out []string
	for _, c := range list {
		out = append(out, c.Name+"\t"+c.State)
	}
	return out
}

func show(ctx context.Context, inv *invocation.Invocation, o options) error {
	ctx, cancel := inv.Bound(ctx, 0)
	defer cancel()
	c := inv.Client()
	defer c.Close()
	query := server.LogOptions{Follow: o.follow, Tail: max(0, o.tail)}
	if o.since > 0 {
		query.Since = inv.Now().Add(-o.since)
	}
	if o.component != "" {
		if o.tail < 0 && o.since == 0 {
			query.Tail = 200
		}
		log, err := c.ComponentLog(ctx, o.component, query)
		if client.NotFound(err) {
			return &output.Error{What: fmt.Sprintf("there is no component %q with a log", o.component), Try: "lockstep status", Err: err}
		}
		if err != nil {
			return err
		}
		defer func() { _ = log.Close() }()
		return ended(ctx, copyTo(inv.Streams.Out, log))
	}
	if o.tail < 0 && o.since == 0 {
		query.Tail = 20
	}
	return all(ctx, inv, c, query)
}

// all prints the logs of all components, one after the other, or as they come.
func all(ctx context.Context, inv *invocation.Invocation, c *client.Client, query server.LogOptions) error {
	components, err := c.Components(ctx)
	if err != nil {
		return err
	}
	width := 0
	for _, part := range components {
		width = max(width, len(part.Name))
	}
	var mu sync.Mutex // of standard output: whole lines
	group, ctx := errgroup.WithContext(ctx)
	if !query.Follow {
		group.SetLimit(1)
	}
	for _, part := range components {
		group.Go(func() error {
			log, err := c.ComponentLog(ctx, part.Name, query)
			if client.NotFound(err) {
				return nil // it has no log
			}
			if err != nil {
				return err
			}
			defer func() { _ = log.Close() }()
			lines := bufio.NewReaderSize(log, 64<<10) // a longer line is printed in pieces
			for {
				line, err := lines.ReadSlice('\n')
				if len(line) > 0 {
					mu.Lock()
					_, werr := fmt.Fprintf(inv.Streams.Out, "%s %s", inv.Color().Dim(fmt.Sprintf("%-*s |", width, part.Name)), line)
					mu.Unlock()
					if werr != nil {
						return werr
					}
				}
				if err == io.EOF {
					return nil
				}
				if err != nil && err != bufio.ErrBufferFull {
					return err
				}
			}
		})
	}
	return ended(ctx, group.Wait())
}

func copyTo(w io.Writer, r io.Reader) error {
	_, err := io.Copy(w, r)
	return err
}

// ended makes the end of the time that a person gave no error.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == context.DeadlineExceeded {
		return nil
	}
	return err
}
