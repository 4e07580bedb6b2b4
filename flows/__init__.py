"""Wiring: what runs after what. Declarations, the runner, the named flows, the command line."""
