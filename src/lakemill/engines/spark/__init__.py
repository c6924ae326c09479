"""The Spark engine: session, tables, streams, MERGE, errors, shipping."""
