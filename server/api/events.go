package api

func (a *api) events() {}
