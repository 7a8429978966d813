"""Exact algebra: coparsing from one Gram matrix, CASG's wide convolution by mixing first; forward and backward."""

import torch
from measure import seconds, write

from refstudy.models.decoders.casg import UpsampledConv
from refstudy.models.fusion.coparse_literal import coparse_literal
from refstudy.models.s2rm import coparse


def both_ways(function, *arguments):
    """Forward and backward of a function that returns a tensor or a tuple of tensors."""

    def action():
        made = function(*arguments)
        sum(part.square().mean() for part in (made if isinstance(made, tuple) else (made,))).backward()

    return action


def main() -> None:
    rows = []
    for grid, channels, batch in ((4, 256, 36), (16, 768, 4)):
        parsed, generator = (torch.randn(batch, channels, grid, grid, requires_grad=True) for _ in range(2))
        literal, ours = (seconds(both_ways(form, parsed, generator)) for form in (coparse_literal, coparse))
        what = f"coparsing, {grid}x{grid} grid, {channels} channels, batch {batch}"
        rows.append(
            {"what": what, "baseline_s": round(literal, 4), "ours_s": round(ours, 4), "ratio": round(literal / ours, 1)}
        )
    for channels, outputs, sizes, size in (
        ((256, 128, 64), 32, (4, 8, 16), 32),
        ((768, 384, 192), 96, (16, 32, 64), 128),
    ):
        batch = 36 if size == 32 else 1
        convolution = UpsampledConv(channels, outputs)
        maps = [torch.randn(batch, c, s, s, requires_grad=True) for c, s in zip(channels, sizes, strict=True)]
        literal, ours = (
            seconds(both_ways(form, maps, (size, size))) for form in (convolution.upsampled_first, convolution)
        )
        what = f"CASG, convolution at stride 4, {sum(channels)} to {outputs} at {size}x{size}, batch {batch}"
        rows.append(
            {"what": what, "baseline_s": round(literal, 4), "ours_s": round(ours, 4), "ratio": round(literal / ours, 1)}
        )
    write("models", rows)


if __name__ == "__main__":
    main()
