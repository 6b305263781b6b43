package api

func (a *api) subscriptions() {}
