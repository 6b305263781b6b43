package api

func (a *api) forecast() {}
