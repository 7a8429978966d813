"""S²RM, equation by equation, against literal loops."""

import math

import pytest
import torch

from refstudy.base.errors import StudyError
from refstudy.models.fusion.s2rm import S2RM, coparse_literal
from refstudy.models.fusion.tile_concat import TileConcat
from refstudy.models.layers import position_planes
from refstudy.models.s2rm import coparse

pytestmark = pytest.mark.numeric

GRIDS = [(3, 4), (5, 3), (1, 6), (7, 7), (2, 1)]


@pytest.mark.parametrize("height, width", GRIDS)
def test_coparse_is_what_its_formula_says(height, width):
    torch.manual_seed(0)
    v, t = (torch.randn(2, 5, height, width, dtype=torch.float64) for _ in range(2))
    column, row = coparse(v, t)
    for i in range(height):
        for j in range(width):
            for h in range(height):
                for w in range(width):
                    expected = (v[:, :, i, j] * t[:, :, (i - h) % height, w]).sum(1)
                    assert torch.allclose(column[:, h * width + w, i, j], expected, rtol=0, atol=1e-12)
                    expected = (v[:, :, i, j] * t[:, :, h, (j - w) % width]).sum(1)
                    assert torch.allclose(row[:, w * height + h, i, j], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("height, width", GRIDS)
def test_gram_form_equals_the_rolled_copies_of_the_paper(height, width, shift):
    torch.manual_seed(1)
    v, t = (torch.randn(3, 8, height, width, dtype=torch.float64) for _ in range(2))
    for fast, literal in zip(coparse(v, t, shift), coparse_literal(v, t, shift), strict=True):
        assert fast.shape == literal.shape
        assert (fast - literal).abs().max() < 1e-12
    expected = (width, height) if not shift else (height * width,) * 2
    assert tuple(map_.shape[1] for map_ in coparse(v, t, shift)) == expected


@pytest.mark.parametrize("shift", [True, False])
def test_gradients_of_coparse(shift):
    torch.manual_seed(2)
    v, t = (torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: coparse(a, b, shift), (v, t))


def test_coparse_refuses_unequal_shapes():
    with pytest.raises(ValueError, match="equal shapes"):
        coparse(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4))


def module(**options):
    torch.manual_seed(0)
    return S2RM(6, 5, (2, 3), **options).double().eval()


def inputs():
    torch.manual_seed(3)
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    return torch.randn(2, 6, 2, 3).double(), torch.randn(2, 4, 5).double(), mask


def test_distribution_is_attention_over_the_words_that_are_there():
    fusion, (vision, words, mask) = module(), inputs()
    spread, attention = fusion.distribute(vision, words, mask)
    query = fusion.query(vision, words, mask)
    key, value = fusion.key(words), fusion.value(words)
    for e in range(2):
        for i in range(2):
            for j in range(3):
                scores = [(query[e, :, i, j] @ key[e, k]).item() / math.sqrt(6) for k in range(4) if mask[e, k]]
                total = sum(math.exp(s) for s in scores)
                expected = sum(math.exp(s) / total * value[e, k] for k, s in enumerate(scores))
                assert torch.allclose(spread[e, :, i, j], expected, atol=1e-10)
    assert attention[0, :, 3].abs().max() == 0


def test_balance_and_compression_follow_equations_9_and_10():
    fusion, (vision, words, mask) = module(), inputs()
    language, _ = fusion.distribute(vision, words, mask)
    groups = [*coparse(vision, language), *coparse(language, vision)]
    planes = fusion.gate(torch.cat(groups, 1))
    weights = torch.stack([planes[:, k].mean((1, 2)).sigmoid() for k in range(4)], 1)
    weighted = torch.cat([group * weights[:, k, None, None, None] for k, group in enumerate(groups)], 1)
    expected = vision + fusion.compress(weighted)
    assert torch.allclose(fusion(vision, words, mask), expected, atol=1e-10)
    assert torch.allclose(fusion.weights(groups), weights)


@pytest.mark.parametrize(
    "options, groups, planes",
    [
        ({}, 4, 4 * 6),
        ({"shift": False}, 4, 2 * (2 + 3)),
        ({"directions": ["l2v"]}, 2, 2 * 6),
        ({"shift": False, "directions": ["v2l"]}, 2, 2 + 3),
    ],
)
def test_table_four_s_switches_change_the_groups(options, groups, planes):
    fusion, (vision, words, mask) = module(**options), inputs()
    language, _ = fusion.distribute(vision, words, mask)
    made = fusion.coparse(vision, language)
    assert len(made) == groups
    assert sum(group.shape[1] for group in made) == planes
    assert fusion(vision, words, mask).shape == vision.shape


def test_directions_are_transposed_roles():
    fusion, (vision, words, mask) = module(directions=["v2l"]), inputs()
    language, _ = fusion.distribute(vision, words, mask)
    for made, expected in zip(fusion.coparse(vision, language), coparse(language, vision), strict=True):
        assert torch.allclose(made, expected)


def test_without_balance_all_weights_are_one():
    fusion, (vision, words, mask) = module(balance=False), inputs()
    language, _ = fusion.distribute(vision, words, mask)
    assert torch.equal(fusion.weights(fusion.coparse(vision, language)), torch.ones(2, 4).double())


def test_scale_divides_the_products():
    plain, scaled, (vision, words, mask) = module(), module(scale=True), inputs()
    language, _ = plain.distribute(vision, words, mask)
    for a, b in zip(plain.coparse(vision, language), scaled.coparse(vision, language), strict=True):
        assert torch.allclose(a / math.sqrt(6), b)


def test_nothing_but_the_gates_feels_the_scale():
    made = []
    for scale in (False, True):
        fusion = module(balance=False, scale=scale).train()
        fusion.compress[1].eps = 1e-14
        made.append(fusion(*inputs()))
    assert torch.allclose(*made, rtol=0, atol=1e-10)
    balanced = [module(scale=scale).train()(*inputs()) for scale in (False, True)]
    assert (balanced[0] - balanced[1]).abs().max() > 1e-3


def test_unknown_direction_and_foreign_grid_are_refused():
    with pytest.raises(StudyError, match="directions"):
        module(directions=["up"])
    with pytest.raises(StudyError, match="directions"):
        module(directions=["l2v", "l2v"])
    with pytest.raises(ValueError, match="grid"):
        module()(torch.zeros(1, 6, 3, 3).double(), torch.zeros(1, 2, 5).double(), torch.ones(1, 2, dtype=torch.bool))


def test_position_planes_hold_borders_centre_and_cell_size():
    planes = position_planes(2, 4)[0]
    left, top, right, bottom, x, y, wide, high = planes[:, 1, 2].tolist()
    assert (left, right, x) == (0.0, 0.5, 0.25)
    assert (top, bottom, y) == (0.0, 1.0, 0.5)
    assert (wide, high) == (0.25, 0.5)


def test_tile_concat_sees_the_mean_of_the_real_words():
    torch.manual_seed(0)
    fusion, (vision, words, mask) = TileConcat(6, 5, (2, 3)).double().eval(), inputs()
    changed = words.clone()
    changed[0, 3] = 99.0  # padding
    assert torch.equal(fusion(vision, words, mask), fusion(vision, changed, mask))
    changed[0, 0] += 1.0
    assert not torch.allclose(fusion(vision, words, mask), fusion(vision, changed, mask))


@pytest.mark.parametrize("planes", [True, False])
def test_tile_concat_tells_places_apart_by_its_planes_alone(planes):
    torch.manual_seed(0)
    fusion, (vision, words, mask) = TileConcat(6, 5, (2, 3), planes=planes).double().eval(), inputs()
    alike = vision.mean((2, 3), keepdim=True).expand_as(vision)
    fused = fusion(alike, words, mask)
    assert torch.allclose(fused, fused[..., :1, :1].expand_as(fused)) is not planes
