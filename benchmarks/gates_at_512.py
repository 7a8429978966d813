"""Gates of S²RM's Eq. (9) in the first 200 updates at the papers' size, with scaled and with unscaled products.

A 512 px picture has 16 x 16 cells at the fusion, with 768 channels (Swin-T) or 1024 (Swin-B). Pictures are made up:
smooth noise with three rectangles, each of a class that has a vector of its own, all cells layer-normed as V_4 is. Of
six random words one is the vector of a class; its rectangle is the mask. S²RM and one convolution to logits learn it by
AdamW at the papers' rate. Gates are read on 16 further pictures, normalised by their own batch as in training.
"""

import itertools

import torch
from measure import write
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm

from refstudy.models.fusion.s2rm import S2RM
from refstudy.models.gates import gate_ranges, watched_gates
from refstudy.training.losses import dice_loss

GRID, TEXT, WORDS, CLASSES, THINGS = 16, 768, 6, 12, 3
BATCH, PROBED, RATE = 4, 16, 5e-5
POINTS = (0, 1, 5, 20, 50, 100, 200)


class Toy(nn.Module):
    """S²RM and a 1x1 convolution to logits (E, 16, 16)."""

    def __init__(self, channels: int, scale: bool):
        super().__init__()
        self.fusion = S2RM(channels, TEXT, (GRID, GRID), scale=scale)
        self.predict = nn.Conv2d(channels, 1, 1)

    def forward(self, vision: Tensor, words: Tensor) -> Tensor:
        return self.predict(self.fusion(vision, words, torch.ones(words.shape[:2], dtype=torch.bool)))[:, 0]


class MadeUp:
    """Pictures of one set of classes: V_4 (E, C, 16, 16), words (E, 6, 768), masks (E, 16, 16)."""

    def __init__(self, channels: int, seed: int):
        self.random = torch.Generator().manual_seed(seed)
        self.looks, self.names = self.normal(CLASSES, channels), self.normal(CLASSES, TEXT)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        channels = self.looks.shape[1]
        vision = interpolate(self.normal(count, channels, 4, 4), size=(GRID, GRID), mode="bicubic")
        words, masks = self.normal(count, WORDS, TEXT), torch.zeros(count, GRID, GRID)
        for k in range(count):
            classes = torch.randperm(CLASSES, generator=self.random)[:THINGS]
            for thing in classes:
                top, left = torch.randint(GRID - 4, (2,), generator=self.random).tolist()
                high, wide = torch.randint(4, 9, (2,), generator=self.random).tolist()
                place = (slice(top, top + high), slice(left, left + wide))
                vision[k][:, *place] = 0.5 * vision[k][:, *place] + self.looks[thing][:, None, None]
                masks[k][place] = float(thing == classes[-1])  # a later rectangle lies on an earlier one
            words[k, k % WORDS] = self.names[classes[-1]]
        vision = layer_norm(vision.permute(0, 2, 3, 1), (channels,)).permute(0, 3, 1, 2)
        return vision, layer_norm(words, (TEXT,)), masks


def rows_of(channels: int, scale: bool, seed: int) -> list[dict]:
    """The ranges of the four gates at each of ``POINTS``, with the mean loss since the point before."""
    torch.manual_seed(seed)
    model, data = Toy(channels, scale).train(), MadeUp(channels, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    vision, words, _ = data.draw(PROBED)
    rows, losses = [], []
    for update in range(POINTS[-1] + 1):
        if update in POINTS:
            with watched_gates(model) as gates, torch.no_grad():
                model(vision, words)
            loss = round(sum(losses) / len(losses), 4) if losses else ""
            about = {"channels": channels, "scale": scale, "seed": seed, "update": update, "loss": loss}
            for row in gate_ranges(gates.totals()).to_dict("records"):
                rows.append(about | {key: x if key == "gate" else float(f"{x:.3g}") for key, x in row.items()})
            losses = []
        *inputs, masks = data.draw(BATCH)
        loss = dice_loss(model(*inputs), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return rows


def main() -> None:
    runs = itertools.product((768, 1024), (False, True), (0, 1))
    write("gates_at_512", [row for run in runs for row in rows_of(*run)])


if __name__ == "__main__":
    main()
