"""The checks: one function each; the first sentence says what it wants, then comes the reason for its threshold.
None of them trains anything or reads data.

Thresholds lie between what sound modules and broken ones give (docs/examine.md has both), on a scale that does not
depend on the module: shares, or differences over the output's spread (its standard deviation).
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from refstudy.analysis.examination.bench import BATCH_NORMS, FAULT, LOOK, NONE, SOUND, Bench, Finding, low_precision
from refstudy.analysis.examination.slope import Slope
from refstudy.analysis.examination.watch import watched
from refstudy.base.errors import StudyError

TINY = 1e-3  # of the spread: what rounding cannot reach and what matters does
DEAF = {"fusion": 0.02, "decoder": 0.005, "whole": 0.005}  # of the spread; see ``sentence``
SATURATED = {"sigmoid": 0.05, "tanh": 0.2, "softmax": 0.25}  # shares; see ``gates``
WRONG_SLOPE = 1e-5  # of the gradient's size; see ``gradients``


def repeats(bench: Bench) -> Finding:
    """The same call gives the same, inputs stay as they are, and weights hold all that was learned.

    Two calls in evaluation have to agree to rounding, whatever the state of the random generator, and so have the
    module and another one that loaded its weights. A call under ``inference_mode`` must leave it fit for training.
    """
    subject, inputs, module = bench.subject, bench.inputs, bench.fresh()
    others = subject.draw(pictures=1, words=1)
    with torch.no_grad():
        calls = ((inputs, 0), (inputs, 1), (others, 0))
        outputs = [subject.run(module, one, seed) for one, seed in calls]
    expected = (bench.output, bench.output, bench.call(others))
    off = max(bench.apart(a, b) for a, b in zip(outputs, expected, strict=True))
    if not off <= TINY:
        bench.steady = False
        return Finding(FAULT, off, "two calls in evaluation differ: it draws, or keeps a state from call to call")
    given = subject.arguments(inputs.map(torch.clone))
    versions = [x._version for x in tree_leaves(given)]
    with torch.no_grad():
        bench.fresh()(*given)
    if versions != [x._version for x in tree_leaves(given)]:
        bench.steady = False
        return Finding(FAULT, off, "changes an input in place; others read it too")
    other = subject.make(seed=1).eval()
    try:
        other.load_state_dict(bench.module.state_dict())
    except RuntimeError as error:
        return Finding(FAULT, None, f"weights do not load into another one: {' '.join(str(error).split())}")
    with torch.no_grad():
        off = bench.apart(subject.run(other, inputs), bench.output)
    if not off <= TINY:
        return Finding(FAULT, off, "another one with the same weights differs: a tensor is no parameter and no buffer")
    try:
        with torch.inference_mode():
            subject.run(module, inputs)
        output = subject.run(module.train(), inputs)
        if output.requires_grad:
            output.float().square().mean().backward()
    except (StudyError, RuntimeError) as error:
        bench.steady = False
        return Finding(FAULT, None, f"training after a call under inference_mode fails: {error}")
    return Finding(SOUND, off)


def sentence(bench: Bench) -> Finding:
    """The output changes with the sentence before any training.

    Mean |difference|, in training, for another sentence, over the output's spread. A module that starts deaf learns
    words late or by luck. Sound fusion modules give 0.19 and more, V_4 plus PWAM's gated cells 0.003: the threshold,
    0.02, is near their geometric mean. Masks may be farther from the words: those of the study's decoders and whole
    models change by 0.12 to 1, and by 0.002 with that module; 0.005 lies between.
    """
    other = replace(bench.inputs, language=bench.subject.draw(words=1).language)
    value = ((bench.call(other, train=True, frozen=False) - bench.first).abs().mean() / bench.first.std()).item()
    if not value >= DEAF[bench.subject.kind]:
        return Finding(FAULT, value, f"below {DEAF[bench.subject.kind]}: the words are too weak in what they join")
    return Finding(SOUND, value)


def gates(bench: Bench) -> Finding:
    """No gate or attention is saturated at the papers' size, where it would hardly learn.

    The share of weights within 0.05 of an end (a softmax: of rows with more than 0.95 on one entry). Logits of unit
    deviation, as sound layers make them, give 0.3 % of a sigmoid and 7 % of a tanh; the thresholds, 5 and 20 %, are
    what logits of deviation 1.5 give. Products of hundreds of terms without a scale give 20 to 90 %, and so do
    their softmaxes; for these the threshold is 25 %, since few words may leave a row alone by chance.
    """
    seen, cells, _ = bench.papers
    worst = sorted((one for one in seen if one.kind in SATURATED), key=lambda one: -one.saturated / SATURATED[one.kind])
    if not worst:
        return Finding(NONE)
    value, over = worst[0].saturated, [one for one in worst if one.saturated > SATURATED[one.kind]]
    if over:
        named = ", ".join(f"{one.kind} in '{one.module or 'forward'}' {one.saturated:.0%}" for one in over[:3])
        return Finding(FAULT, value, f"at an end: {named}; divide the logits by the root of their number of terms")
    words = bench.inputs.mask.shape[1]
    across = [one for one in worst if one.axis == cells != words and one.others[-1:] == (words,)]
    if across and bench.subject.kind == "fusion":
        where = across[0].module or "forward"
        detail = f"softmax in '{where}': each word over the {cells} cells; each cell over words is usual"
        return Finding(LOOK, value, detail)
    return Finding(SOUND, value)


def padding(bench: Bench) -> Finding:
    """Padded words have no say.

    The words under the false mask become other words, and other words a hundred times as large; then the padding is
    cut off. Nothing may move by more than a thousandth of the spread: rounding moves it by 1e-5, a mean over all words
    by 0.1 and more. In training as in evaluation, since a batch norm over words leaks in training alone.
    """
    if bench.subject.kind == "decoder":
        return Finding(NONE)
    inputs, words = bench.inputs, bench.inputs.language["words"]
    other, absent = bench.subject.draw(words=1).language["words"], ~inputs.mask
    absent = absent if words.ndim == 2 else absent[..., None]
    sizes = (1, 100) if words.is_floating_point() else (1,)
    changed = [replace(inputs, language={"words": torch.where(absent, size * other, words)}) for size in sizes]
    value = max(bench.moved(one).max().item() for one in changed)
    if not value <= TINY:
        return Finding(FAULT, value, "words under the false mask change the output")
    value = max(bench.apart(bench.call(one, train=True, frozen=False), bench.first) for one in changed)
    if not value <= TINY:
        return Finding(FAULT, value, "words under the false mask change the output in training")
    length = inputs.mask.shape[1] * 2 // 3
    short = replace(inputs, mask=inputs.mask & (torch.arange(inputs.mask.shape[1]) < length))
    cut = replace(short, language={"words": words[:, :length]}, mask=short.mask[:, :length])
    try:
        off = bench.apart(bench.call(cut), bench.call(short))
    except StudyError as error:
        return Finding(FAULT, None, f"with {length} words in place of {inputs.mask.shape[1]}: {error}")
    if not off <= TINY and bench.steady:
        return Finding(FAULT, off, "the amount of padding changes the output; divide by the number of real words")
    detail = ""
    if words.is_floating_point():
        spoiled = replace(inputs, language={"words": torch.where(absent, float("nan"), words)})
        if not bench.call(spoiled).isfinite().all():
            detail = "NaN there would spread (0 times NaN), as in S²RM; text encoders give none"
    return Finding(SOUND, value, detail)


def batch(bench: Bench) -> Finding:
    """An expression's output does not depend on the others of its batch.

    Each expression and each picture is changed in turn: the output of the others may not move by more than a
    thousandth of the spread, in evaluation nor, with batch normalisation as in evaluation, in training. Batches of 1
    and 2 work and give the same. An expression follows its own picture.
    """
    inputs, other = bench.inputs, bench.subject.draw(pictures=1, words=1)
    worst, index = 0.0, inputs.image_index
    for train in (False, True):
        for k in range(len(index)):
            moved = bench.moved(replace(inputs, language=put(inputs.language, k, other.language)), train)
            worst = max(worst, moved[torch.arange(len(index)) != k].max().item())
        for k in range(int(index.max()) + 1):
            moved = bench.moved(replace(inputs, pictures=put(inputs.pictures, k, other.pictures)), train)
            worst = max(worst, moved[index != k].max().item())
            still = not train and not moved[index == k].min() > 0
            if still and not torch.equal(bench.call(replace(inputs, pictures=other.pictures)), bench.output):
                return Finding(FAULT, worst, "an expression does not follow its own picture; read it by image_index")
        if not worst <= TINY:
            return Finding(FAULT, worst, "an expression moves with others of its batch" + " in training" * train)
    for some in ([2], [3, 0]):
        try:
            off = bench.apart(bench.call(inputs.of(some)), bench.output[some])
        except StudyError as error:
            return Finding(FAULT, None, f"fails in a batch of {len(some)}: {error}")
        if not off <= TINY and bench.steady:
            return Finding(FAULT, off, f"another output in a batch of {len(some)}")
    norms = any(isinstance(part, BATCH_NORMS) for part in bench.module.modules())
    return Finding(SOUND, worst, "batch normalisation joins samples in training" if norms else "")


def put(tensors: dict[str, Tensor], k: int, others: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by name, each with entry k of the other one of this name."""
    return {name: x.index_put((torch.tensor(k),), others[name][k]) for name, x in tensors.items()}


def border(bench: Bench) -> Finding:
    """Cells of a border do not hear the opposite border by wrap-around.

    The gradient of the output's first quarter of rows at the last quarter of the input's, a, and at the quarter
    before it, b, which is nearer: (a - b) / (a + b); so for all four borders, and the most counts. A reach that ends or
    fades gives less than 0, a global one 0 within 0.1, a roll or a circular padding up to 1. The threshold, 1/3, says
    that the far border is heard twice as much as the middle. On a grid of 8 x 8 cells or more, where it can be made.
    """
    side, value = max(((name, far) for name, (far, _) in bench.reach.items()), key=lambda one: one[1])
    if value > 1 / 3:
        return Finding(FAULT, value, f"the {side} border hears the opposite one; mask or pad what is rolled")
    return Finding(SOUND, value)


def place(bench: Bench) -> Finding:
    """Each place of the output hears its own place of the input most.

    The same gradient at the input's own quarter, a, and at the third quarter, b: (a - b) / (a + b), the least of the
    four sides. Sound modules give 0.3 and more. Where a reshape has scattered cells, or rows became columns, all is
    heard alike, which gives 0; the threshold lies above what chance leaves of it.
    """
    value = min(own for _, own in bench.reach.values())
    if value < 0.1:
        return Finding(FAULT, value, "far cells are heard as much as the own; look for a reshape without a transpose")
    return Finding(SOUND, value)


def gradients(bench: Bench) -> Finding:
    """Every parameter and input gets a gradient, and the true one.

    In training, in float64. No gradient, or exactly 0, is a fault: something is cut off, unused, or dead, as a ReLU
    with more than 98 % zeros is (inputs of unit size that lie two deviations below 0). A bias that a norm or softmax
    takes away again has a gradient of rounding, below 1e-11 of the largest: harmless, and reported. The
    value is the error of the gradient against differences of the output, along random directions, over their size:
    below 1e-6 in sound modules, 3e-4 where the query of one attention is detached, 0.26 in SLViT's head; 1e-5 lies
    between. Kinks and rounding make the differences uncertain: two steps tell by how much, and the error of the better
    one has to exceed that, too; a second is taken where the first leaves an error above 1e-5.
    """
    module = bench.fresh(train=True, frozen=False)
    with watched(module) as watch, torch.no_grad():
        bench.subject.run(module, bench.inputs)
    if relus := [one.module or "forward" for one in watch.seen if one.kind == "relu" and one.saturated > 0.98]:
        return Finding(FAULT, None, f"dead ReLU in '{relus[0]}': its inputs are far below 0")
    try:
        try:
            slope = Slope(bench, torch.float64)
        except (StudyError, RuntimeError):  # it does not compute in float64
            slope = Slope(bench, torch.float32)
    except RuntimeError as error:
        detail = f"no gradient: {' '.join(str(error).split())}"
        return Finding(FAULT if bench.steady else NONE, None, detail)  # what changes its inputs has none
    if slope.strangers:
        detail = f"{slope.strangers} learned tensors are no parameters of it; register them in __init__"
        return Finding(FAULT, None, detail)
    sizes = {name: None if x is None else x.abs().max().item() for name, x in slope.gradients.items()}
    if wrong := [name for name, size in sizes.items() if size is not None and not size < float("inf")]:
        return Finding(FAULT, None, f"NaN or infinite: {some(wrong)}")
    largest = max(size or 0.0 for size in sizes.values())
    inputs = [name for name in slope.inputs if not sizes[name]]
    unheard = [name for name in inputs if not slope.heard(name)]
    if cut := [name for name in inputs if name not in unheard]:
        return Finding(FAULT, None, f"no gradient at {some(cut)}, which the output depends on: a detach, or no_grad")
    if any(name in unheard for name in ("V_4", "picture", "fused")):
        return Finding(FAULT, None, f"the output does not depend on {some(unheard)}")
    still = [name for name, size in sizes.items() if not size and name not in slope.inputs]
    notes = [f"no use of {some(unheard)}"] if unheard and not bench.faulty("sentence") else []
    if still:
        explained = bench.faulty("sentence") or bench.faulty("gates")
        detail = f"no gradient: {some(still)}" + "; see the fault above" * explained
        return Finding(LOOK if explained else FAULT, None, detail)
    off, doubt = slope.error(WRONG_SLOPE)
    if off > max(WRONG_SLOPE, doubt):
        return Finding(FAULT, off, "not the gradient of the output: a detach, no_grad or rounding cuts a path")
    if idle := [name for name, size in sizes.items() if size and size <= 1e-11 * largest and name not in slope.inputs]:
        notes.append(f"no effect: {some(idle)}")
    return Finding(SOUND, off, "; ".join(notes))


def some(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def precision(bench: Bench) -> Finding:
    """Output and gradients are finite in float32 and bfloat16, for large inputs too.

    Larger is 16 times: more than the gains of the encoders' last norms grow to, and enough for an exponential, a power
    or half precision to overflow. The value is the mean difference between both precisions over the spread; bfloat16
    keeps 8 bits, an error of 0.4 % a number, and sound modules come out below 5 %; 25 % says that something was lost on
    the way. The output has to keep the type of its input, and no gradient may become 0 in bfloat16 alone.
    """
    if bench.output.dtype != torch.float32:
        detail = f"gives {bench.output.dtype} for torch.float32; make its constants in the input's type"
        return Finding(FAULT, None, detail)
    alive: set[str] | None = None
    large = bench.inputs.map(lambda x: 16 * x if x.is_floating_point() else x)
    for scale, inputs in ((1.0, bench.inputs), (16.0, large)):
        for lowered in (False, True):
            about = f"in {'bfloat16' if lowered else 'float32'}" + ", inputs 16 times as large" * (scale > 1)
            with low_precision(enabled=lowered):
                finite = bench.call(inputs, train=True).isfinite().all()
            if not finite:
                where = bench.first_bad(inputs, lowered)
                return Finding(FAULT, None, f"NaN or infinity {about}, first at {where or 'an unknown line'}")
            try:
                found = Slope(bench, torch.float32, scale, lowered).gradients
            except RuntimeError:  # no gradient at all: another check says so
                continue
            if wrong := [name for name, x in found.items() if x is not None and not x.isfinite().all()]:
                return Finding(FAULT, None, f"gradient of {some(wrong)} is NaN or infinite {about}")
            moving = {name for name, x in found.items() if x is not None and x.any()}
            alive = moving if alive is None else alive
            if scale == 1 and lowered and (lost := sorted(alive - moving)) and not bench.faulty("gates"):
                return Finding(FAULT, None, f"gradient of {some(lost)} is 0 {about}")
    with low_precision():
        value = ((bench.call(bench.inputs).float() - bench.output).abs().mean() / bench.spread).item()
    if value > 0.25 and bench.steady:
        return Finding(FAULT, value, "bfloat16 gives another output; compute sums of many terms and gates in float32")
    return Finding(SOUND, value)


def sizes(bench: Bench) -> Finding:
    """It can be made for pictures of other sizes.

    Made and called for a larger square, one that is no multiple of 32, for parts a wide picture, and at the papers'
    size and width. The value is the number of these that work.
    """
    subject, side = bench.subject, bench.subject.config().image_size
    tried = [(side * 3 // 2, side * 3 // 2), (side + 16, side + 16)]
    tried += [(side, side * 3 // 2)] * (subject.kind != "whole")
    problems = [f"at the papers' size: {bench.papers[2]}"] * bool(bench.papers[2])
    for size in tried:
        try:
            module, inputs = subject.make(size).eval(), subject.draw(size)
            with torch.no_grad():
                output = subject.run(module, inputs)
            wrong = subject.right_shape(inputs, output) or ("" if output.isfinite().all() else "gives NaN or infinity")
        except StudyError as error:
            wrong = str(error)
        if wrong:
            problems.append(f"at {size[0]} x {size[1]} px: {wrong}")
    value = float(len(tried) + 1 - len(problems))
    return Finding(FAULT, value, problems[0]) if problems else Finding(SOUND, value)


def device(bench: Bench) -> Finding:
    """All its tensors move to another device with it.

    The module and its inputs go to PyTorch's device without data, "meta". An operation that then meets a tensor of the
    CPU is a fault: on a GPU it would fail, or wait for a copy. A module that needs numbers cannot be checked so.
    """
    module = bench.fresh().to("meta")
    try:
        with torch.no_grad():
            bench.subject.run(module, bench.inputs.map(lambda x: x.to("meta")))
    except StudyError as error:
        if "device" in str(error) and "cpu" in str(error):
            return Finding(FAULT, None, f"{error}; register the tensor as a buffer, or make it on its input's device")
        return Finding(NONE, None, "needs numbers to be called")
    return Finding(SOUND)


def scale(bench: Bench) -> Finding:
    """A fused map is of the size of V_4.

    Its standard deviation at the first update, where V_4's is 1. Sound modules give 0.5 to 1.2. The FPN has no norm: a
    map of 0.05, as two unit vectors of 768 numbers make, hardly reaches it; below 0.1 or above 10 is worth a look.
    """
    if bench.subject.kind != "fusion":
        return Finding(NONE)
    size = bench.first.std().item()
    if not 0.1 < size < 10:
        return Finding(LOOK, size, "far from V_4's size, which decoders expect; end with a norm")
    return Finding(SOUND, size)


ORDER = (repeats, sentence, gates, padding, batch, border, place, gradients, precision, sizes, device, scale)
CHECKS: dict[str, Callable[[Bench], Finding]] = {check.__name__: check for check in ORDER}


def meaning(check: str) -> str:
    """The first sentence of a check's docstring: what it wants."""
    wanted = (CHECKS[check].__doc__ or "").partition(".")[0]
    return wanted[0].lower() + wanted[1:]
