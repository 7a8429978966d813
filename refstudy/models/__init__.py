"""Models: encoders, fusion modules, decoders, whole models, and ``build``, which puts them together and loads weights.

It may use ``base`` and ``data``. ``interfaces`` says what a module of your own is given and returns.
"""
