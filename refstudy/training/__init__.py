"""Training: the loop with exact resume, pretraining of encoders, losses, evaluation, run records.

It may use ``base``, ``metrics``, ``data`` and ``models``.
"""
