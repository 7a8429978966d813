"""RefScenes: rendered scenes with expressions that are true of exactly one thing, made in the REFER layout."""

from .flavours import FLAVOURS, Flavour, Target
from .grammar import vocabulary
from .write import VERSION, make_refscenes

__all__ = ["FLAVOURS", "VERSION", "Flavour", "Target", "make_refscenes", "vocabulary"]
