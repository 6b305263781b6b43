package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/singil/singil/billing"
)

type numbers struct {
	Page
	Until int `query:"until" maximum:"500" doc:"How many there are."`
}

type numbered struct {
	Name string `json:"name"`
}

// TestPages goes through lists of every length around a page's.
func TestPages(t *testing.T) {
	t.Parallel()
	p := setup(t)
	register(p.api, operation{
		id: "list-numbers", method: http.MethodGet, path: "/v1/numbers", tag: "trials", summary: "List numbers", role: billing.RoleViewer,
	}, func(_ context.Context, in *numbers) (*list[numbered], error) {
		var rows []numbered
		for i := range in.Until {
			if name := fmt.Sprintf("%03d", i); name > in.After && len(rows) < in.fetch() {
				rows = append(rows, numbered{name})
			}
		}
		return newList(rows, in.Page, func(n numbered) string { return n.Name }), nil
	})
	viewer := p.token(billing.RoleViewer)
	for _, n := range []int{0, 1, 2, 3, 4, 6, 7} {
		var names []string
		after, pages := "", 0
		for more := true; more; pages++ {
			var page list[numbered]
			p.call(viewer, "GET", fmt.Sprintf("/v1/numbers?until=%d&limit=3&after=%s", n, after), nil).want(200, &page)
			for _, row := range page.Data {
				names = append(names, row.Name)
			}
			if len(page.Data) > 3 || page.HasMore != (page.Next != "") || page.HasMore && len(page.Data) < 3 {
				t.Fatalf("%+v", page)
			}
			after, more = page.Next, page.HasMore
		}
		if len(names) != n || pages != max(1, (n+2)/3) || n > 0 && (names[0] != "000" || names[n-1] != fmt.Sprintf("%03d", n-1)) {
			t.Errorf("of %d: %v in %d pages", n, names, pages)
		}
	}
	var page list[numbered]
	if p.call(viewer, "GET", "/v1/numbers?until=500", nil).want(200, &page); len(page.Data) != 20 {
		t.Errorf("%d by default", len(page.Data))
	}
	if got := p.call(viewer, "GET", "/v1/numbers", nil).want(200); !strings.HasPrefix(string(got.body), `{"data":[]`) {
		t.Errorf("an empty list is %s", got.body)
	}
	for _, limit := range []string{"0", "101", "-1", "x", "1e3", "9999999999999999999"} {
		p.call(viewer, "GET", "/v1/numbers?limit="+limit, nil).wantProblem(kindInvalidFields, "query.limit")
	}
	p.call(viewer, "GET", "/v1/numbers?after="+strings.Repeat("a", 201), nil).wantProblem(kindInvalidFields, "query.after")
}
