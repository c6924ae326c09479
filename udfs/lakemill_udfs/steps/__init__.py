"""Steps of a pipeline: as declared, Python functions, formats, checks."""
