"""Benchmarks: a plan of runs from YAML, a store of results, and the report drawn from it."""
