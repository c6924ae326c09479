"""The dry run of a job, and its text."""
