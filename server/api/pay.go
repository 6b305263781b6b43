package api

func (a *api) pay() {}
