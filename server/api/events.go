package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/singil/singil/billing"
)

// maxEventDigits is as many as any number of an event has.
const maxEventDigits = 19

func (a *api) events() {
	register(a, operation{
		id: "list-events", method: http.MethodGet, path: "/v1/events", tag: "events", role: billing.RoleViewer,
		summary: "List what happened, the oldest first",
		description: "Keep next, and ask again behind it for what happened since; it is there on the last page too. None is passed over, " +
			"and a page may be short of the limit while an event before the next is still being written. Events are kept for some weeks. " +
			"To be told of each as it happens, add an endpoint: singil events endpoints add.",
	}, func(ctx context.Context, in *struct{ Page }) (*list[billing.ExportedEvent], error) {
		var after int64
		if in.After != "" {
			n, err := strconv.ParseInt(in.After, 10, 64)
			if err != nil || n < 0 || len(in.After) > maxEventDigits {
				return nil, invalid("query.after", "is not the next of a page of events; leave it out to begin with the oldest")
			}
			after = n
		}
		page, more, err := billing.ReadEvents(ctx, a.cfg.Pool, after, in.Limit)
		if err != nil {
			return nil, err
		}
		out := &list[billing.ExportedEvent]{Data: page, HasMore: more, Next: strconv.FormatInt(after, 10)}
		if len(page) > 0 {
			out.Next = strconv.FormatInt(page[len(page)-1].Seq, 10)
		}
		return out, nil
	})
}
