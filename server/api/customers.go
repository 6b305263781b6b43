package api

func (a *api) customers() {}
