"""Data: RefScenes, released data in every public form, checks, masks, words and batches.

It may use ``base``. RefScenes is drawn in ``scenes``; each form of released data has a reader in ``forms``.
"""
