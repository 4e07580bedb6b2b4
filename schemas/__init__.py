"""The contracts: declarations, parameters, artifacts, records, fingerprints; frozen and strict."""
