"""Fusion of words and vision: one class, one file, one section of a paper."""
