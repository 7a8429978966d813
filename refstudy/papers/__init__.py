"""What the two papers print and say: tables, sentences and claims as data, and what is computed from them alone.

- ``printed``: the printed tables, a CSV each;
- ``audit``: sentences held against these tables, and the tables of the two papers held against each other;
- ``claims``: what the study judges and which explanations it tests.

The data files lie in these packages, none here: what imports one of them does not depend on the files of the others.
"""
