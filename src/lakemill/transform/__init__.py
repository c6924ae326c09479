"""Images become images: a table of blobs from another."""
