package api

// Page is what every list takes; embed it in the input.
type Page struct {
	Limit int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"How many, at most."`
	After string `query:"after" maxLength:"200" doc:"Go on behind the page before: its next."`
}

// fetch is how many to ask for: one more than is shown tells whether there are
// more.
func (p Page) fetch() int { return p.Limit + 1 }

// list is a page of anything.
type list[T any] struct {
	Data    []T    `json:"data"`
	HasMore bool   `json:"has_more" doc:"There is another page."`
	Next    string `json:"next,omitempty" doc:"What after takes for that page."`
}

// newList makes a page of what p.fetch() rows came to. cursor is what billing's
// Browse functions go on behind: an id or a number of ours. A merchant's name may
// have what must be escaped in a query.
func newList[T any](rows []T, p Page, cursor func(T) string) *list[T] {
	l := &list[T]{Data: rows}
	if l.Data == nil {
		l.Data = []T{}
	}
	if len(rows) > p.Limit {
		l.Data, l.HasMore = rows[:p.Limit], true
		l.Next = cursor(rows[p.Limit-1])
	}
	return l
}
