"""Mathematics that models share: losses (pure functions) and layers."""
