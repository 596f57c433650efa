"""Benchmarks of the ledger: each prints its figures beside those of the raw store, measured in the same run."""
