package contract

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
)

type sentKey struct{}

// Between stands before the server at to, and tells wrong of each exchange below
// the prefix that is not as the document has it; nil: it is. wrong is called by many
// at once.
func (c *Contract) Between(to *url.URL, prefix string, wrong func(error)) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(res *http.Response) error {
			req := res.Request
			if !strings.HasPrefix(req.URL.Path, prefix) {
				return nil
			}
			answer, err := io.ReadAll(res.Body)
			if err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			if err := res.Body.Close(); err != nil {
				return fmt.Errorf("close the answer: %w", err)
			}
			res.Body = io.NopCloser(bytes.NewReader(answer))
			sent, _ := req.Context().Value(sentKey{}).([]byte)
			wrong(c.Check(Exchange{Method: req.Method, URL: req.URL, Request: sent, Status: res.StatusCode, Media: res.Header.Get("Content-Type"), Answer: answer}))
			return nil
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "the request ended early", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(sent))
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sentKey{}, sent)))
	})
}
