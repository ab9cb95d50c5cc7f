"""What may be set: constraints, defaults from YAML, the check of what a user set."""
