"""Lines of a store become tables, tests and figures."""
