"""What `refstudy run` and `refstudy train` do: which notebooks are not up to date and why, their execution on Dask
workers, their journals, and trainings in time or at once. It may use the study file, models and training; of it the
rest uses what reads notebooks and journals, which is light."""
