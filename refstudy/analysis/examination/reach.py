"""The reach of an output in its input: from border to border, and at its own place."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from refstudy.analysis.examination.subject import Inputs, Subject


def parts(x: Tensor, axis: int, turned: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The first, third and last quarter along an axis, or along the ``turned`` one."""
    x = x.flip(axis) if turned else x
    size = x.shape[axis]
    quarter = max(1, size // 4)
    return x.narrow(axis, 0, quarter), x.narrow(axis, size // 2, quarter), x.narrow(axis, size - quarter, quarter)


def reach(subject: Subject, module: nn.Module, inputs: Inputs) -> dict[str, tuple[float, float]]:
    """For each border, how much it hears the opposite one, and itself, compared to the third quarter, from -1 to 1.

    Both are measured for the output and for its difference to the output of other words; the larger counts of the first
    and the smaller of the second. A map that is added to the module's result, as most modules add V_4, would hide what
    the words' part does with places.
    """
    leaves = inputs.map(lambda x: x.clone().requires_grad_(x.is_floating_point()))
    words = (leaves.language, subject.draw(words=1).language)
    outputs = [subject.run(module, replace(leaves, language=one)) for one in words]
    signs = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(0))
    maps = [x for x in leaves.floats.values() if x.ndim == 4 and min(x.shape[-2:]) >= 4]
    found = {}
    for name, axis, turned in (("top", -2, False), ("left", -1, False), ("bottom", -2, True), ("right", -1, True)):
        fars, owns = [-1.0], [1.0]
        heard = [parts(one * signs, axis, turned)[0].sum() for one in outputs]
        both = [torch.autograd.grad(one, maps, retain_graph=True, allow_unused=True) for one in heard]
        reached = [(one, other) for one, other in zip(*both, strict=True) if one is not None and other is not None]
        for gradients in ([one for one, _ in reached], [one - other for one, other in reached]):
            means = [[one.abs().mean().item() for one in parts(x, axis, turned)] for x in gradients]
            fars += [(far - middle) / (far + middle) for own, middle, far in means if far + middle > 1e-6 * own]
            owns += [(own - middle) / (own + middle) for own, middle, _ in means if own + middle]
        found[name] = (max(fars), min(owns))
    return found
