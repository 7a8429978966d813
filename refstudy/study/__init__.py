"""The study file: what it holds (``file``), read and checked as a whole (``load``, ``check``); cells of notebooks.

It may use ``base``, ``papers``, ``data`` and the names of parts in ``models``.
"""
