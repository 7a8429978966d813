"""CASG, equation by equation, and its two exact shortcuts."""

import copy
import itertools
import math
import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from refstudy.base.errors import StudyError
from refstudy.models.decoders.casg import CASG, CASGStage, UpsampledConv, lifted_first, lifted_scores
from refstudy.training.trainer import compiled

pytestmark = pytest.mark.numeric

CHANNELS = (4, 6, 8, 10)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (7, 5)])
def test_mixing_first_equals_upsampling_first(size):
    torch.manual_seed(0)
    convolution = UpsampledConv((6, 5, 3), 2).double()
    maps = [torch.randn(2, c, h, w).double().requires_grad_() for c, h, w in ((6, 1, 2), (5, 3, 4), (3, 4, 5))]
    fast, literal = convolution.mixed_first(maps, size), convolution.upsampled_first(maps, size)
    assert (fast - literal).abs().max() < 1e-10
    parameters = [*maps, convolution.weight]
    seed = torch.randn_like(fast)
    for a, b in zip(
        torch.autograd.grad(fast, parameters, seed), torch.autograd.grad(literal, parameters, seed), strict=True
    ):
        assert (a - b).abs().max() < 1e-10


def test_in_fp32_mixing_first_is_exact_up_to_rounding():
    torch.manual_seed(0)
    convolution = UpsampledConv((256, 128, 64), 32)
    maps = [torch.randn(1, c, s, s) for c, s in ((256, 4), (128, 8), (64, 16))]
    with torch.no_grad():
        exact = copy.deepcopy(convolution).double().upsampled_first([x.double() for x in maps], (32, 32))
        assert (convolution(maps, (32, 32)) - exact).norm() < 2e-6 * exact.norm()


def test_the_order_is_that_of_fewer_multiplications():
    convolution = UpsampledConv((6, 4), 2)
    for sides, less in (((2, 4), True), ((8, 8), False)):
        maps = [torch.randn(1, c, s, s) for c, s in zip((6, 4), sides, strict=True)]
        assert convolution.mixing_is_less(maps, (8, 8)) == less
        forms = []
        for form in (convolution.upsampled_first, convolution):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                forms.append((form(maps, (8, 8)), counter.get_total_flops()))
        (literal, most), (ours, flops) = forms
        assert flops < most if less else flops == most
        assert torch.allclose(ours, literal, atol=1e-5)


def test_the_weights_are_those_of_the_plain_convolution():
    plain = torch.nn.Conv2d(9, 2, 3, padding=1, bias=False)
    UpsampledConv((6, 3), 2).load_state_dict(plain.state_dict())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_it_trains_as_it_does_uncompiled():
    """Compiled once for any number of expressions, as a training's batches have them."""
    torch.manual_seed(0)
    convolution = UpsampledConv((6, 4), 3)
    of_compiled = compiled(convolution, fullgraph=True)
    for count in (2, 3):
        maps = [torch.randn(count, c, s, s, requires_grad=True) for c, s in ((6, 2), (4, 4))]
        for x in maps:
            torch._dynamo.mark_dynamic(x, 0)
        with warnings.catch_warnings(action="ignore"):  # that it looks into the function that keeps the matrices
            made = of_compiled(maps, (8, 8))
        expected, parameters = convolution(maps, (8, 8)), [*maps, convolution.weight]
        assert torch.allclose(made, expected, atol=1e-5)
        gradients = (torch.autograd.grad(some.square().sum(), parameters) for some in (made, expected))
        for ours, theirs in zip(*gradients, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="one width of vectors only")
def test_code_kept_by_another_processor_is_not_used(tmp_path):
    """Written for vectors of 16 and run with vectors of 8, each second eight of the values is left as memory was."""
    code = (
        "import torch; from refstudy.training.trainer import compiled\n"
        "assert (compiled(lambda x: x * 2)(torch.ones(64)) == 2).all()"
    )
    for capability in ("avx512", "avx2", "default"):
        environment = {"ATEN_CPU_CAPABILITY": capability, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        environment["MALLOC_PERTURB_"] = "1"  # glibc fills what it hands out
        subprocess.run([sys.executable, "-c", code], env=os.environ | environment, check=True)


def test_taking_the_sentence_into_the_kernel_equals_lifting():
    torch.manual_seed(0)
    lift = torch.nn.Conv2d(5, 7, 3, padding=1).double()
    cells, sentence = torch.randn(3, 5, 4, 6).double(), torch.randn(3, 7).double()
    expected = torch.einsum("edhw,ed->ehw", lift(cells), sentence)
    assert (lifted_first(cells, lift, sentence) - expected).abs().max() < 1e-10
    assert (lifted_scores(cells, lift, sentence) - expected).abs().max() < 1e-10


def test_nothing_is_read_beyond_the_border_of_the_upsampled_map():
    """The literal sum of Eq. (13), cell by cell: taps outside the upsampled map count as zero."""
    torch.manual_seed(0)
    convolution, x, size = UpsampledConv((3,), 2).double(), torch.randn(1, 3, 2, 3).double(), (4, 6)
    up = interpolate(x, size=size, mode="bilinear", align_corners=False)[0]
    expected = torch.zeros(2, *size, dtype=torch.float64)
    for i, j in itertools.product(range(size[0]), range(size[1])):
        for y, z in itertools.product(range(3), range(3)):
            row, column = i + y - 1, j + z - 1
            if 0 <= row < size[0] and 0 <= column < size[1]:
                expected[:, i, j] += convolution.weight[:, :, y, z] @ up[:, row, column]
    assert (convolution([x], size)[0] - expected).abs().max() < 1e-10


def stage(**options):
    torch.manual_seed(0)
    settings = {"language": True, "channel": True, "spatial": True, "attention": "tanh", "reading": "lift"} | options
    return CASGStage(4, (10, 6), 5, **settings).double().eval()


def stage_inputs():
    torch.manual_seed(1)
    deeper = [torch.randn(2, 10, 2, 3).double(), torch.randn(2, 6, 4, 6).double()]
    return torch.randn(2, 4, 8, 12).double(), deeper, torch.randn(2, 5).double()


@pytest.mark.parametrize("reading", ["lift", "double"])
@pytest.mark.parametrize("channel, spatial", [(True, True), (False, True), (True, False)])
def test_a_stage_follows_equations_11_to_15(reading, channel, spatial):
    part, (vision, deeper, sentence) = stage(reading=reading, channel=channel, spatial=spatial), stage_inputs()
    wide = torch.cat([interpolate(x, size=(8, 12), mode="bilinear", align_corners=False) for x in deeper], 1)
    convolved = torch.nn.functional.conv2d(wide, part.coordinate.weight, padding=1)
    i1 = part.coordinate_tail(convolved)
    c = s = torch.ones(1, 1, 1, 1)  # a dropped attention leaves all as it is
    if channel:
        c = torch.tanh(part.channel_mlp(torch.cat([sentence, i1.mean((2, 3))], 1)))[:, :, None, None]
    if spatial and reading == "lift":
        s = torch.tanh((part.lift(i1) * sentence[:, :, None, None]).sum(1, keepdim=True) / math.sqrt(5))
    elif spatial:
        s = torch.tanh((i1 * part.project(sentence)[:, :, None, None]).sum(1, keepdim=True) / math.sqrt(4))
    i2 = part.take_in(torch.cat([vision * c, i1], 1))
    expected = part.refine(torch.cat([i2 * s, i1], 1))
    assert (part(vision, deeper, sentence) - expected).abs().max() < 1e-10


def test_without_language_the_sentence_changes_nothing():
    part, (vision, deeper, sentence) = stage(language=False), stage_inputs()
    assert torch.equal(part(vision, deeper, sentence), part(vision, deeper, sentence + 1))
    part = stage()
    assert not torch.allclose(part(vision, deeper, sentence), part(vision, deeper, sentence + 1))


def test_sigmoid_is_between_zero_and_one_and_tanh_is_not():
    vision, deeper, sentence = stage_inputs()
    for name, low in (("sigmoid", 0.0), ("tanh", -1.0)):
        part = stage(attention=name)
        attention = part.channel_attention(torch.randn(64, 4, 3, 3).double(), 5 * torch.randn(64, 5).double())
        assert attention.min() >= low and attention.max() <= 1
        assert (attention.min() < 0) == (name == "tanh")


def test_dropped_attentions_have_no_parameters():
    assert stage(channel=False).channel_mlp is None
    assert stage(spatial=False).lift is None and stage(spatial=False).project is None


@pytest.mark.parametrize("stages, stride", [(3, 4), (2, 8), (1, 16), (0, 32)])
def test_table_six_predicts_at_the_last_stage_s_stride(stages, stride):
    decoder = CASG(CHANNELS, 5, stages=stages).eval()
    maps = [torch.randn(2, c, 64 // s, 96 // s) for c, s in zip(CHANNELS, (4, 8, 16), strict=False)]
    fused, sentence = torch.randn(3, 10, 2, 3), torch.randn(3, 5)
    logits = decoder(maps, fused, sentence, torch.tensor([0, 0, 1]))
    assert logits.shape == (3, 1, 64 // stride, 96 // stride)


@pytest.mark.parametrize("options", [{"attention": "softmax"}, {"reading": "thrice"}, {"stages": 4}])
def test_unknown_options_are_named(options):
    with pytest.raises(StudyError, match="known"):
        CASG(CHANNELS, 5, **options)
