package paymongo_test

import (
	_ "embed"
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

//go:embed signature.go
var signatureSource []byte

// TestSignaturesAreComparedInConstantTime reads the source: no test by the clock
// would be a reliable one. What a MAC comes to is given to hmac.Equal, and to
// nothing else.
func TestSignaturesAreComparedInConstantTime(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "signature.go", signatureSource, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	isCall := func(n ast.Node, receiver, name string) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return false
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || selector.Sel.Name != name {
			return false
		}
		x, ok := selector.X.(*ast.Ident)
		return ok && x.Name == receiver
	}
	sums, compared := 0, 0
	ast.Inspect(file, func(n ast.Node) bool {
		if isCall(n, "mac", "Sum") {
			sums++
		}
		if isCall(n, "hmac", "Equal") {
			for _, arg := range n.(*ast.CallExpr).Args {
				if isCall(arg, "mac", "Sum") {
					compared++
				}
			}
		}
		return true
	})
	if sums == 0 || sums != compared {
		t.Errorf("%d of %d sums of a MAC are compared by hmac.Equal", compared, sums)
	}
}
