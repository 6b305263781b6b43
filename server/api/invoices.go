package api

func (a *api) invoices() {}
