"""CRIS's decoder runs through the examination without a fault, and is what its paper's equations say."""

import math
from pathlib import Path

import torch
from cris import CRIS

from refstudy.analysis.examination import examine

WIDTH, HEADS, GRID = 8, 2, (2, 3)


def test_the_examination_finds_no_fault():
    made = examine(f"{Path(__file__).with_name('cris.py')}:CRIS")
    assert made.sound, str(made)


def position(place, width):
    """Sine and cosine in turn, of rates that fall from 1 to nearly 1/10000."""
    angles = [place / 10000 ** (k / width) for k in range(0, width, 2)]
    return torch.tensor([f(angle) for angle in angles for f in (math.sin, math.cos)], dtype=torch.float64)


def attend(attention, asked, keys, values):
    """softmax(Q K^T / sqrt(d)) V for one query, head by head."""
    width = WIDTH // HEADS
    to_query, to_key, to_value = attention.in_proj_weight.chunk(3)
    of_query, of_key, of_value = attention.in_proj_bias.chunk(3)
    query, answers = to_query @ asked + of_query, []
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        scores = [query[part] @ (to_key @ key + of_key)[part] / math.sqrt(width) for key in keys]
        shares = torch.stack(scores).softmax(0)
        answers.append(sum(share * (to_value @ x + of_value)[part] for share, x in zip(shares, values, strict=True)))
    return attention.out_proj.weight @ torch.cat(answers) + attention.out_proj.bias


@torch.no_grad()
def test_it_is_its_equations_cell_by_cell():
    """F'_v = MHSA(LN(F_v)) + F_v, F'_c = MHCA(LN(F'_v), F_t) + F'_v, F_c = MLP(LN(F'_c)) + F'_c, in float64."""
    torch.manual_seed(0)
    module = CRIS(WIDTH, 5, GRID, layers=2, heads=HEADS).double().eval()
    vision, words = torch.randn(1, WIDTH, *GRID).double(), torch.randn(1, 4, 5).double()
    mask = torch.tensor([[True, True, True, False]])
    places = [
        torch.cat([position(j, WIDTH // 2), position(i, WIDTH // 2)]) for i in range(GRID[0]) for j in range(GRID[1])
    ]
    cells = [vision[0, :, i, j] for i in range(GRID[0]) for j in range(GRID[1])]
    texts = [module.project(words[0, k]) for k in range(4) if mask[0, k]]
    keys = [text + position(k, WIDTH) for k, text in enumerate(texts)]
    for layer in module.layers:
        normed = [layer.norms[0](cell) for cell in cells]
        asked = [cell + place for cell, place in zip(normed, places, strict=True)]
        cells = [cell + attend(layer.cells, one, asked, normed) for cell, one in zip(cells, asked, strict=True)]
        asked = [layer.norms[1](cell) + place for cell, place in zip(cells, places, strict=True)]
        cells = [cell + attend(layer.words, one, keys, texts) for cell, one in zip(cells, asked, strict=True)]
        cells = [cell + layer.mlp(layer.norms[2](cell)) for cell in cells]
    wanted = torch.stack([module.norm(cell) for cell in cells], 1).unflatten(1, GRID)
    assert torch.allclose(module(vision, words, mask)[0], wanted, atol=1e-12, rtol=0)
