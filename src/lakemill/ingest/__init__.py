"""Files become Delta tables of images."""
