package paymongo

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

// TestSignaturesAreComparedInConstantTime reads the source, for no test can
// measure it: what VerifySignature computes is compared by hmac.Equal and by
// nothing else, and every secret is tried.
func TestSignaturesAreComparedInConstantTime(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "signature.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			of, _ := n.X.(*ast.Ident)
			switch {
			case of == nil:
			case of.Name == "hmac" && n.Sel.Name == "Equal":
				compared++
			case of.Name == "bytes" || of.Name == "reflect" || of.Name == "slices",
				of.Name == "hex" && n.Sel.Name != "DecodeString":
				t.Errorf("signature.go uses %s.%s", of.Name, n.Sel.Name)
			}
		case *ast.BranchStmt:
			if n.Tok == token.BREAK {
				t.Error("signature.go leaves a loop early")
			}
		}
		return true
	})
	if compared != 1 {
		t.Errorf("hmac.Equal stands %d times in signature.go", compared)
	}
}
