"""Data: feature files, masks of missing modalities, and the RecBole data set with modalities."""
