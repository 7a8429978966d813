"""The page of a comparison, which holds its pictures and needs no network, and the lines of it for a terminal."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from refstudy.analysis.compared import Compared, agreement, by_length, gains, levels
from refstudy.analysis.data_names import measured_on
from refstudy.analysis.figures import use_style
from refstudy.analysis.mask_grids import compared_masks, shown_masks
from refstudy.analysis.plots import learning
from refstudy.analysis.table_files import write_table
from refstudy.analysis.table_text import with_interval
from refstudy.base.files import write_text
from refstudy.data.batches import Corpus
from refstudy.engine.pages import ENDS
from refstudy.engine.report import PAGES, table_html, whole_page
from refstudy.training.loop import load_corpora

SHOWN = 3  # expressions on which the module does better than a baseline, and as many on which it does worse
GAINS = {"over": "over", "said": "verdict", "gain": "gain", "looks": "of looks", "places": "of places"}
GAINS |= {"elsewhere": "on other splits", "runs": "runs", "reference_runs": "its runs"}
LEVELS = {"label": "model", "runs": "runs", "oIoU": "overall IoU", "mIoU": "mean IoU"}
LEVELS |= {name: name for name in ("P@0.5", "P@0.9", "same", "other")} | {"parameters": "parameters (M)"}
LEVELS |= {"macs": "multiply-adds (G)", "further": "further (G)", "minutes": "minutes", "peak_memory_mb": "memory (MB)"}
DRAWN = 3  # baselines in the figure of learning


def write_comparison(study: Compared, sources: Sequence[Path], corpora: Mapping[str, Corpus]) -> list[str]:
    """Write ``comparison.html`` and its tables; return about ten lines to print. The data of the first split are read
    where they are not among the ``corpora``."""
    folder, label, data = study.file.results(study.profile), study.label(study.own), measured_on(study)
    tables = {"gains": gains(study), "levels": levels(study), "lengths": by_length(study)}
    files = [write_table(table, folder, stem).name for stem, table in tables.items()]
    over, reached = tables["gains"], tables["levels"]
    gain = with_interval(over.rename(columns=ENDS), "measured", signed=True)
    over = over.assign(over=over["reference"].map(study.label), gain=gain)
    shown = reached.assign(oIoU=with_interval(reached, "oIoU"))
    colours = pd.DataFrame({"verdict": over["verdict"].str.replace(" ", "-")})
    own, seeds = reached.iloc[0], len(study.planned)
    scope = (
        f"pictures are drawn and encoders small ({own['parameters']:.1f} M parameters with all parts): photographs and "
        "large encoders may order modules in another way"
    )
    body = PAGES.get_template("comparison.html.j2").render(
        label=label,
        measured_on=data,
        seeds=study.planned,
        runs=own["runs"],
        level=shown["oIoU"].iloc[0],
        gains=_html(over[list(GAINS)].rename(columns=GAINS), colours),
        absent=[study.label(name) for name in study.baselines if name not in study.recorded()],
        limits=[scope, agreement(study), "who tries many modules and keeps the best will meet a gain by chance"],
        lengths=_html(_by_bucket(study, tables["lengths"])),
        levels=_html(shown[list(LEVELS)].round(2).rename(columns=LEVELS)),
        figures=_figures(study, corpora),
        settings=study.config(study.own).train,
        provenance=study.records(study.own)[0].provenance(),
        sources={path.name: path.read_text(encoding="utf-8") for path in sources},
        files=files,
    )
    page = folder / "comparison.html"
    write_text(page, whole_page(f"{label} compared with the study's modules", body))
    lines = [f"{label}: {shown['oIoU'].iloc[0]} % overall IoU on {data}, {own['runs']} of {seeds} seeds"]
    lines += [f"  over {line.over} ({line.reference_runs}): {line.gain}: {line.said}" for line in over.itertuples()]
    lines += [f"  over {line.over}: looks {line.looks}, places {line.places}" for line in over[:1].itertuples()]
    for line in reached[:2].itertuples():
        cost = f"{line.parameters:.2f} M parameters, {line.macs:.2f} G multiply-adds, {line.minutes:.0f} min a run"
        lines.append(f"  {line.label}: {cost}")
    return [*lines, f"  not told: {scope}; {agreement(study)}", f"{page} (its tables: {', '.join(files)})"]


def _html(table: pd.DataFrame, classes: pd.DataFrame | None = None) -> Markup:
    """A table for the page, empty where nothing was measured."""
    cells = table.astype(object).where(table.notna(), "").astype(str)
    return Markup(table_html(cells, classes) if len(table) else "")


def _by_bucket(study: Compared, lengths: pd.DataFrame) -> pd.DataFrame:
    """``by_length`` to read: a line a bucket, a column a baseline."""
    texts = lengths.assign(reached=with_interval(lengths, "ours"), gain=with_interval(lengths, "gain", signed=True))
    texts["over"] = "gain over " + texts["baseline"].map(study.label)
    rows = ["words", "expressions", "reached"]
    wide = texts.set_index([*rows, "over"])["gain"].unstack(sort=False).reset_index()
    return wide.rename(columns={"reached": "overall IoU"})


def _figures(study: Compared, corpora: Mapping[str, Corpus]) -> list[dict[str, str]]:
    """Learning, and the masks of expressions on which the module and a baseline differ most."""
    use_style()
    recorded, own = study.recorded(), study.label(study.own)
    runs = {study.label(name): records for name, records in list(recorded.items())[:DRAWN]}
    title = f"{study.settings.train.selection_split} after each epoch, a line a run"
    figures = [_figure(learning({title: runs | {own: study.records(study.own)}}, "val", columns=1), "Learning", title)]
    config, split = study.config(study.own), study.settings.splits[0]
    if split not in corpora:
        corpora, _ = load_corpora(config.data, config.model.text, (split,), study.file.data_root, progress=False)
    for base in dict.fromkeys((*recorded, *study.baselines)):
        shown = shown_masks(study, [study.own, base], corpora[split])
        if len(shown.masks) == 2:
            break
    else:
        return [*figures, {"title": "Masks", "text": "No baseline has weights or kept masks to show beside these."}]
    table, pictures = shown.corpus.table, len(shown.corpus.images)
    gain = pd.Series({k: shown.fit(study.own, k) - shown.fit(base, k) for k in table.index})
    for title, sign in (("Better", 1), ("Worse", -1)):
        most = (sign * gain)[sign * gain > 0].sort_values(ascending=False, kind="stable").index
        rows = list(table.loc[most].drop_duplicates("image_id").index[:SHOWN])
        if rows:
            text = (
                f"{title} than {shown.labels[base]} by most, of {len(table)} expressions about {pictures} pictures; "
                "one run each, with the IoU of each mask"
            )
            figures.append(_figure(compared_masks(shown, rows, [study.own, base]), f"{title} masks", text))
    if not gain.any():
        text = f"No mask differs from that of {shown.labels[base]}, in {pictures} pictures."
        figures.append({"title": "Masks", "text": text})
    return figures


def _figure(figure: Figure, title: str, text: str) -> dict[str, Any]:
    out = io.BytesIO()
    figure.savefig(out, format="png", bbox_inches="tight", dpi=110)
    plt.close(figure)
    return {"title": title, "text": text, "data": base64.b64encode(out.getvalue()).decode()}
