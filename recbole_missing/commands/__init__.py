"""Commands of the command line that are more than a few lines; see :mod:`recbole_missing.cli`."""
