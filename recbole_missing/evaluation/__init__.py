"""Evaluation: results by group of items, retrieval, ranking, quality of imputation."""
