"""S²RM by its short import path; the module itself is refstudy.models.fusion.s2rm."""

from refstudy.models.fusion.s2rm import S2RM, coparse

__all__ = ["S2RM", "coparse"]
