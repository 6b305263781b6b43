package api

// Gateway is what this package asks of the provider. *worker.PayMongo is one.
type Gateway interface {
}
