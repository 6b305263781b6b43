// Package api is the HTTP API of Singil, under /v1, for a merchant's own programs.
//
// It owns routes, tokens, roles, limits, status codes and the shape of the JSON.
// It decides nothing about money: every change is a function of package billing,
// in one transaction with its entry in the audit log, and whatever is asked of the
// provider goes through Gateway.
//
// # The path of a request
//
//	api.go          limits, who is asking, may they, and then the operation
//	inspect.go      no card number gets past here, wherever it hides
//	operation.go    one registration for the route, the role, the document
//	idempotency.go  a change is made once, however often it is asked for
//	problem.go      every error there is, as RFC 9457 has it
//	openapi.go      the document, made from the same types as the handlers
//
// # A change and its Idempotency-Key
//
// A request with a key is a row of api_requests, claimed before anything is done
// and answered in the transaction that makes the change. Repeated, it gets the
// stored answer; while the first is under way, 409; with another body, 422. Only
// success is stored: what failed or was refused is tried anew when it is repeated.
// An answer with a client key in it is not stored either: the operation runs again
// and finds what it has made.
// Where the provider is asked in between, it is asked with a key made of the row's
// id, so that a request which broke off in the middle creates nothing twice.
//
// # River's page
//
// Under /river/ is River UI (river.go), for those who know it: what waits, what
// runs, what failed. It is for reading: GET and HEAD, on connections that the
// database keeps from writing. It needs the role operator. A browser cannot be
// told to send a bearer token, so it asks for a name and a password, which is HTTP
// Basic authentication: the name may be anything, and the password is the token.
// The browser keeps it until it is closed; behind anything but a loopback address
// there must be TLS in front, as for all of /v1.
//
// # Errors
//
// They repeat nothing of a request but the name of a field or of a thing, and tell
// nothing of our inside: what is not foreseen is 500 with an id, and the log has the
// rest under that id.
package api
