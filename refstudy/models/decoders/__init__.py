"""Decoders: from the fused map and the finer vision maps to one plane of mask logits."""
