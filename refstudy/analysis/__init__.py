"""Everything computed from records, models and shapes: tables, claims, statistics, failures, costs, figures.

It may use every room but ``engine`` and the command line. ``opened`` holds what ``refstudy.open`` returns.
"""
