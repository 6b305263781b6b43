package api

func (a *api) plans() {}
