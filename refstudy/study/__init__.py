"""The study file: its content (``file``), reading and checks (``load``, ``check``); cells of notebooks.

It may use ``base``, ``papers``, ``data`` and the names of parts in ``models``.
"""

FILE_NAME = "papermill_runs.yaml"  # here, where nothing is loaded for it
