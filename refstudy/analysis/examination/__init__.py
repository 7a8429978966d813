"""The examination of a fusion module, decoder or whole model for the faults that were found in published ones.

``report`` has ``examine``, which is what to call; ``checks`` the checks, one function each; ``bench`` what they share;
``subject`` what is examined and its inputs; ``watch``, ``reach`` and ``slope`` what some checks measure.
"""

from refstudy.analysis.examination.report import Examination, examinations, examine

__all__ = ["Examination", "examinations", "examine"]
