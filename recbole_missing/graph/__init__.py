"""Sparse matrices, normalisations, the neighbour search, item graphs and smoothness on them."""
