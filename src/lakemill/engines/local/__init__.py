"""The local engine: delta-rs tables, and a pool of workers on this machine. No Java, no Spark."""
