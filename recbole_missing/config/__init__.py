"""Settings: constraints, defaults from YAML, and the check of what a user set."""
