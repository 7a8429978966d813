"""The two papers as data: printed tables (``printed``), audited sentences (``audit``), claims (``claims``).

It may use ``base``. Each package holds its own data files, so that a notebook depends on those that it uses alone.
"""
