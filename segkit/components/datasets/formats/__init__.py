"""The formats of image files: what a file states, its pixels, and how results are written."""
