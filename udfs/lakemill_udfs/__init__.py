"""What a Python worker imports: image decoding, tensors, model runtimes and the one inner loop.

Standard library, numpy, pyarrow and pillow only; polars, pandas and the model runtimes are imported where
they are used. Never pyspark, pydantic or lakemill (a test enforces it).
"""
