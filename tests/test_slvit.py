"""SLViT, equation by equation, against literal loops; its ablations; its trunk against SegNeXt's."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as f

from refstudy.base.errors import StudyError
from refstudy.models.decoders.hamburger import NMF, Hamburger, factorise, update_codes
from refstudy.models.encoders import TextEncoder
from refstudy.models.fusion.lmfa import LMFA, CrossModalAttention, Strip, depthwise
from refstudy.models.mscan import MSCAN, load_mscan
from refstudy.models.slvit import SLViT
from refstudy.models.urce import URCE, Enhanced, from_patches, to_patches

from .conftest import tiny_model
from .test_models import STUDY, dead_parameters, lively, silent

pytestmark = pytest.mark.numeric

WIDTHS = (8, 12, 16, 20)
TINY = {"widths": WIDTHS, "depths": (1, 1, 2, 1), "mlp_ratios": (2, 2, 2, 2), "regions": 2}
TINY |= {"urce_width": 16, "urce_heads": 2, "ham_width": 24, "ham_rank": 4}
ABLATIONS = {name: variant.whole.options for name, variant in STUDY.variants.items() if name.startswith("slvit")}
LANGUAGE_BLIND = {"cross": False, "urce": False, "strips": ()}  # not in the study


def build(**options) -> SLViT:
    torch.manual_seed(0)
    return SLViT(TextEncoder(tiny_model().text), **(TINY | options))


def inputs(size=(64, 96)):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(2, 3, *size, generator=generator)
    ids = torch.randint(5, 199, (3, 6), generator=generator)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[0, 4:] = False
    return images, ids, mask, torch.tensor([0, 0, 1])


# LMFA


def depthwise_literal(x, convolution):
    """A depth-wise convolution, tap by tap; nothing lies beyond the border."""
    channels, height, width = x.shape
    weight, bias = convolution.weight[:, 0], convolution.bias
    top, left = weight.shape[1] // 2, weight.shape[2] // 2
    made = bias[:, None, None].expand(channels, height, width).clone()
    for i, j, y, z in itertools.product(range(height), range(width), range(weight.shape[1]), range(weight.shape[2])):
        row, column = i + y - top, j + z - left
        if 0 <= row < height and 0 <= column < width:
            made[:, i, j] += weight[:, y, z] * x[:, row, column]
    return made


@torch.inference_mode()
@pytest.mark.parametrize("strips, cross, gate", [((3, 5), True, True), ((7,), True, False), ((), False, False)])
def test_lmfa_follows_equations_2_to_7(strips, cross, gate):
    torch.manual_seed(0)
    part = LMFA(4, 5, strips, cross, gate).double().eval()
    vision, words = torch.randn(2, 4, 3, 5).double(), torch.randn(2, 6, 5).double()
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    made, scores = part(vision, words, mask)
    assert (scores is not None) == cross
    for e in range(2):
        v = vision[e]
        local = depthwise_literal(v, part.local)
        total = local.clone()
        for pair in part.strips.values():
            total += depthwise_literal(depthwise_literal(local, pair[0]), pair[1])  # Eq. (2)
        if cross:
            query = torch.einsum("dc,chw->dhw", part.cross.query[0].weight[:, :, 0, 0], v)
            mean, variance = query.mean((1, 2), keepdim=True), query.var((1, 2), unbiased=False, keepdim=True)
            query = (query - mean) / (variance + 1e-5).sqrt()  # Eq. (3)
            for i, j in itertools.product(range(3), range(5)):
                keys = [part.cross.key.weight @ words[e, t] for t in range(6)]  # Eq. (4)
                values = [part.cross.value(words[e, t]) for t in range(6)]
                raw = [query[:, i, j] @ key for key in keys]  # Eq. (5)
                there = [t for t in range(6) if mask[e, t]]
                weights = [(raw[t] / math.sqrt(5)).exp() for t in there]
                gathered = sum(w * values[t] for w, t in zip(weights, there, strict=True)) / sum(weights)
                if gate:
                    weight, bias = part.cross.gate[0].weight[:, :, 0, 0], part.cross.gate[0].bias
                    gathered = f.gelu(weight @ gathered + bias)
                total[:, i, j] += gathered  # Eq. (6)
                assert (scores[e, :, i, j] - torch.stack(raw)).abs().max() < 1e-10
        mixed = torch.einsum("dc,chw->dhw", part.mix.weight[:, :, 0, 0], total) + part.mix.bias[:, None, None]
        assert (made[e] - mixed * v).abs().max() < 1e-10  # Eq. (7)


def test_a_single_cell_has_a_query_of_zero_in_training_and_in_evaluation():
    torch.manual_seed(0)
    part = LMFA(4, 5, (7,)).double()
    vision, words, mask = torch.randn(2, 4, 1, 1).double(), torch.randn(2, 3, 5).double(), torch.ones(2, 3).bool()
    trained, scores = part.train()(vision, words, mask)
    assert (scores == 0).all() and torch.equal(trained, part.eval()(vision, words, mask)[0])
    part.train()(vision, words, mask)[0].sum().backward()
    assert (part.cross.query[0].weight.grad == 0).all()


@pytest.mark.parametrize("expressions", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_lmfa_is_that_of_its_differences(expressions, layout):
    """In whatever layout and for one expression too: there, instance normalisation is easily given a wrong one."""
    torch.manual_seed(0)
    part = LMFA(4, 5, (7,)).double()
    vision = torch.randn(expressions, 4, 3, 2).double().contiguous(memory_format=layout).requires_grad_()
    words, mask = torch.randn(expressions, 3, 5).double().requires_grad_(), torch.ones(expressions, 3, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda vision, words: part(vision, words, mask), (vision, words))


def test_the_order_of_a_strip_pair_is_immaterial_but_for_the_bias_between():
    torch.manual_seed(0)
    across, down = LMFA(4, 5, (7,), cross=False).double().strips["7"]
    x = torch.randn(1, 4, 6, 9).double()
    assert (across(down(x)) - down(across(x))).abs().max() > 1e-3
    with torch.no_grad():
        across.bias.zero_(), down.bias.zero_()
    assert (across(down(x)) - down(across(x))).abs().max() < 1e-12


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size, grid", [(5, (9, 6)), (21, (16, 16)), (21, (4, 5)), (3, (1, 1))])
def test_a_strip_is_the_convolution_that_it_says(size, grid, layout):
    """By value and by both gradients, kernels longer than the map among them."""
    for sides in ((1, size), (size, 1)):
        strip = depthwise(3, *sides, Strip).double()
        x = torch.randn(2, 3, *grid, dtype=torch.float64).to(memory_format=layout).requires_grad_()
        back = torch.randn(2, 3, *grid, dtype=torch.float64)
        found = {}
        for name, forward in (("ours", strip.forward), ("plain", partial(nn.Conv2d.forward, strip))):
            out = forward(x)
            found[name] = (out, *torch.autograd.grad(out, (x, strip.weight, strip.bias), back))
        for ours, plain in zip(*found.values(), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strips", [(7, 7), (4,), (-3,)])
def test_impossible_strips_are_named(strips):
    with pytest.raises(StudyError, match="distinct odd numbers"):
        LMFA(4, 5, strips)


# The trunk, against SegNeXt's as its published tensors define it


def published_state(depths=(1, 1, 2, 1), ratio=2):
    """Random tensors under the names and with the shapes of a published MSCAN of the tiny sizes."""
    generator = torch.Generator().manual_seed(3)
    state = {}

    def add(name, *shape, low=-1.0, bias=True):
        state[f"{name}.weight"] = torch.rand(shape, generator=generator) * 2 + low
        if bias:
            state[f"{name}.bias"] = torch.rand(shape[0], generator=generator) - 0.5

    def norm(name, width):
        add(name, width, low=0.5)
        state[f"{name}.running_mean"] = torch.rand(width, generator=generator) - 0.5
        state[f"{name}.running_var"] = torch.rand(width, generator=generator) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    for i, width in enumerate(WIDTHS):
        if i == 0:
            add("patch_embed1.proj.0", width // 2, 3, 3, 3)
            norm("patch_embed1.proj.1", width // 2)
            add("patch_embed1.proj.3", width, width // 2, 3, 3)
            norm("patch_embed1.proj.4", width)
        else:
            add(f"patch_embed{i + 1}.proj", width, WIDTHS[i - 1], 3, 3)
            norm(f"patch_embed{i + 1}.norm", width)
        for j in range(depths[i]):
            block = f"block{i + 1}.{j}"
            norm(f"{block}.norm1", width)
            norm(f"{block}.norm2", width)
            for name in ("proj_1", "proj_2", "spatial_gating_unit.conv3"):
                add(f"{block}.attn.{name}", width, width, 1, 1)
            add(f"{block}.attn.spatial_gating_unit.conv0", width, 1, 5, 5)
            for k, size in enumerate((7, 11, 21)):
                add(f"{block}.attn.spatial_gating_unit.conv{k}_1", width, 1, 1, size)
                add(f"{block}.attn.spatial_gating_unit.conv{k}_2", width, 1, size, 1)
            add(f"{block}.mlp.fc1", ratio * width, width, 1, 1)
            add(f"{block}.mlp.dwconv.dwconv", ratio * width, 1, 3, 3)
            add(f"{block}.mlp.fc2", width, ratio * width, 1, 1)
            state[f"{block}.layer_scale_1"] = torch.rand(width, generator=generator)
            state[f"{block}.layer_scale_2"] = torch.rand(width, generator=generator)
        add(f"norm{i + 1}", width, low=0.5)
    add("head", 10, WIDTHS[3])
    return state


def published_forward(state, x):
    """MSCAN of SegNeXt, function by function from its tensors: the four stage outputs."""

    def conv(name, x, stride=1):
        weight = state[f"{name}.weight"]
        padding, groups = (weight.shape[2] // 2, weight.shape[3] // 2), x.shape[1] // weight.shape[1]
        return f.conv2d(x, weight, state[f"{name}.bias"], stride, padding, groups=groups)

    def norm(name, x):
        keys = ("running_mean", "running_var", "weight", "bias")
        return f.batch_norm(x, *(state[f"{name}.{key}"] for key in keys))

    outputs = []
    for stage in range(1, 5):
        embed = f"patch_embed{stage}"
        if stage == 1:
            x = f.gelu(norm(f"{embed}.proj.1", conv(f"{embed}.proj.0", x, 2)))
            x = norm(f"{embed}.proj.4", conv(f"{embed}.proj.3", x, 2))
        else:
            x = norm(f"{embed}.norm", conv(f"{embed}.proj", x, 2))
        for j in itertools.takewhile(lambda j: f"block{stage}.{j}.layer_scale_1" in state, itertools.count()):  # noqa: B023
            block = f"block{stage}.{j}"
            inner = norm(f"{block}.norm1", x)
            gate, unit = f.gelu(conv(f"{block}.attn.proj_1", inner)), f"{block}.attn.spatial_gating_unit"
            local = conv(f"{unit}.conv0", gate)
            strips = [conv(f"{unit}.conv{k}_2", conv(f"{unit}.conv{k}_1", local)) for k in range(3)]
            attended = conv(f"{block}.attn.proj_2", conv(f"{unit}.conv3", local + sum(strips)) * gate) + inner
            x = x + state[f"{block}.layer_scale_1"][:, None, None] * attended
            hidden = conv(f"{block}.mlp.dwconv.dwconv", conv(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)))
            x = x + state[f"{block}.layer_scale_2"][:, None, None] * conv(f"{block}.mlp.fc2", f.gelu(hidden))
        weight, bias = state[f"norm{stage}.weight"], state[f"norm{stage}.bias"]
        x = f.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight, bias).permute(0, 3, 1, 2)
        outputs.append(x)
    return outputs


def trunk(**options) -> MSCAN:
    torch.manual_seed(1)
    return MSCAN(32, *(TINY[key] for key in ("widths", "depths", "mlp_ratios")), **options)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_published_weights_make_segnexts_trunk(prefix):
    state = published_state()
    part = trunk(cross=False).double().eval()
    left = load_mscan(
        part,
        {prefix + name: tensor for name, tensor in state.items()} | {"decode_head.x": torch.ones(1)}
        if prefix
        else state,
    )
    assert all(name.endswith("num_batches_tracked") for name in left)
    x = torch.randn(2, 3, 40, 72).double()
    words, mask = torch.zeros(2, 1, 32).double(), torch.ones(2, 1, dtype=torch.bool)
    made, scores = part(part.embed(x), words, mask)
    expected = published_forward({name: tensor.double() for name, tensor in state.items()}, x)
    assert scores == (None,) * 4
    for a, b in zip(made, expected, strict=True):
        assert a.shape == b.shape and (a - b).abs().max() < 1e-8


def test_published_weights_have_all_but_the_language_branch():
    part, state = trunk(), published_state()
    names = set(part.state_dict())
    left = load_mscan(part, state)
    assert {name for name in names if ".cross." in name} == {n for n in left if not n.endswith("num_batches_tracked")}
    other = trunk(strips=(5, 11))  # an ablation: its pair of 11 is in the file, its pair of 5 is not
    left = load_mscan(other, state)
    assert {name.split(".strips.")[1][0] for name in left if ".strips." in name} == {"5"}
    loaded = state["block3.1.attn.spatial_gating_unit.conv1_2.weight"]
    assert torch.equal(other.blocks[2][1].attention.strips["11"][1].weight, loaded)


def test_unfitting_weights_are_named():
    state = published_state()
    with pytest.raises(StudyError, match=r"'block3.1.mlp.fc1.weight' is missing"):
        load_mscan(trunk(), {name: t for name, t in state.items() if name != "block3.1.mlp.fc1.weight"})
    with pytest.raises(StudyError, match=r"'norm2.bias' is \(3,\), not \(12,\)"):
        load_mscan(trunk(), state | {"norm2.bias": torch.zeros(3)})
    with pytest.raises(StudyError, match=r"'block3.2.attn.proj_1.bias' has no place"):
        load_mscan(trunk(), published_state((1, 1, 3, 1)))
    with pytest.raises(StudyError, match="four positive numbers"):
        MSCAN(32, widths=(8, 8, 8), depths=(1, 1, 1), mlp_ratios=(2, 2, 2))


# URCE

GRIDS = [(11, 21), (8, 16), (9, 3)]  # of stage 1; odd and even, never square


def urce_inputs(size, count=2, length=5):
    torch.manual_seed(2)
    sizes = [size]
    for _ in range(3):
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    maps = [torch.randn(count, c, *s).double() for c, s in zip(WIDTHS, sizes, strict=True)]
    scores = [torch.randn(count, length, *s).double() for s in sizes]
    mask = torch.ones(count, length, dtype=torch.bool)
    mask[-1, 3:] = False
    return maps, scores, mask


def urce(**options) -> URCE:
    torch.manual_seed(0)
    return URCE(WIDTHS, **({"regions": 3, "width": 6, "heads": 2} | options)).double()


def region(stage, y, x, size):
    """The cells of a stage that lie under cell (y, x) of stage 4."""
    side = 2 ** (4 - stage)
    rows = range(y * side, min(y * side + side, size[0]))
    return [(i, j) for i in rows for j in range(x * side, min(x * side + side, size[1]))]


@torch.inference_mode()
@pytest.mark.parametrize("size", GRIDS)
def test_map_u_follows_equation_8(size):
    maps, scores, mask = urce_inputs(size)
    made = urce().uncertainty(scores, mask)
    for e, (y, x) in itertools.product(range(2), itertools.product(*map(range, maps[3].shape[-2:]))):
        down = []
        for stage, s in enumerate(scores, start=1):
            cells = region(stage, y, x, s.shape[-2:])
            down.append(sum(s[e, t, i, j] for i, j in cells for t in range(5) if mask[e, t]) / len(cells))
        expected = sum(abs(down[i] - down[i - 1]) for i in range(1, 4))
        assert abs(made[e, y, x] - expected) < 1e-10
    assert made.shape == (2, *maps[3].shape[-2:])


@torch.inference_mode()
@pytest.mark.parametrize("stages, restored", [((1, 2, 3, 4), None), ((2, 3, 4), (2, 4)), ((1, 3), None), ((2,), None)])
@pytest.mark.parametrize("size", GRIDS)
def test_urce_follows_equations_9_to_12(size, stages, restored):
    maps, scores, mask = urce_inputs(size)
    part = urce(stages=stages, restored=restored)
    enhanced, uncertainty, cells = part(maps, scores, mask)
    expected = [x.clone() for x in maps]
    columns = maps[3].shape[-1]
    weights, biases = part.query_key_value.weight.chunk(3), part.query_key_value.bias.chunk(3)
    for e in range(2):
        order = sorted(range(uncertainty[e].numel()), key=lambda p: -uncertainty[e].flatten()[p].item())
        assert cells[e].tolist() == order[:3]  # Eq. (9)
        for p in order[:3]:
            places = [
                (stage, i, j)
                for stage in stages
                for i, j in region(stage, *divmod(p, columns), maps[stage - 1].shape[-2:])
            ]
            tokens = torch.stack([part.unify[str(s)](maps[s - 1][e, :, i, j]) for s, i, j in places])  # Eq. (10)
            q, k, v = (part.norm(tokens) @ w.T + b for w, b in zip(weights, biases, strict=True))
            heads = []
            for h in range(2):
                own = slice(3 * h, 3 * h + 3)
                heads.append((q[:, own] @ k[:, own].T / math.sqrt(3)).softmax(1) @ v[:, own])
            attended = tokens + part.output(torch.cat(heads, dim=1))  # Eq. (11)
            for (s, i, j), token in zip(places, attended, strict=True):
                if s in (restored or stages):
                    expected[s - 1][e, :, i, j] = part.reverse[str(s)](token)  # Eq. (12)
    for a, b in zip(enhanced, expected, strict=True):
        assert a.shape == b.shape and (a - b).abs().max() < 1e-10


@torch.inference_mode()
def test_the_skip_path_joins_what_was_and_what_became_of_it():
    """As the public code has it: a linear map over both, LayerNorm, ReLU, in every cell of the stages put back."""
    maps, scores, mask = urce_inputs((19, 27))
    plain, part = urce(restored=(2, 4)), urce(restored=(2, 4), skip=True)  # the same weights where both have them
    replaced, joined = plain(maps, scores, mask).maps, part(maps, scores, mask).maps
    assert torch.equal(joined[0], maps[0]) and torch.equal(joined[2], maps[2])
    for stage in (2, 4):
        linear, norm, _ = part.joins[str(stage)]
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        x, y = maps[stage - 1], replaced[stage - 1]
        made = part(maps, scores, mask).maps[stage - 1]
        for e, (i, j) in itertools.product(range(2), itertools.product(*map(range, x.shape[-2:]))):
            cell = linear.weight @ torch.cat([y[e, :, i, j], x[e, :, i, j]]) + linear.bias
            cell = (cell - cell.mean()) / (cell.var(correction=0) + norm.eps).sqrt() * norm.weight + norm.bias
            assert (made[e, :, i, j] - cell.clamp(min=0)).abs().max() < 1e-10


def test_put_back_is_the_inverse_of_gather():
    x = torch.randn(2, 3, 7, 10)
    patches = to_patches(x, 4, (2, 3))
    assert patches.shape == (2, 6, 16, 3)
    assert torch.equal(patches[0, 4, 0], x[0, :, 4, 4])
    assert torch.equal(from_patches(patches, 4, (2, 3), (7, 10)), x)


@pytest.mark.parametrize("regions, changed", [(1, 1), (5, 5), (6, 6), (1000, 6)])
def test_k_regions_change_and_no_more(regions, changed):
    maps, scores, mask = urce_inputs((16, 24))  # 2 x 3 regions
    enhanced, _, cells = urce(regions=regions)(maps, scores, mask)
    assert cells.shape == (2, changed)
    for stage, (before, after) in enumerate(zip(maps, enhanced, strict=True), start=1):
        touched = (before != after).any(1).sum((1, 2))
        assert touched.tolist() == [changed * 4 ** (4 - stage)] * 2


def test_equal_cells_are_chosen_in_order():
    part = urce(regions=4)
    uncertainty = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 1.0, 2.0]], [[0.0] * 3] * 2])
    assert part.choose(uncertainty).tolist() == [[5, 1, 4, 0], [0, 1, 2, 3]]


def test_the_public_order_makes_every_cell_equal_and_the_paper_s_does_not():
    maps, scores, mask = urce_inputs((19, 27))
    scores = [5 * s.float() for s in scores]
    part = urce(score_source="softmax")
    correlation = part.correlation(scores[0], mask)
    assert torch.allclose(correlation, torch.ones_like(correlation), atol=1e-6)
    assert torch.equal(part.uncertainty(scores, mask), torch.zeros(2, 3, 4))
    assert part.choose(part.uncertainty(scores, mask)).tolist() == [[0, 1, 2]] * 2
    raw = urce().uncertainty(scores, mask)
    assert raw.min() > 0 and raw.flatten(1).std(1).min() > 0.1 * raw.mean()


@pytest.mark.parametrize(
    "options",
    [
        {"stages": ()},
        {"stages": (0, 1)},
        {"restored": (2,), "stages": (1,)},
        {"restored": ()},
        {"regions": 0},
        {"score_source": "mean"},
        {"heads": 5},
    ],
)
def test_impossible_options_of_urce_are_named(options):
    with pytest.raises(StudyError, match="urce"):
        urce(**options)


# Hamburger


@torch.inference_mode()
def test_nmf_steps_follow_their_formulas():
    torch.manual_seed(0)
    x, bases = torch.rand(2, 4, 6).double(), torch.rand(2, 4, 3).double()
    made_bases, made_codes = factorise(x, bases, 2)
    for e in range(2):
        data, b = x[e], bases[e].clone()
        c = torch.zeros(3, 6, dtype=torch.float64)
        for n in range(6):
            fit = [math.exp(sum(b[d, r] * data[d, n] for d in range(4))) for r in range(3)]
            c[:, n] = torch.tensor([value / sum(fit) for value in fit], dtype=torch.float64)
        for _ in range(2):
            old, product = c.clone(), b @ c
            for r, n in itertools.product(range(3), range(6)):
                top = sum(b[d, r] * data[d, n] for d in range(4))
                c[r, n] = old[r, n] * top / (sum(b[d, r] * product[d, n] for d in range(4)) + 1e-6)
            old, product = b.clone(), b @ c
            for d, r in itertools.product(range(4), range(3)):
                top = sum(data[d, n] * c[r, n] for n in range(6))
                b[d, r] = old[d, r] * top / (sum(product[d, n] * c[r, n] for n in range(6)) + 1e-6)
        assert (made_bases[e] - b).abs().max() < 1e-10
        assert (made_codes[e] - c).abs().max() < 1e-10


def test_more_steps_come_nearer_and_nothing_becomes_negative():
    torch.manual_seed(0)
    x = torch.rand(1, 8, 3) @ torch.rand(1, 3, 40)  # of rank 3
    start = torch.rand(1, 8, 3)
    errors = []
    for steps in (0, 1, 6, 1000):
        bases, codes = factorise(x, start, steps)
        assert bases.min() >= 0 and codes.min() >= 0
        errors.append((x - bases @ codes).norm().item())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02 * x.norm()


def test_nmf_is_drawn_in_training_and_fixed_in_evaluation():
    part, x = NMF(8, 3, 6, 7), torch.rand(2, 8, 40)
    torch.manual_seed(0)
    first, second = part(x), part(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(part(x), first)
    part.eval()
    state = torch.get_rng_state()
    fixed = part(x)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(NMF(8, 3, 6, 7).eval()(x), fixed)  # another instance, the same bases
    assert torch.allclose(part(x[1:]), fixed[1:], atol=1e-6)
    bases, codes = factorise(x, f.normalize(part.bases, dim=0).expand(2, -1, -1), 7)
    assert torch.allclose(fixed, bases @ update_codes(x, bases, codes), atol=1e-6)


def test_the_gradient_of_nmf_is_that_of_its_last_update():
    part = NMF(4, 2, 6, 7).double().eval()
    x = torch.rand(1, 4, 5).double().requires_grad_()
    bases, codes = factorise(x.detach(), f.normalize(part.bases, dim=0)[None], 7)
    expected = bases @ update_codes(x, bases, codes)
    weights = torch.rand_like(expected)
    assert torch.allclose(*(torch.autograd.grad(made, x, weights)[0] for made in (part(x), expected)), atol=1e-12)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_nmf_runs_in_float32_under_autocast(precision):
    part, x = NMF(8, 3, 6, 7).eval(), torch.rand(2, 8, 40)
    expected = part(x)
    with torch.autocast("cpu", precision):
        assert torch.equal(part(x), expected)
        assert part(x.to(precision)).dtype == torch.float32


def test_mixing_first_equals_upsampling_and_concatenating_first():
    torch.manual_seed(0)
    part = Hamburger(WIDTHS, 6, 2).double()
    maps = [torch.randn(2, c, *s).double() for c, s in zip(WIDTHS, ((9, 13), (5, 7), (3, 4), (2, 2)), strict=True)]
    wide = torch.cat([f.interpolate(x, size=(9, 13), mode="bilinear", align_corners=False) for x in maps], dim=1)
    assert torch.equal(part.upsampled_first(maps), part.squeeze(wide))
    assert (part.join(maps) - part.upsampled_first(maps)).abs().max() < 1e-10


# The whole model


def test_without_language_every_other_parameter_learns():
    dead = dead_parameters(lively(build(**LANGUAGE_BLIND, drop_path_rate=0.0)), *inputs())
    assert dead and all(name.startswith("text_encoder.") for name in dead)


def test_the_variants_of_the_study_are_different_models():
    arguments, made = inputs(), {}
    for name, options in (ABLATIONS | {"blind": LANGUAGE_BLIND}).items():
        with torch.inference_mode():
            made[name] = lively(build(**options)).eval()(*arguments)
    same = {frozenset(pair) for pair in itertools.combinations(made, 2) if torch.equal(*(made[row] for row in pair))}
    expected = {frozenset(pair) for pair in itertools.combinations(("slvit_k8", "slvit_k16", "slvit_k64"), 2)}
    expected.add(frozenset({"slvit_strip21", "slvit_strip21_pretrained"}))  # which differ in what they start from
    assert same == expected  # the grid has six cells


def test_the_head_takes_the_features_that_table_2e_names():
    model, arguments = build(raw_stages=(1,)).eval(), inputs()
    with torch.inference_mode():
        steps = model.steps(model.encode_image(arguments[0]), *arguments[1:])
    equal = [torch.equal(a, b) for a, b in zip(steps.encoded, steps.enhanced, strict=True)]
    assert equal == [True, False, False, False]
    model = build(predict_stages=(2, 3, 4)).eval()
    with torch.inference_mode():
        steps = model.steps(model.encode_image(arguments[0]), *arguments[1:])
    assert steps.logits.shape == (3, 1, 8, 12)  # stride 8


def test_steps_are_those_of_forward():
    model, (images, ids, mask, index) = lively(build()).eval(), inputs()
    with torch.inference_mode():
        steps = model.steps(model.encode_image(images), ids, mask, index)
        again = model.urce(steps.encoded, steps.scores, mask)
        upsampled = f.interpolate(steps.logits, size=(64, 96), mode="bilinear", align_corners=False).squeeze(1)
        assert torch.equal(upsampled, model(images, ids, mask, index))
        assert torch.equal(model.decoder(steps.enhanced), steps.logits)
    assert torch.equal(again.cells, steps.cells) and torch.equal(again.uncertainty, steps.uncertainty)
    assert [tuple(s.shape) for s in steps.scores] == [(3, 6, 16, 24), (3, 6, 8, 12), (3, 6, 4, 6), (3, 6, 2, 3)]
    assert steps.cells.shape == (3, 2)


def distance(made, expected):
    """The largest difference, as a share of the largest value."""
    return ((made.float() - expected).abs().max() / expected.abs().max()).item()


@torch.inference_mode()
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_in_every_part_and_words_are_not_lost_in_it(precision, monkeypatch):
    model, arguments, calls = lively(build(regions=6)).eval(), inputs(), []  # all regions: no choice to turn
    parts = [part for part in model.modules() if isinstance(part, LMFA | URCE)]
    hooks = [part.register_forward_hook(lambda *call: calls.append(call)) for part in parts]
    expected = model(*arguments)
    for hook in hooks:
        hook.remove()
    assert len(calls) == 6  # five blocks and URCE

    def farthest():
        results = [(part(*given), made) for part, given, made in calls]
        tensors = [[r.maps if isinstance(r, Enhanced) else r for r in pair] for pair in results]
        return [max(distance(*pair) for pair in zip(*both, strict=True)) for both in tensors]

    with torch.autocast("cpu", precision):
        assert distance(model(*arguments), expected) < 0.02
        assert max(farthest()) < 0.02
        monkeypatch.setattr(CrossModalAttention, "forward", silent(CrossModalAttention.forward))
        assert min(farthest()[:5]) > 0.1


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_gradients_of_half_precision_are_finite(precision):
    model = lively(build()).train()
    with torch.autocast("cpu", precision):
        logits = model(*inputs())
    logits.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("size", [(100, 72), (65, 33), (96, 160)])
def test_images_need_be_neither_square_nor_multiples_of_32(size):
    model, (_, ids, mask, index) = build().eval(), inputs()
    with torch.inference_mode():
        logits = model(torch.randn(2, 3, *size), ids, mask, index)
    assert logits.shape == (3, *size) and torch.isfinite(logits).all()


def test_without_the_cross_modal_branch_no_word_is_heard():
    model, (images, ids, mask, index) = lively(build(cross=False, urce=False)).eval(), inputs()
    with torch.inference_mode():
        assert torch.equal(model(images, ids, mask, index), model(images, ids.flip(0, 1), mask, index))


class MetaText(nn.Module):
    """A text encoder of BERT's width that reads nothing."""

    width = 768

    def forward(self, token_ids, token_mask):
        return torch.zeros(*token_ids.shape, self.width, device=token_ids.device)


def test_the_published_size_on_the_meta_device():
    with torch.device("meta"):
        model = SLViT(MetaText()).eval()
        ids = torch.zeros(2, 20, dtype=torch.long)
        logits = model(torch.zeros(1, 3, 480, 480), ids, ids == 0, torch.zeros(2, dtype=torch.long))
    assert logits.shape == (2, 480, 480)  # no value is read on the way
    cross, rest = 0, 0
    for name, parameter in model.image_encoder.named_parameters():
        if ".cross." in name:
            cross += parameter.numel()
        else:
            rest += parameter.numel()
    assert rest == pytest.approx(26.3e6, rel=0.01)  # MSCAN-B
    blocks = [(width, depth) for width, depth in zip((64, 128, 320, 512), (3, 3, 12, 3), strict=True)]
    # per block: query C*C, key and value 768*C with C for the value's bias, gate C*C + C, Eqs. (3)-(6)
    assert cross == sum(depth * (2 * c * c + 2 * 768 * c + 2 * c) for c, depth in blocks)
    # the authors' public code, with an output projection and a second gate layer that the paper does not have
    assert cross + sum(2 * depth * c * c for c, depth in blocks) == pytest.approx(17.4e6, rel=0.01)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cross": False}, "urce reads"),
        ({"predict_stages": (2, 1)}, "in this order"),
        ({"predict_stages": ()}, "of"),
        ({"raw_stages": (7,)}, "raw_stages"),
    ],
)
def test_options_that_contradict_each_other_are_named(options, message):
    with pytest.raises(StudyError, match=f"slvit: .*{message}"):
        build(**options)
