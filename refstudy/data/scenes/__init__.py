"""RefScenes: rendered scenes with expressions that are true of exactly one thing, made in the REFER layout."""

from .flavours import FLAVOURS, Flavour, Target
from .grammar import vocabulary
from .write import make_refscenes

__all__ = ["FLAVOURS", "Flavour", "Target", "make_refscenes", "vocabulary"]
