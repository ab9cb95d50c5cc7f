"""The version, read by setup.py and part of every cache key."""

__version__ = "0.1.0"
