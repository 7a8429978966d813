"""Exact algebra, forward and backward: coparsing from one Gram matrix, CASG's wide convolution by mixing first.

The baselines are the equations as the papers write them. Memory is what is held beyond what every form has to: inputs,
results and the gradients of both.
"""

from collections.abc import Callable, Sequence

import torch
from measure import DEVICE, compared, seconds, write
from torch import Tensor

from refstudy.base.allocation import added_megabytes
from refstudy.models.decoders.casg import UpsampledConv
from refstudy.models.fusion.s2rm import S2RM, coparse_literal

CASG_SIZES = (  # channels of the maps, outputs, their sides, the side of the result, batch
    ("stage 1 of Swin-T at 512", (768,), 384, (16,), 32, 2),
    ("stage 2 of Swin-T at 512", (768, 384), 192, (16, 32), 64, 2),
    ("stage 3 of Swin-T at 512", (768, 384, 192), 96, (16, 32, 64), 128, 2),
    ("stage 3 of the built-in study", (256, 128, 64), 32, (4, 8, 16), 32, 36),
)


def literal(vision: Tensor, language: Tensor) -> list[Tensor]:
    """The four groups of maps, Eqs. (5)-(8) in both directions, from rolled copies."""
    return [*coparse_literal(vision, language), *coparse_literal(language, vision)]


def both_ways(function: Callable, arguments: Sequence, parameters: Sequence[Tensor]) -> Callable[[], None]:
    """Forward, and backward from ones."""

    def action() -> None:
        made = function(*arguments)
        made = made if isinstance(made, list) else [made]
        torch.autograd.grad(made, parameters, [torch.ones_like(part) for part in made])

    return action


def rows_of(
    what: str,
    forms: Sequence[Callable],
    arguments: Sequence,
    parameters: Sequence[Tensor],
    floors: Sequence = (None, None),
) -> list[dict]:
    """Time and memory of two forms of one function, after a look at whether they are one."""
    first, second = (form(*arguments) for form in forms)
    first, second = (made if isinstance(made, list) else [made] for made in (first, second))
    worst = max(
        float((a - b).detach().abs().max() / a.detach().abs().max()) for a, b in zip(first, second, strict=True)
    )
    needed = sum(tensor.nbytes for tensor in (*first, *second, *parameters)) / 2**20
    print(f"{what}: largest difference {worst:.1e} of the largest value")
    del first, second
    actions = [both_ways(form, arguments, parameters) for form in forms]
    memory = [added_megabytes(action) - needed for action in actions]
    times = [seconds(action) for action in actions]
    return [compared(what, "s", *times, floors[0]), compared(what, "MB", *memory, floors[1])]


def main() -> None:
    torch.manual_seed(0)
    rows = []
    for grid, channels, batch in ((16, 768, 8), (4, 256, 36)):
        vision, language = (
            torch.randn(batch, channels, grid, grid, device=DEVICE, requires_grad=True) for _ in range(2)
        )
        module = S2RM(channels, channels, (grid, grid))
        floors = (25, 50) if grid == 16 else (None, None)
        what = f"coparsing, {grid}x{grid} grid, {channels} channels, batch {batch}"
        rows += rows_of(what, (literal, module.coparse), (vision, language), (vision, language), floors)
    for stage, channels, outputs, sides, side, batch in CASG_SIZES:
        convolution = UpsampledConv(channels, outputs).to(DEVICE)
        maps = [
            torch.randn(batch, c, s, s, device=DEVICE, requires_grad=True) for c, s in zip(channels, sides, strict=True)
        ]
        what = f"CASG's convolution, {stage}: {sum(channels)} to {outputs} at {side}x{side}, batch {batch}"
        forms = (convolution.upsampled_first, convolution)
        rows += rows_of(what, forms, (maps, (side, side)), (*maps, convolution.weight), (1, None))
    write("models", rows)


if __name__ == "__main__":
    main()
