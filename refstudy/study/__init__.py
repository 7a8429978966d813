"""The study file, read and checked as a whole, and the code cells of notebooks.

It may use ``base``, ``papers``, ``data`` and the names of parts in ``models``.
"""
