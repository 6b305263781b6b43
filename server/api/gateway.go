package api

import "github.com/singil/singil/worker"

// Gateway is what this package asks of the provider. *worker.PayMongo is one.
type Gateway interface {
	worker.OnSessionGateway
}
