"""A trained model on pictures: masks, scores, overlays and JSON of a user's photos.

It may use ``base``, ``data``, ``models`` and the evaluation of ``training``.
"""
