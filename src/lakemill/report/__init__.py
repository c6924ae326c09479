"""The HTML page over a predictions table."""
