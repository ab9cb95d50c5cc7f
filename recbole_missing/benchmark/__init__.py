"""Benchmarks: plans of runs from YAML files, and stores that hold the results."""
