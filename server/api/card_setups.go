package api

func (a *api) cardSetups() {}
