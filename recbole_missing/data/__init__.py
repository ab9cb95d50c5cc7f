"""Data: what a modality is, who lacks it, where it is read from, and the RecBole data set."""
