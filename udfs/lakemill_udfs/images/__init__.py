"""Images: files, pixels, thumbnails, transforms."""
