"""Tensors and the columns that hold them."""
