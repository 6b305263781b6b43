package api

import (
	"errors"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/singil/singil/internal/contract"
)

// committed is openapi.json as somebody else reads it.
var committed = sync.OnceValues(func() (*contract.Contract, error) {
	data, err := os.ReadFile("openapi.json")
	if err != nil {
		return nil, err
	}
	return contract.Read(data)
})

// TestDocumentIsOpenAPI: it is what the specification calls OpenAPI 3.1, and each
// schema in it is one.
func TestDocumentIsOpenAPI(t *testing.T) {
	t.Parallel()
	if _, err := committed(); err != nil {
		t.Error(err)
	}
}

// keepsContract holds an exchange of a test to the committed document, with none of
// the code that wrote it. Operations that a test has added are in no document.
func (p *plant) keepsContract(req *http.Request, sent []byte, r *reply) {
	p.t.Helper()
	document, err := committed()
	if err != nil {
		return // TestDocumentIsOpenAPI tells
	}
	err = document.Check(contract.Exchange{
		Method: req.Method, URL: req.URL, Request: sent, Status: r.status, Media: r.header.Get("Content-Type"), Answer: r.body,
	})
	if err != nil && !errors.Is(err, contract.ErrNoOperation) {
		p.t.Error(err)
	}
}
