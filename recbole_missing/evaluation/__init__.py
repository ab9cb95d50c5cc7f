"""Evaluation beyond RecBole's: results by group of items."""
