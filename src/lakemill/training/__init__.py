"""From a Delta table to batches for training: without a copy, each row exactly once an epoch."""
