"""Models: encoders, fusion modules, decoders, and the one place where they are put together (build.py)."""
