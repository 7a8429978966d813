"""The training loss."""

from torch import Tensor


def dice_loss(logits: Tensor, masks: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - 2 sum(p g) / (sum(p) + sum(g)) per expression, averaged over the batch; p = sigmoid(logits).

    Logits and masks are (E, H, W). Source: S²RM, Sec. IV-B names dice loss alone; sums (not squares) and smoothing by
    one, in numerator and denominator, are our reading.
    """
    probabilities = logits.float().sigmoid().flatten(1)
    masks = masks.flatten(1)
    overlap = (probabilities * masks).sum(1)
    total = probabilities.sum(1) + masks.sum(1)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()
