package sandbox

import "strconv"

// page lists records newest first, as the recorded payments are: limit 1 to
// 100 (default 10), after and before an id. position finds an id's place in
// the list of all; show leaves a record out with false.
func page[T any](c *call, all []T, position func(id string) (int, bool), show func(T) (wireResource, bool)) answer {
	q := c.r.URL.Query()
	limit := 10
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return refuse(400, "parameter_data_type_invalid", "limit should be an integer.")
		}
		if n < 1 || n > 100 {
			return refuse(400, "parameter_invalid", "limit must be from 1 to 100.")
		}
		limit = n
	}
	after, before := q.Get("after"), q.Get("before")
	if after != "" && before != "" {
		return refuse(400, "parameter_invalid", "after and before cannot be used together.")
	}
	out := []wireResource{}
	more := false
	collect := func(from, step int) {
		for i := from; i >= 0 && i < len(all); i += step {
			res, visible := show(all[i])
			if !visible {
				continue
			}
			if len(out) == limit {
				more = true
				return
			}
			out = append(out, res)
		}
	}
	switch {
	case before != "":
		at, found := position(before)
		if !found {
			return refuse(400, "parameter_invalid", "before is not the id of a resource in this list.")
		}
		collect(at+1, 1)
		for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
			out[i], out[j] = out[j], out[i]
		}
	case after != "":
		at, found := position(after)
		if !found {
			return refuse(400, "parameter_invalid", "after is not the id of a resource in this list.")
		}
		collect(at-1, -1)
	default:
		collect(len(all)-1, -1)
	}
	return answer{status: 200, doc: wireList{HasMore: more, Data: out}}
}
