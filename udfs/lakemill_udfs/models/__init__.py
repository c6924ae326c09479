"""Models: what they are to a pipeline, where their files come from, and one module a runtime."""
