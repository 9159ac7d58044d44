"""Train a network: load, build, fit, test once, record."""
