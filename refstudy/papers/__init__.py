"""What the two papers print and say: tables, sentences and claims as data, and what is computed from them alone.

No data files lie in this folder itself, but in the packages below: whoever imports one of these does not depend on the
files of the others.
"""
