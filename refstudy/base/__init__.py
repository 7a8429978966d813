"""Tools of every room: the error for bad input, files written whole, the settings of a run, progress bars, provenance.

It may use no other room.
"""
