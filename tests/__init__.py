"""A package, so that no installed distribution that ships one of this name is taken for it."""
