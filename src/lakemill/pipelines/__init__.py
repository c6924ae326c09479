"""``Pipeline`` with its ways to run: models found, planned, logged."""
