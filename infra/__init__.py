"""Adapters to the outside world: store, MLflow, Dask, processes, the fetch gateway, deployment."""
