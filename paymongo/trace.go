package paymongo

import (
	"errors"
	"net"
	"net/http/httptrace"
	"sync/atomic"
)

// tracer follows one round trip up to the moment it has a connection. Its hooks
// may still be called after the round trip returned, since the transport
// finishes dialling for the next caller.
type tracer struct {
	asked   atomic.Bool // the transport speaks httptrace and looked for a connection
	granted atomic.Bool // it got one, so bytes may have left
	stage   atomic.Pointer[string]
}

var stageDNS, stageConnect, stageTLS = reasonDNS, reasonConnect, reasonTLS

func (t *tracer) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn:           func(string) { t.asked.Store(true) },
		GotConn:           func(httptrace.GotConnInfo) { t.granted.Store(true) },
		DNSStart:          func(httptrace.DNSStartInfo) { t.stage.Store(&stageDNS) },
		ConnectStart:      func(string, string) { t.stage.Store(&stageConnect) },
		TLSHandshakeStart: func() { t.stage.Store(&stageTLS) },
	}
}

// neverSent reports whether the trace proves that nothing was written. A
// RoundTripper that does not speak httptrace proves nothing.
func (t *tracer) neverSent() bool { return t.asked.Load() && !t.granted.Load() }

// stoppedAt names the stage at which a request that was never sent stopped.
func (t *tracer) stoppedAt(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	stage := t.stage.Load()
	switch {
	case errors.As(err, &dns):
		return reasonDNS
	case errors.As(err, &op) && op.Op == "dial":
		return reasonConnect
	case !t.neverSent():
		return reasonUnsent
	case stage != nil:
		return *stage
	}
	return reasonWaiting
}
