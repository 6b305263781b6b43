package api

func (a *api) paymentMethods() {}
