"""PWAM with its gate, and ACM: the fusion modules of Table VII, equation by equation, against literal loops."""

import math

import pytest
import torch
from torch.nn.functional import conv2d
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from refstudy.models.fusion.acm import ACM, ANCHOR_GRIDS, CoAttention, anchors, unit
from refstudy.models.fusion.pwam import PWAM, LanguageGate, PWAMFusion
from refstudy.models.fusion.s2rm import S2RM
from refstudy.models.fusion.tile_concat import TileConcat
from refstudy.models.layers import InstanceNorm, position_planes

pytestmark = pytest.mark.numeric

FUSIONS = {
    "pwam": PWAMFusion,
    "pwam_residual": lambda *sizes: PWAMFusion(*sizes, decoded="residual"),
    "acm": lambda *sizes: ACM(*sizes, width=7, inner=4),
}
GRID = (2, 3)


def module(name: str, grid=GRID):
    torch.manual_seed(0)
    return FUSIONS[name](6, 5, grid)


def inputs(grid=GRID, expressions=2):
    torch.manual_seed(3)
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]] * expressions)[:expressions]
    return torch.randn(expressions, 6, *grid).double(), torch.randn(expressions, 4, 5).double(), mask


def literal_instance_norm(cells):
    """Over (N, C), channel by channel."""
    columns = []
    for c in range(cells.shape[1]):
        mean = sum(cells[:, c]) / len(cells)
        variance = sum((x - mean) ** 2 for x in cells[:, c]) / len(cells)
        columns.append((cells[:, c] - mean) / (variance + 1e-5).sqrt())
    return torch.stack(columns, dim=1)


def literal_gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def literal_pwam(part: PWAM, cells, words, mask):
    """One expression: cells (N, C), words (L, D), mask (L,); weights as matrices of 1x1 convolutions."""
    query = literal_instance_norm(cells @ part.query.weight.T)
    rows = []
    for n in range(len(cells)):
        present = [k for k in range(len(words)) if mask[k]]
        scores = [(query[n] @ (part.key.weight @ words[k])).item() / math.sqrt(cells.shape[1]) for k in present]
        total = sum(math.exp(s) for s in scores)
        rows.append(sum(math.exp(s) / total * (part.value.weight @ words[k]) for s, k in zip(scores, present)))  # noqa: B905
    gathered = literal_instance_norm(torch.stack(rows) @ part.gathered.weight.T)
    visual = literal_gelu(cells @ part.visual[0].weight.T + part.visual[0].bias)
    return literal_gelu((visual * gathered) @ part.output[0].weight.T + part.output[0].bias)


def test_pwam_is_what_its_equations_say():
    part, (vision, words, mask) = module("pwam").double().attention, inputs()
    cells = vision.flatten(2).transpose(1, 2)
    made = part(cells, words, mask)
    for e in range(2):
        assert (made[e] - literal_pwam(part, cells[e], words[e], mask[e])).abs().max() < 1e-10
    _, attention = part.gather(cells, words, mask)
    assert attention[0, :, 3].abs().max() == 0
    assert torch.allclose(attention.sum(2), torch.ones(2, 6).double())


def test_biases_that_pwam_leaves_out_would_change_nothing():
    """The paper's convolutions have them; the norm over cells and the softmax over words take them away again."""
    part, (vision, words, mask) = module("pwam").double().attention, inputs()
    cells = vision.flatten(2).transpose(1, 2)
    biased = PWAM(6, 5).double()
    for name in ("query", "key", "value", "gathered"):
        linear = getattr(biased, name)
        setattr(biased, name, torch.nn.Linear(linear.in_features, linear.out_features).double())
    missing = biased.load_state_dict(part.state_dict(), strict=False).missing_keys
    assert len(missing) == 4 and all(biased.get_parameter(name).abs().max() > 0.1 for name in missing)
    assert (biased(cells, words, mask) - part(cells, words, mask)).abs().max() < 1e-10


def test_the_decoder_gets_pwam_s_cells_layer_normalised():
    fusion, (vision, words, mask) = module("pwam").double(), inputs()
    torch.nn.init.normal_(fusion.norm.weight)
    torch.nn.init.normal_(fusion.norm.bias)
    attended = fusion.attention(vision.flatten(2).transpose(1, 2), words, mask)
    made = fusion(vision, words, mask)
    for e in range(2):
        for n in range(6):
            cell = attended[e, n]
            mean = sum(cell) / 6
            deviation = (sum((x - mean) ** 2 for x in cell) / 6 + 1e-5).sqrt()
            expected = (cell - mean) / deviation * fusion.norm.weight + fusion.norm.bias
            assert torch.allclose(made[e, :, n // 3, n % 3], expected, rtol=0, atol=1e-10)
    assert fusion.gate is None


def test_the_residual_reading_weighs_with_tanh_and_adds_to_v4():
    fusion, (vision, words, mask) = module("pwam_residual").double(), inputs()
    cells = vision.flatten(2).transpose(1, 2)
    attended = fusion.attention(cells, words, mask)
    first, second = fusion.gate.weigh[0].weight, fusion.gate.weigh[2].weight
    made = fusion(vision, words, mask)
    for e in range(2):
        for n in range(6):
            gate = torch.tanh(second @ (first @ attended[e, n]).clamp(min=0))
            assert torch.allclose(fusion.gate(attended)[e, n], gate, rtol=0, atol=1e-10)
            expected = vision[e, :, n // 3, n % 3] + gate * attended[e, n]
            assert torch.allclose(made[e, :, n // 3, n % 3], expected, rtol=0, atol=1e-10)
    assert all(bias is None for bias in (fusion.gate.weigh[0].bias, fusion.gate.weigh[2].bias))
    assert torch.equal(LanguageGate(3)(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3))


def test_instance_norm_is_pytorch_s_own_and_zero_on_one_cell():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 5, 4).double().to(memory_format=torch.channels_last)
    expected = torch.nn.functional.instance_norm(maps)
    for form, like in ((maps, expected), (maps.flatten(2), expected.flatten(2))):
        assert (InstanceNorm()(form) - like).abs().max() < 1e-10
    assert torch.equal(InstanceNorm()(maps[:, :, :1, :1]), torch.zeros(2, 3, 1, 1).double())


def test_pwam_trains_on_a_grid_of_one_cell():
    fusion, (vision, words, mask) = module("pwam", (1, 1)).double().train(), inputs((1, 1))
    made = fusion(vision, words, mask)
    made.square().sum().backward()
    assert torch.isfinite(made).all()
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters())
    assert torch.equal(made, fusion.eval()(vision, words, mask))


@pytest.mark.parametrize("height, width", [(16, 16), (8, 8), (2, 3), (1, 1), (5, 13)])
def test_there_are_110_anchors_on_any_grid(height, width):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, height, width).double()
    expected = []
    for side in ANCHOR_GRIDS:
        for i in range(side):
            for j in range(side):
                rows = slice(i * height // side, -(-(i + 1) * height // side))
                columns = slice(j * width // side, -(-(j + 1) * width // side))
                expected.append(maps[:, :, rows, columns].mean((2, 3)))
    assert anchors(maps).shape == (2, 3, 110)
    assert (anchors(maps) - torch.stack(expected, dim=2)).abs().max() < 1e-10


def trained(part):
    """In evaluation mode, with batch norms that are not the identity."""
    torch.manual_seed(4)
    for layer in part.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.bias)
    return part.double().eval()


def test_acm_adds_both_scores_before_one_softmax_over_the_anchors():
    torch.manual_seed(0)
    part = trained(CoAttention(7, 4))
    modalities = [torch.randn(2, 7, *GRID).double() for _ in range(2)]
    queries = [layer(maps) for layer, maps in zip(part.queries, modalities, strict=True)]
    keys, values = (
        [anchors(layer(maps)) for layer, maps in zip(layers, modalities, strict=True)]
        for layers in (part.keys, part.values)
    )
    made = part(*modalities)
    for e in range(2):
        for i in range(2):
            for j in range(3):
                scores = [
                    sum((queries[m][e, :, i, j] @ keys[m][e, :, a]).item() for m in range(2)) / math.sqrt(4)
                    for a in range(110)
                ]
                total = sum(math.exp(s) for s in scores)
                for m in range(2):
                    mixed = sum(math.exp(s) / total * values[m][e, :, a] for a, s in enumerate(scores))
                    expected = part.outputs[m].weight[:, :, 0, 0] @ mixed + part.outputs[m].bias
                    assert torch.allclose(made[m][e, :, i, j], expected, rtol=0, atol=1e-10)


def literal_convolve(layer, x):
    """Convolution, batch normalisation with the running numbers, PReLU."""
    convolution, norm, prelu = layer
    x = conv2d(x, convolution.weight, padding=1)
    mean, variance, weight, bias = (
        v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    x = (x - mean) / (variance + norm.eps).sqrt() * weight + bias
    return torch.where(x > 0, x, prelu.weight * x)


def test_the_block_around_acm():
    fusion, (vision, words, mask) = trained(module("acm")), inputs()
    mixed = fusion.mixed(vision, words, mask)
    language, attention = fusion.language(mixed, words, mask)
    for e in range(2):
        present = [k for k in range(4) if mask[e, k]]
        sentence = fusion.sentence(sum(words[e, k] for k in present) / len(present))
        tiled = (sentence / sentence.norm())[:, None, None].expand(-1, *GRID)
        reduced = literal_convolve(fusion.reduce, vision[e : e + 1])[0]
        joined = torch.cat([reduced / reduced.norm(dim=0), tiled, position_planes(*GRID)[0].double()])
        expected = literal_convolve(fusion.mix, joined[None])[0]
        assert (mixed[e] - expected / expected.norm(dim=0)).abs().max() < 1e-10
        named = [fusion.word(words[e, k]) / fusion.word(words[e, k]).norm() for k in present]
        for i in range(2):
            for j in range(3):
                query = fusion.query.weight[:, :, 0, 0] @ mixed[e, :, i, j] + fusion.query.bias
                scores = [(query @ word).item() for word in named]
                total = sum(math.exp(s) for s in scores)
                expected = sum(math.exp(s) / total * word for s, word in zip(scores, named, strict=True))
                assert torch.allclose(language[e, :, i, j], expected, rtol=0, atol=1e-10)
    assert attention[0, :, 3].abs().max() == 0
    vision_context, language_context = fusion.attention(mixed, language)
    contexts = torch.cat([language_context, vision_context], dim=1)
    restored = literal_convolve(fusion.restore, contexts / contexts.norm(dim=1, keepdim=True))
    summed = vision / vision.norm(dim=1, keepdim=True) + restored / restored.norm(dim=1, keepdim=True)
    expected = literal_convolve(fusion.output, summed)
    assert (fusion(vision, words, mask) - expected).abs().max() < 1e-10


def test_unit_vectors_have_length_one_and_zero_stays_zero():
    torch.manual_seed(0)
    vectors = torch.randn(2, 5, 3)
    assert torch.allclose(unit(vectors).norm(dim=1), torch.ones(2, 3))
    assert torch.equal(unit(torch.zeros(1, 4).half()), torch.zeros(1, 4).half())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", FUSIONS)
def test_padding_words_never_change_a_result(name, training):
    fusion, (vision, words, mask) = module(name).double().train(training), inputs()
    expected = fusion(vision, words, mask)
    changed = words.clone()
    changed[0, 3] = 99.0
    assert torch.equal(fusion(vision, changed, mask), expected)
    longer = torch.cat([words, torch.full((2, 2, 5), 7.0).double()], 1)
    longer_mask = torch.cat([mask, torch.zeros(2, 2, dtype=torch.bool)], 1)
    assert (fusion(vision, longer, longer_mask) - expected).abs().max() < 1e-10
    changed[0, 0] += 1.0
    assert not torch.allclose(fusion(vision, changed, mask), expected)


@pytest.mark.parametrize("grid", [(2, 3), (9, 5), (1, 4)])
@pytest.mark.parametrize("name", FUSIONS)
def test_an_expression_is_fused_as_if_it_were_alone(name, grid):
    fusion, (vision, words, mask) = trained(module(name, grid)), inputs(grid, expressions=3)
    together = fusion(vision, words, mask)
    assert together.shape == vision.shape
    alone = torch.cat([fusion(*(x[k : k + 1] for x in (vision, words, mask))) for k in range(3)])
    assert (together - alone).abs().max() < 1e-10


@pytest.mark.parametrize("name", FUSIONS)
def test_every_parameter_and_input_gets_a_gradient(name):
    fusion, (vision, words, mask) = module(name).double().train(), inputs()
    if name == "acm":  # at first all cells gather nearly the same words, and no anchor of the language map stands out
        torch.nn.init.normal_(fusion.query.weight, std=10)
    vision.requires_grad_()
    words.requires_grad_()
    fusion(vision, words, mask)[:, 0].square().sum().backward()
    gradients = {key: p.grad for key, p in fusion.named_parameters()} | {"vision": vision.grad, "words": words.grad}
    assert [key for key, g in gradients.items() if g is None or not g.abs().sum() > 1e-12] == []
    assert words.grad[0, 3].abs().max() == 0  # padding


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FUSIONS)
def test_half_precision_stays_near_full_precision(name, precision):
    fusion, (vision, words, mask) = module(name), inputs()
    vision, words = vision.float(), words.float()
    expected = fusion(vision, words, mask)
    with torch.autocast("cpu", precision):
        made = fusion(vision, words, mask)
        made.float().square().sum().backward()
    assert (made.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters())


class FromTheCPU(TorchDispatchMode):
    """The operations within it that take a tensor on the CPU."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        tensors = [leaf for leaf in tree_leaves((arguments, named)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type == "cpu" for tensor in tensors):
            self.names.append(str(function))
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("part", [TileConcat, S2RM, ACM, PWAMFusion])
def test_a_second_forward_waits_for_no_copy_to_the_device(part):
    position_planes.cache_clear()
    with torch.device("meta"):
        fusion = part(6, 5, GRID).eval()
        arguments = torch.zeros(2, 6, *GRID), torch.zeros(2, 4, 5), torch.ones(2, 4, dtype=torch.bool)
    with FromTheCPU() as first:
        fusion(*arguments)
    with FromTheCPU() as second:
        fusion(*arguments)
    assert bool(first.names) == (part is not PWAMFusion) and not second.names


@pytest.mark.parametrize("name, giga, mega", [("acm", 5.672, 22.79), ("pwam", 0.635, 3.54)])
def test_cost_at_the_paper_s_size(name, giga, mega):
    """Multiply-adds on a grid of 16x16 with 768 channels and 20 words, matrix products included."""
    with torch.device("meta"):
        fusion = {"acm": ACM, "pwam": PWAMFusion}[name](768, 768, (16, 16)).eval()
        arguments = torch.zeros(1, 768, 16, 16), torch.zeros(1, 20, 768), torch.ones(1, 20, dtype=torch.bool)
        with FlopCounterMode(display=False) as counter:
            fusion(*arguments)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, abs=0.001)
    assert sum(p.numel() for p in fusion.parameters()) / 1e6 == pytest.approx(mega, abs=0.01)
