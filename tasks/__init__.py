"""The stages: one file a stage, with its parameters, its function and its declaration."""
