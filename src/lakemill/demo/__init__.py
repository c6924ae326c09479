"""The demo: handwritten digits from files to a report."""
