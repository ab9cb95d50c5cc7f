"""Sparse matrices, their normalisations, nearest neighbours, the co-interaction graph."""
