"""Fusion of words into the deepest vision map: one class, one file, one section of a paper."""
