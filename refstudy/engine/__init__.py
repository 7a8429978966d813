"""Running the study: which notebooks run and why, notebooks on Dask workers, trainings, rehearsals, report and pages.

It may use every room but the command line.
"""
