"""The optimiser's settings: the learning rate of every update, and the groups of parameters."""

from collections.abc import Collection
from typing import Any

from torch import nn

from refstudy.base.config import TrainConfig


def learning_rate(settings: TrainConfig, update: int, total: int) -> float:
    """The rate of an update: a linear rise over the warm-up, times polynomial decay to zero (LAVT: power 0.9)."""
    rise = min(1.0, (update + 1) / max(1.0, settings.warmup * total))
    return settings.learning_rate * rise * (1 - update / total) ** settings.poly_power


def parameter_groups(
    model: nn.Module, weight_decay: float, rates: dict[nn.Module, float] | None = None, fresh: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The optimiser's groups. Weight decay is for matrices and kernels, not for norms, biases, embeddings and position
    tables. ``rates`` gives some submodules a factor on the learning rate, kept as the group's ``rate``; parameters that
    are ``fresh``, by name in the model, have the factor 1.0.
    """
    factor = {id(p): rate for module, rate in (rates or {}).items() for p in module.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim < 2 or "embeddings" in name or "relative_position_bias_table" in name
        rate = 1.0 if name in fresh else factor.get(id(parameter), 1.0)
        groups.setdefault((0.0 if exempt else weight_decay, rate), []).append(parameter)
    return [{"params": some, "weight_decay": decay, "rate": rate} for (decay, rate), some in groups.items()]
