"""The lessons on models (notebooks 02, 03a, 03b, 10): a model, one expression about one scene, and measures of them."""

import os
import timeit
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import NamedTuple, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from refstudy.analysis import figures
from refstudy.analysis.claims import variants_by_regions
from refstudy.analysis.cost import cost
from refstudy.analysis.data_names import data_name
from refstudy.analysis.measures import jackknifed_counts, jackknifed_mean, over_pictures, spelled
from refstudy.analysis.opened import OpenStudy
from refstudy.analysis.table_files import write_table
from refstudy.analysis.trace import Trace, corpus_steps, decoder_maps, inputs, main_direction, region_counts, trace
from refstudy.base.config import THRESHOLD, RunConfig
from refstudy.base.errors import StudyError
from refstudy.base.files import exists
from refstudy.data.batches import Corpus, fit_mask
from refstudy.metrics import overlap
from refstudy.models.build import load_model, load_or_build
from refstudy.models.fusion.s2rm import Steps, coparse, coparse_literal
from refstudy.models.segmenter import Segmenter
from refstudy.models.urce import STAGES, patch_side
from refstudy.prediction.predict import model_view, predict, segment_photo
from refstudy.study.file import PAPERS_SWIN_T, ProfileStudy

SCENES = 20  # pictures that a lesson makes at least


@dataclass(frozen=True)
class Example:
    """The ``model`` of a ``variant`` (``trained`` or not) and one ``sentence`` about picture ``scene`` of a ``corpus``.

    ``row`` is the row of the sentence in the corpus's table; None for a sentence of the reader's own.
    """

    study: OpenStudy
    variant: str
    config: RunConfig
    model: Segmenter
    trained: bool
    corpus: Corpus
    scene: int
    row: int | None
    sentence: str

    @property
    def image(self) -> np.ndarray:
        """The picture as the model sees it, uint8 (S, S, 3)."""
        return self.corpus.image(self.scene)

    @property
    def truth(self) -> np.ndarray | None:
        """The true mask, bool (S, S); None for a sentence of the reader's own."""
        return None if self.row is None else self.corpus.truth(self.row)

    @property
    def texts(self) -> list[str]:
        """All expressions of the data about this picture."""
        return self.corpus.table.loc[self.corpus.rows_about(self.scene), "expression"].tolist()

    @property
    def about(self) -> str:
        """A line that says which model this is."""
        label = self.study.label(self.variant)
        if self.trained:
            return f"{label}, trained on {data_name(self.config.data, 'train')}"
        return f"{label}, UNTRAINED, since this profile keeps no weights of it: shapes are real, meanings are not"

    def inputs(self, sentence: str = "") -> tuple[Tensor, Tensor, Tensor]:
        """The picture (1, 3, S, S), normalised, and word ids and mask (1, L) of the sentence, or of another one."""
        return inputs(self.model, self.image, sentence or self.sentence)

    def of(self, row: int) -> "Example":
        """The example with the expression of another row of the table, and its picture."""
        scene, sentence = int(self.corpus.image_of_expression[row]), self.corpus.table.loc[row, "expression"]
        return replace(self, scene=scene, row=row, sentence=sentence)

    def iou(self, mask: np.ndarray) -> float:
        """The IoU of a mask, bool (S, S), with the truth, which there must be."""
        assert self.truth is not None
        return overlap(mask, self.truth)

    def show(self, figure: Figure, name: str) -> None:
        """``figures.show`` under the example's study."""
        figures.show(self.study, figure, name)


def start(study: OpenStudy, variant: str, scene: int = 0, expression: str = "", number: int = 0) -> Example:
    """An example of the first split of a profile, and the study's style for figures.

    The sentence is ``expression`` or, if that is empty, expression ``number`` of picture ``scene``; where there are
    fewer pictures or expressions, the last one. At least ``SCENES`` pictures are made.
    """
    figures.use_style()
    config, split = study.config(variant), study.settings.splits[0]
    model, trained = load_or_build(study.weights(variant), config.model)
    shown = max(SCENES, scene + 1)
    corpus = study.corpus(split, variant, shown).subset(shown)
    scene = min(scene, len(corpus.images) - 1)
    rows = corpus.rows_about(scene)
    row = None if expression else int(rows[min(number, len(rows) - 1)])
    sentence = expression or corpus.table.loc[row, "expression"]
    return Example(study, variant, config, model, trained, corpus, scene, row, sentence)


def s2rm_steps(example: Example, sentence: str = "") -> Steps:
    """The steps of the fusion S²RM for the example's sentence, or for another one about its picture."""
    pixels, ids, mask = example.inputs(sentence)
    with torch.no_grad():
        vision = example.model.encode_image(pixels).maps[3]
        return example.model.fusion.steps(vision, example.model.text_encoder(ids, mask), mask)  # type: ignore[operator, union-attr]


def mean_products(steps: Steps) -> Tensor:
    """The mean product of every cell of V_4 with the language, (H, W): the mean of all entries of its l2v
    column map."""
    return steps.groups[0][0].mean(0)


def coverage(example: Example, grid: Sequence[int]) -> Tensor:
    """The share of every cell of a grid (H, W) that the referent, which there must be, covers."""
    assert example.truth is not None
    return adaptive_avg_pool2d(torch.from_numpy(example.truth).float()[None], (grid[0], grid[1]))[0]


Pair = tuple[Example, Example]


def pairs_by_fit(example: Example, scene: int) -> tuple[list[Pair], np.ndarray]:
    """All pairs of expressions about one picture, each for two referents, and the fit of each pair, -1 to 1: over the
    cells, the correlation of the difference of their ``mean_products`` with the difference of their ``coverage``. A
    model may mark a referent by large or by small products: the pair that has most of the sign of most comes first."""
    rows = example.corpus.rows_about(scene)
    asked, referents = [example.of(row) for row in rows], example.corpus.ref_of_expression[rows]
    products = [mean_products(s2rm_steps(one)) for one in asked]
    places = [coverage(one, map_.shape) for one, map_ in zip(asked, products, strict=True)]
    pairs = [(a, b) for a, b in combinations(range(len(asked)), 2) if referents[a] != referents[b]]
    between = [torch.stack([(maps[a] - maps[b]).flatten() for maps in (products, places)]) for a, b in pairs]
    fits = np.nan_to_num([float(torch.corrcoef(differences)[0, 1]) for differences in between])
    order = np.argsort(-np.sign(fits.sum()) * fits)
    return [(asked[pairs[k][0]], asked[pairs[k][1]]) for k in order], fits[order]


def s2rm_example(study: OpenStudy, scene: int, expression: str = "") -> tuple[Example, list[Pair], np.ndarray]:
    """The start of the lesson on S²RM: the example to follow, and the ``pairs_by_fit`` of its picture or, where that
    has one referent, of the next one that has two. The example's sentence is the ``expression`` or, if that is empty,
    the first of the best pair. Raises StudyError where no picture has two referents.
    """
    example = start(study, "s2rm_casg", scene, expression)
    for number in range(len(example.corpus.images)):
        pairs, fits = pairs_by_fit(example, (example.scene + number) % len(example.corpus.images))
        if pairs:
            return (example if expression else pairs[0][0]), pairs, fits
    raise StudyError("no picture of the lesson has two referents; take a profile whose data have such pictures")


def same_as_rolled_copies() -> str:
    """Compare the Gram form of Eqs. (5)-(8) with rolled copies in double precision, on grids that are neither square
    nor even; say how far they are apart."""
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for shape in ((2, 5, 3, 4), (1, 7, 5, 3), (2, 4, 1, 6), (1, 8, 7, 7)):
        a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        for shift in (True, False):
            both = zip(coparse(a, b, shift), coparse_literal(a, b, shift), strict=True)
            worst = max(worst, *((one - other).abs().max().item() for one, other in both))
    return f"Gram matrix and rolled copies: largest difference {'below' if worst < 1e-12 else 'ABOVE'} 1e-12"


def times_faster() -> float:
    """Measure how many times faster the Gram form is than rolled copies, forward and backward, on 12 x 12 cells of 256
    channels: the ratio of two medians of three."""
    parsed, generator = torch.randn(2, 256, 12, 12, requires_grad=True), torch.randn(2, 256, 12, 12)

    def seconds(form: Callable[[Tensor, Tensor], Iterable[Tensor]]) -> float:
        def step() -> None:
            with torch.enable_grad():
                sum(map_.square().mean() for map_ in form(parsed, generator)).backward()  # type: ignore[union-attr]

        return float(np.median(timeit.repeat(step, number=1, repeat=4)[1:]))

    return seconds(coparse_literal) / seconds(coparse)


def on_referent(example: Example, map_: Tensor) -> float:
    """The mean of a map (h, w) on the referent, in standard deviations from the mean of all cells."""
    share = coverage(example, map_.shape)
    return float((share * (map_ - map_.mean())).sum() / share.sum() / map_.std())


def map_scales(example: Example) -> pd.DataFrame:
    """The scale of SLViT's correlation maps, stage by stage, over all expressions of the lesson: the standard deviation
    of R_i over its cells, the same on the grid of stage 4, and the share in map_U of the step from the stage before, in
    percent."""
    spreads, sizes = [], []
    for batch, steps in corpus_steps(example.model, example.corpus):  # type: ignore[arg-type]
        with torch.no_grad():
            maps = [example.model.urce.correlation(one, batch.token_mask) for one in steps.scores]  # type: ignore[operator, union-attr]
        grid = steps.encoded[3].shape[-2:]
        down = [adaptive_avg_pool2d(map_, (grid[0], grid[1])) for map_ in maps]
        spreads.append(torch.stack([torch.stack([map_.flatten(1).std(1) for map_ in of], 1) for of in (maps, down)]))
        steps_between = [(later - earlier).abs() for earlier, later in pairwise(down)]
        sizes.append(torch.stack([term.flatten(1).mean(1) for term in steps_between], 1))
    before, after = torch.cat(spreads, 1).mean(1).double().numpy()
    shares = torch.cat(sizes).mean(0).double().numpy()
    steps_of_u = [np.nan, *100 * shares / shares.sum()]
    columns = {"deviation of R_i": before, "after Down": after, "share in map_U, %": steps_of_u}
    return pd.DataFrame(columns, index=[f"stage {stage}" for stage in STAGES])


def region_sweep(example: Example, numbers: Sequence[int], pictures: int) -> pd.DataFrame:
    """Overall IoU over the expressions of the first ``pictures`` of the lesson's split when URCE refines K regions, a
    row for each of ``numbers``, the first of which is 0: K, expressions, oIoU, gain on K = 0 with its 95 % interval
    over pictures (_low, _high), variant, data."""
    split, data = example.study.settings.splits[0], example.config.data
    corpus = example.study.corpus(split, example.variant, pictures).subset(pictures)
    part = "" if data.scenes.get(split) == len(corpus.images) else f", first {len(corpus.images)} pictures"
    about = {"variant": example.variant, "data": data_name(data, split) + part}
    counts, asked = region_counts(example.model, corpus, numbers), len(corpus.table)  # type: ignore[arg-type]
    found = {K: jackknifed_counts(some)["oIoU"] for K, some in counts.groupby("K")}
    return pd.DataFrame(
        {"K": K, "expressions": asked, "oIoU": values[0]} | spelled("gain", over_pictures(values - found[0])) | about
        for K, values in found.items()
    )


def region_costs(study: ProfileStudy) -> dict[int, float]:
    """Thousand million multiply-adds of one image with one expression at the paper's size, by K."""
    variants = variants_by_regions(study.beside(PAPERS_SWIN_T))
    configs = {K: study.file.run_config(PAPERS_SWIN_T, name, seed=0) for K, name in variants.items() if K}
    return {K: sum(cost(config.model).macs.values()) for K, config in configs.items()}


def beside(example: Example, variants: Sequence[str]) -> dict[str, tuple[np.ndarray, list[Tensor]]]:
    """The mask of other variants, bool (S, S), and a map (h_i, w_i) of each stage that their decoder gets, along its
    ``main_direction``; by label. Where no weights are kept of one, say that it is left out."""
    found = {}
    for name in variants:
        label, weights = example.study.label(name), example.study.weights(name)
        if not exists(weights):
            print(f"{label} is left out: this profile keeps no weights of it")
            continue
        model = load_model(weights)
        maps = [map_[0] for map_ in decoder_maps(model, example.image, example.sentence)]
        along = [
            torch.einsum("c,chw->hw", main_direction(map_, cast(np.ndarray, example.truth)), map_) for map_ in maps
        ]
        found[label] = predict(model, example.image, [example.sentence])[0] > THRESHOLD, along
    return found


class Choices(NamedTuple):
    """The choices of URCE over all expressions of a lesson: how many of them; how many ``different`` choices; the share
    of expressions that ``chosen`` each region, and for which a border of the referent lies inside it, both (h_4, w_4);
    the share of the chosen regions and of all regions that such a border crosses, and the 95 % interval over pictures
    of how much ``more`` the first is."""

    expressions: int
    different: int
    chosen: Tensor
    borders: Tensor
    hits: float
    any_hits: float
    more: tuple[float, float]


def region_choices(example: Example) -> Choices:
    """The regions that URCE chooses for all expressions of the lesson, and whether borders of referents are in them."""
    cells, crossed, pictures = [], [], []
    for batch, steps in corpus_steps(example.model, example.corpus):  # type: ignore[arg-type]
        pooled = avg_pool2d(batch.masks, patch_side(1) * 4, ceil_mode=True, count_include_pad=False)
        cells.append(steps.cells)
        pictures.append(example.corpus.image_of_expression[batch.expressions])
        crossed.append(((pooled > 0) & (pooled < 1)).float())
    chosen, borders = torch.cat(cells), torch.cat(crossed)  # type: ignore[arg-type]
    often = torch.bincount(chosen.flatten(), minlength=borders[0].numel()) / len(chosen)
    different = len({tuple(sorted(row)) for row in chosen.tolist()})
    hits, any_hits = borders.flatten(1).gather(1, chosen).mean(1), borders.flatten(1).mean(1)
    more = over_pictures(jackknifed_mean(pd.Series((hits - any_hits).numpy()), np.concatenate(pictures))).interval()
    shares = hits.mean().item(), any_hits.mean().item(), more
    return Choices(len(chosen), different, often.view(borders.shape[1:]), borders.mean(0), *shares)


def ask(model: Segmenter, picture: np.ndarray, sentence: str) -> Trace:
    """Show the answer of a model with S²RM to a sentence about a picture uint8 (H, W, 3): mask, word attention and the
    maps of the cell that holds most of the mask; return its steps. Raises StudyError as ``segment_photo`` and
    ``trace``."""
    (found,) = segment_photo(model, picture, [sentence])
    for line in found.reading.notes:
        print(line)
    seen = model_view(model, picture)
    steps = trace(model, seen, sentence)
    height, width = steps.attention.shape[1:]
    axes = figures.grid(1, 2, cell=2.6)[1]
    figures.show_image(axes[0, 0], picture, f"“{sentence}”")
    share = 100 * found.mask.mean()
    figures.overlay(axes[0, 1], picture, found.mask, title=f"score {found.score:.2f}, {share:.1f} % marked")
    plt.show()
    figures.word_attention(seen, sentence, steps.words, steps.attention)
    plt.show()
    marked = Image.fromarray(fit_mask(found.mask, len(seen), model.config.keep_aspect)).convert("L")
    small = np.asarray(marked.resize((width, height), Image.Resampling.BOX))
    i, j = (int(number) for number in np.unravel_index(small.argmax(), small.shape))
    figures.coparsed_cell(plt.subplots(1, 3, figsize=(7.4, 2.6))[1], seen, steps.column, steps.row, (i, j))
    plt.show()
    print("gates of Eq. (9): " + ", ".join(f"{name} {gate:.2f}" for name, gate in steps.gates.items()))
    return steps


def keep_table(example: Example, table: pd.DataFrame, name: str) -> None:
    """Write a table of what a model computed just now, among those of the results."""
    write_table(table, example.study.folder / "tables", name, live=True)


def in_jupyter() -> bool:
    """Tell if a Jupyter server started this kernel, so that somebody is there to use a control."""
    return "JPY_SESSION_NAME" in os.environ


def slider(draw: Callable[..., object], **ends: int) -> None:
    """In Jupyter, a slider from 0 to its end for each argument of a drawing; elsewhere a line, since a slider would not
    work there."""
    if in_jupyter():
        from ipywidgets import IntSlider, interact

        def shown(**values: int) -> None:
            draw(**values)
            plt.show()

        interact(shown, **{name: IntSlider(0, 0, end) for name, end in ends.items()})
    else:
        print("In Jupyter, sliders stand here.")


def tell(*lines: str) -> None:
    """Show lines as a list, empty ones left out."""
    display(Markdown("\n".join(f"- {line}" for line in lines if line)))
