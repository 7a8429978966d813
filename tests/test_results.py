"""The committed results are what the code makes, and ``refstudy verify`` tells when they are not."""

import json
import re
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from refstudy import results
from refstudy.claims import explanations, ledger, variants_by_regions
from refstudy.cli import app
from refstudy.data.batches import build_corpus
from refstudy.data.refer import load_refer
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer
from refstudy.errors import StudyError
from refstudy.evaluation import summarize_counts
from refstudy.failures import WORDLESS, best_wordless_counts, scene_things, wordless_counts
from refstudy.figures import PAPER_FIGURES, save
from refstudy.manifest import FILE_NAME, read_manifest, write_manifest
from refstudy.records import find_records
from refstudy.results import BUILDERS, verify
from refstudy.study import load_study
from refstudy.tables import (
    PAPER_TABLES,
    interval,
    resampled_counts,
    resampled_gains,
    resampled_metrics,
    variant_records,
    write_table,
)
from refstudy.training import SHOWN_IMAGES

ROOT = Path(__file__).resolve().parents[1]
STUDY = load_study(ROOT / "papermill_runs.yaml")
SCENES = ROOT / "results" / "scenes"
README, FINDINGS = ROOT / "README.md", ROOT / "docs" / "findings.md"
# These count multiply-adds, for a minute; tests/test_cost.py is theirs.
COUNTED = ("s2rm_table2", "claims", "costs", "printed_costs")
URCE_0_2_4 = ("slvit_no_urce", "slvit", "slvit_k4")  # by the regions that it refines
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
README_NAMES = {  # what the README calls the variants
    "tile_concat": "Tile & Concat",
    "s2rm_fpn": "S²RM + FPN",
    "s2rm_no_shift": "S²RM without shifts",
    "s2rm_no_l2v": "S²RM without l2v",
    "s2rm_no_v2l": "S²RM without v2l",
    "s2rm_no_shift_no_l2v": "S²RM without shifts and l2v",
    "s2rm_no_shift_no_v2l": "S²RM without shifts and v2l",
    "s2rm_no_balance": "S²RM without balance",
    "s2rm_casg": "S²RM + CASG",
    "casg_no_language": "S²RM + CASG without language in it",
    "casg_no_channel": "S²RM + CASG without channel attention",
    "casg_no_spatial": "S²RM + CASG without spatial attention",
    "casg_sigmoid": "S²RM + CASG with the sigmoid for tanh",
    "casg_no_d3": "S²RM + CASG without its last stage",
    "casg_no_d123": "S²RM + CASG without its stages, in 4 x 4 cells",
    "acm_fpn": "ACM + FPN",
    "acm_casg": "ACM + CASG",
    "pwam_fpn": "PWAM + FPN",
    "pwam_casg": "PWAM + CASG",
    "lavt": "LAVT",
    "slvit": "SLViT",
    "slvit_no_urce": "SLViT without URCE",
    "slvit_strip21_pretrained": "SLViT with one strip pair of 21",
    "slvit_strips_7_11_21": "SLViT without the gate",
    "slvit_k4": "SLViT with four regions (K)",
}


@pytest.mark.parametrize("stem", [stem for stem in BUILDERS if stem not in COUNTED])
def test_a_committed_table_is_what_the_records_give(stem, tmp_path):
    made = write_table(BUILDERS[stem](STUDY, "scenes", ""), tmp_path, stem)
    assert made.read_bytes() == (SCENES / "tables" / f"{stem}.csv").read_bytes()


def test_every_table_and_figure_of_the_papers_is_there():
    assert set(PAPER_TABLES) <= {path.stem for path in (SCENES / "tables").glob("*.csv")}
    for suffix in ("svg", "png"):
        assert set(PAPER_FIGURES) <= {path.stem for path in (SCENES / "figures").glob(f"*.{suffix}")}


@pytest.fixture(scope="module")
def floors(tmp_path_factory):
    """The counts on val of the masks that heed no words."""
    config = STUDY.profile("scenes").data
    config = config.model_copy(update={"scenes": {"val": config.scenes["val"]}})  # the same as beside other splits
    root = prepare_data(config, tmp_path_factory.mktemp("val"), progress=False)
    table = load_refer(root, config.dataset, config.split_by)
    corpus = build_corpus(table, "val", config.image_size, build_tokenizer(), config.max_words, progress=False)
    things = scene_things(root, config.dataset, table["image_id"].unique(), config.image_size)
    return {"every": wordless_counts(corpus, things), "best": best_wordless_counts(corpus)}


def test_the_committed_floors_are_those_of_the_data(floors):
    written = pd.read_csv(SCENES / "tables" / "wordless.csv")[: len(floors)]
    for line, (floor, counts) in zip(written.itertuples(), floors.items(), strict=True):
        values = resampled_counts(counts)["oIoU"]
        low, high = interval(values)
        assert line.label == WORDLESS[floor]
        assert [line.oIoU, line.oIoU_low, line.oIoU_high] == pytest.approx([values[0], low, high], abs=0.0051)


def test_the_readme_quotes_the_tables(floors):
    """Every recorded variant that stands in a table of a paper has its line: name, number of runs, overall IoU with its
    interval; and so have the masks that heed no words. The lowest come first."""
    expected = {}
    for variant, name in README_NAMES.items():
        if records := variant_records(STUDY, "scenes", variant):
            values = resampled_metrics(records, "val")["oIoU"]
            runs = f"{NUMBERS[len(records)]} runs" if len(records) > 1 else ""
            expected[name] = runs, "{:.1f} [{:.1f}, {:.1f}]".format(values[0], *interval(values))
    for floor, what in {
        "every": "every thing marked, whatever the words",
        "best": "the best mask without words",
    }.items():
        values = resampled_counts(floors[floor])["oIoU"]
        expected[f"*{what}*"] = "", "{:.1f} [{:.1f}, {:.1f}]".format(values[0], *interval(values))
    recorded = {record.config.variant for record in find_records(SCENES / "records")}
    assert {name for name in recorded if STUDY.variants[name].tables} <= set(README_NAMES)
    row = r"\| ([^|\n]+?)(?: \((\w+ runs)[^|)]*\))?(?: \(\[[^|]*)? \| ([\d.]+ \[[\d., ]+\]) \|"
    quoted = re.findall(row, README.read_text())
    assert {name: (runs, numbers) for name, runs, numbers in quoted} == expected
    means = [float(numbers.split()[0]) for *_, numbers in quoted]
    assert means == sorted(means)


def flowing(page):
    """A page's text without its line breaks."""
    return " ".join(page.read_text().split())


def single_runs():
    """(variant's label, seed) -> record."""
    return {(STUDY.variants[r.config.variant].label, r.config.seed): r for r in find_records(SCENES / "records")}


def shown_gain(better, worse, seed):
    """The gain of one run over another of the same seed, by labels, as the pages show it."""
    runs = single_runs()
    values = resampled_gains([runs[better, seed]], [runs[worse, seed]], "val")["oIoU"]
    low, high = interval(values)
    return f"{values[0]:+z.1f} [{low:+z.1f}, {high:+z.1f}]"


def test_the_readme_quotes_the_claims_as_the_ledger_has_them():
    claims = ledger(STUDY, "scenes").set_index("claim")
    quoted = re.findall(r"\| ([^|\n]+) \| ([+-][\d.]+) \| ([+-][\d.]+) \| (\d) \| ([a-z, ]+) \|", README.read_text())
    printed = claims.dropna(subset=["measured", "printed"])
    assert {claim for claim, *_ in quoted} == set(printed.index)
    for claim, *shown in quoted:
        line = claims.loc[claim]
        assert shown == [f"{line.printed:+z.2f}", f"{line.measured:+z.1f}", f"{line.runs:.0f}", line.verdict]


def test_the_readme_says_which_verdicts_other_splits_do_not_share():
    """One sentence of it for each."""
    sentences = {
        ("SLViT beats LAVT", "testA", "undecided"): "SLViT's gain on LAVT is undecided on both",
        ("SLViT beats LAVT", "testB", "undecided"): "SLViT's gain on LAVT is undecided on both",
        ("the full model beats LAVT", "testA", "failed"): "S²RM + CASG is below LAVT on testA",
        ("S²RM beats ACM (CASG)", "testB", "undecided"): "ACM's lead over S²RM with CASG is undecided on testB",
    }
    differ = set()
    for line in ledger(STUDY, "scenes").itertuples():
        for split, rule in re.findall(r"(\w+): ([a-z ]+) [+-]", line.elsewhere):
            if rule != line.verdict:
                differ.add((line.claim, split, rule.removesuffix(" in one run")))
    assert differ == set(sentences)
    assert all(sentence in flowing(README) for sentence in sentences.values())


def test_the_readme_quotes_runs_as_their_records_have_them():
    text, runs = flowing(README), single_runs()
    ends = {run: record.metrics["val"]["oIoU"] for run, record in runs.items()}
    fpn, casg = (
        [f"{end:.1f}" for (of, _), end in sorted(ends.items()) if of == f"S²RM + {name}"] for name in ("FPN", "CASG")
    )
    assert "S²RM + FPN has {}, {} and {} with seeds 0, 1 and 2".format(*fpn) in text
    assert f"S²RM + CASG ({NUMBERS[len(casg)]} runs: {', '.join(casg)})" in text
    apart = max(
        np.ptp([end for (other, _), end in ends.items() if other == label]) for label in {label for label, _ in ends}
    )
    assert f"differ in their seed alone end up to {apart:.1f} points apart" in text
    sides = [STUDY.variants[name].label for name in ("s2rm_casg_longer", "tile_concat_longer")]
    gains = [shown_gain(*sides, seed).split()[0].removeprefix("+") for seed in (0, 1, 2)]
    assert "and gains {}, {} and {} points with seeds 0, 1 and 2".format(*gains) in text
    settled = explanations(STUDY, "scenes").set_index("reference").loc["tile_concat_longer"]
    shown = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*settled[["measured", "low", "high"]])
    assert f"on the whole {shown}" in text and settled["verdict"] == "supported"
    assert f"{shown} on the whole" in flowing(FINDINGS)
    pairs = [variant_records(STUDY, "scenes", name) for name in ("s2rm_casg_longer", "tile_concat_longer")]
    assert all(interval(resampled_gains(*pairs, split)["oIoU"])[0] > 0 for split in ("testA", "testB"))
    longer = [f"{ends[sides[0], seed]:.1f}" for seed in (0, 1, 2)]
    assert "with all three seeds ({}, {} and {})".format(*longer) in text
    cells = STUDY.variants["casg_no_d123"].label
    with_casg = {
        run: ends[run] for run, r in runs.items() if r.config.model.decoder.name == "casg" and not r.config.model.whole
    }
    kinds = BUILDERS["kinds_by_run"](STUDY, "scenes", "").query("kind == 'location'")
    places = {(STUDY.variants[line.variant].label, line.seed): line.ours for line in kinds.itertuples()}
    of_one_budget = {run for run in with_casg if run[0] != cells and "twice as long" not in run[0]}
    ordered = np.array(sorted(places[run] for run in of_one_budget))
    *others, widest = np.argsort(np.diff(ordered))
    assert np.diff(ordered)[widest] > 2 * np.diff(ordered)[others].max()  # "of two sorts": one gap, wide
    sorts = {learned: [] for learned in (True, False)}
    for run in with_casg.keys() - {(cells, 0)}:
        sorts[places[run] > ordered[widest]].append(with_casg[run])
    assert f"where things stand ({min(sorts[True]):.1f} and more)" in text
    full = {seed: places[of, seed] > ordered[widest] for of, seed in with_casg if of == "S²RM + CASG"}
    first, second = (sorted(seed for seed, took_off in full.items() if took_off == sort) for sort in (True, False))
    by_seed = "of the first with seeds {}, {} and {}, of the second with {} and {}"
    assert by_seed.format(*first, *second) in flowing(FINDINGS)
    assert f"of the first sort with {NUMBERS[len(first)]} seeds and of the second with {NUMBERS[len(second)]}" in text
    assert f"what they look like ({min(sorts[False]):.1f} to {max(sorts[False]):.1f})" in text


def test_the_findings_quote_runs_as_their_records_have_them():
    text, runs = flowing(FINDINGS), single_runs()
    kinds = BUILDERS["kinds_by_run"](STUDY, "scenes", "").set_index(["variant", "seed", "kind"])["ours"].sort_index()
    row = r"\| ([^|\n]+), seed (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|"
    quoted = {(label, int(seed)): numbers for label, seed, *numbers in re.findall(row, FINDINGS.read_text())}
    with_casg = {run for run, r in runs.items() if r.config.model.decoder.name == "casg" and not r.config.model.whole}
    assert set(quoted) == with_casg
    for run, numbers in quoted.items():
        of_kinds = kinds[runs[run].config.variant, run[1]][["attribute", "location", "relation"]]
        assert numbers == [f"{value:.1f}" for value in (runs[run].metrics["val"]["oIoU"], *of_kinds)]
    longer, plain = (STUDY.variants[name].label for name in ("tile_concat_longer", "tile_concat"))
    first, second = (
        runs["S²RM + CASG, trained twice as long", seed].curve()["val_oIoU"].dropna().tolist() for seed in (1, 2)
    )
    assert f"at the end of the third it is at {first[2]:.1f}" in text
    by_epoch = "at {:.1f} after three, at {:.1f} after four, and at {:.1f} in the end"
    assert by_epoch.format(*second[2:4], second[5]) in text
    ends = {run: record.metrics["val"]["oIoU"] for run, record in runs.items()}
    reached = [f"{ends[longer, seed]:.1f}" for seed in (0, 1, 2)]
    above = [f"{ends[longer, seed] - ends[plain, seed]:.1f}" for seed in (0, 1, 2)]
    assert "{}, {} and {} with seeds 0, 1 and 2, {}, {} and {} above its runs".format(*reached, *above) in text
    first = [
        ("s2rm_no_l2v", "s2rm_no_shift_no_l2v"),
        ("s2rm_no_v2l", "s2rm_no_shift_no_v2l"),
        ("s2rm_no_shift_no_l2v", "tile_concat"),
        ("s2rm_no_l2v", "tile_concat"),
        ("s2rm_casg", "casg_no_d3"),
        ("s2rm_casg", "casg_no_spatial"),
        ("slvit", "slvit_strips_7_11_21"),
        ("slvit", "slvit_strip21"),
        ("slvit_k4", "slvit"),
    ]
    every = [
        ("s2rm_casg", "s2rm_fpn"),
        ("s2rm_casg", "tile_concat"),
        ("s2rm_casg_longer", "tile_concat_longer"),
        ("s2rm_fpn", "s2rm_no_shift"),
        ("s2rm_fpn", "tile_concat"),
    ]
    expected = {shown_gain(*(STUDY.variants[name].label for name in pair), 0) for pair in first}
    for one, other in (tuple(STUDY.variants[name].label for name in pair) for pair in every):
        both = [seed for label, seed in runs if label == one and (other, seed) in runs]
        expected |= {shown_gain(one, other, seed) for seed in both}
    on_the_whole = explanations(STUDY, "scenes").set_index("reference").loc["tile_concat_longer"]
    expected.add("{:+.1f} [{:+.1f}, {:+.1f}]".format(*on_the_whole[["measured", "low", "high"]]))
    assert set(re.findall(r"[+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\]", text)) == expected


def test_the_findings_quote_the_tables(floors):
    text = flowing(FINDINGS)
    ends = {run: f"{record.metrics['val']['oIoU']:.1f}" for run, record in single_runs().items()}
    of = {name: ends[STUDY.variants[name].label, 0] for name in ("tile_concat", "s2rm_fpn", "s2rm_no_shift")}
    assert f"({of['tile_concat']} with that seed); both together at {of['s2rm_fpn']}, and {of['s2rm_no_shift']}" in text
    halves = [ends[STUDY.variants[f"s2rm_{name}"].label, 0] for name in ("no_l2v", "no_v2l")]
    halves += [ends[STUDY.variants[f"s2rm_no_shift_{name}"].label, 0] for name in ("no_l2v", "no_v2l")]
    assert f"ends at {min(halves)} to {max(halves)}" in text
    kinds = BUILDERS["kinds_by_run"](STUDY, "scenes", "").query("seed == 0").set_index(["variant", "kind"])["ours"]
    one, other = ("casg_no_channel", "s2rm_casg")
    coarse, fine = (single_runs()[STUDY.variants[name].label, 0].metrics["val"] for name in ("casg_no_d3", "s2rm_casg"))
    precise = (
        "without it {:.1f} % of the masks exceed an IoU of 0.5, with it {:.1f} %; one of 0.8, {:.1f} % and {:.1f} %"
    )
    assert precise.format(*(side[at] for at in ("P@0.5", "P@0.8") for side in (coarse, fine))) in text
    lacking = ("slvit_no_urce", "slvit_strips_7_11_21", "slvit_strip21")
    places = [f"{kinds[name, 'location']:.1f}" for name in (*lacking, "slvit")]
    assert "words of place ({}, {} and {} against {})".format(*places) in text and min(places) == places[-1]
    by_regions = [ends[STUDY.variants[name].label, 0] for name in URCE_0_2_4]
    assert "ends at {}, with two at {}, with four at {} (".format(*by_regions) in text
    assert "({}, {} and {} with none, two and four)".format(*by_regions) in flowing(README)
    by_K = variants_by_regions(STUDY, "scenes")
    assert tuple(by_K[K] for K in (0, 2, 4)) == URCE_0_2_4
    for split in ("val", "testA", "testB"):  # "the more are refined, the lower it ends"
        by_count = [single_runs()[STUDY.variants[name].label, 0].metrics[split]["oIoU"] for name in URCE_0_2_4]
        assert by_count == sorted(by_count, reverse=True)
    looks, place = (
        f"{kind} {kinds[one, kind]:.1f} against {kinds[other, kind]:.1f}" for kind in ("attribute", "location")
    )
    assert looks in text and place in text
    ruled = ledger(STUDY, "scenes").set_index("claim")
    assert ruled.loc["S²RM beats Tile & Concat", "verdict"] == "supported"  # "that claim holds"
    everywhere = ("URCE helps", "spatial attention helps CASG", "the gate helps", "three strip pairs beat one of 21")
    for claim in everywhere:  # "on all three splits"
        assert ruled.loc[claim, ["verdict", "elsewhere"]].str.count("failed in one run").tolist() == [1, 2]
    claims = ruled["measured"]
    assert f"a loss of {-claims['URCE helps']:.1f} points" in text
    points = [f"{-claims[everywhere[k]]:.1f}" for k in (0, 2, 3)]
    below = r"{} points below that without URCE, {} below that without the gate \(.*?\), {} below that with one strip"
    assert re.search(below.format(*map(re.escape, points)), text)
    assert f"ends {claims['the last decoding stage helps']:.1f} below the full model of that seed" in text
    assert f"ends {claims['channel attention helps CASG']:.1f} points below the full model" in text
    assert f"ends {-claims['S²RM beats ACM (CASG)']:.1f} above the full model of that seed" in text
    assert f"where ACM + FPN ends {claims['S²RM beats ACM (FPN)']:.1f} below S²RM + FPN" in text
    above = [claims[claim] for claim in ("language helps CASG", "tanh beats the sigmoid in CASG")]
    above.append(claims["S²RM beats PWAM (CASG)"])
    assert f"ends {min(above):.0f} to {max(above):.0f} points below that seed" in text
    missed = float(ends[STUDY.variants["s2rm_casg"].label, 1])
    others = (STUDY.variants[name].label for name in ("casg_no_language", "casg_sigmoid", "pwam_casg"))
    below = [missed - float(ends[label, 0]) for label in others]
    assert f"{min(below):.0f} to {max(below):.0f} below the same full model with seed 1" in text
    floor, best = (summarize_counts(floors[name])["oIoU"] for name in ("every", "best"))
    low, lifted = (ends[STUDY.variants[name].label, 0] for name in ("pwam_fpn", "pwam_casg"))
    assert f"gets {floor:.1f}, the best of all that heed none {best:.1f}. PWAM + FPN is hardly above" in text
    assert f"above the first with {low}" in text
    assert f"the same PWAM reaches {lifted}" in text
    use = pd.read_csv(SCENES / "tables" / "word_use.csv")
    first = use.loc[0]
    assert first["variant"] == "pwam_fpn"
    share = f"{first['other']:.0f} % [{first['other_low']:.0f}, {first['other_high']:.0f}]"
    assert f"for two things of one picture share {share} of what they mark" in text
    assert f"those of no other run that keeps masks more than {use.loc[1, 'other']:.0f} %" in text
    assert f"on {first['pictures']} pictures" in text
    gain = pd.read_csv(SCENES / "tables" / "explanations.csv").loc[0, "measured"]
    lacks = ledger(STUDY, "scenes").set_index("claim").loc["S²RM beats PWAM (FPN)", "measured"]
    assert f"without that norm it gains {gain:.1f} points of the {lacks:.1f} that it lacks" in text


def test_the_findings_name_the_runs_whose_code_was_not_committed():
    dirty = {run for run, record in single_runs().items() if record.provenance()["uncommitted_changes"]}
    assert dirty == {("S²RM + FPN", 0), ("S²RM + CASG", 0)}
    assert "S²RM + FPN and S²RM + CASG with seed 0 were trained while their code was not yet committed" in flowing(
        FINDINGS
    )


def test_the_page_on_performance_quotes_what_was_measured():
    page = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))
    text = page["PAGE"].read_text()
    assert page["filled"](text) == text, "python benchmarks/page.py renews it"
    quoted = {"slopes" if path.stem == "growth" else path.stem for path in page["RESULTS"].glob("*.csv")}
    assert quoted <= set(page["TABLE"].findall(text))


def test_committed_files_are_those_of_the_manifest():
    manifest = read_manifest(SCENES)
    for kind in ("tables", "figures"):
        listed = {name for entry in manifest[kind].values() for name in entry["files"]}
        assert listed == {path.name for path in (SCENES / kind).iterdir() if not path.name.startswith(".")}


def test_masks_that_records_keep_have_the_counts_of_the_records(tmp_path):
    """The first scenes of a split are the same in a smaller set, so only those are made here."""
    records = [record for record in find_records(SCENES / "records") if record.masks()]
    assert records
    for data in {json.dumps(record.config.data.model_dump(), sort_keys=True) for record in records}:
        own = [record for record in records if json.dumps(record.config.data.model_dump(), sort_keys=True) == data]
        config = own[0].config.data.model_copy(update={"scenes": {"val": SHOWN_IMAGES}})
        table = load_refer(prepare_data(config, tmp_path, progress=False), config.dataset, config.split_by)
        corpus = build_corpus(table, "val", config.image_size, build_tokenizer(), config.max_words)
        truth = corpus.mask(corpus.ref_of_expression)
        for record in own:
            counts = record.counts().query("split == 'val' and image_id in @corpus.table.image_id")
            kept = record.masks()
            masks = np.stack([kept[sentence] for sentence in counts["sent_id"]])
            assert (counts["intersection"] == (masks & truth).sum((1, 2))).all(), record.path.name
            assert (counts["union"] == (masks | truth).sum((1, 2))).all(), record.path.name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A results folder with one table that is recomputed, one of a notebook alone, and one figure."""
    builders = {"s2rm_table4": lambda study, profile, folder: pd.DataFrame({"ours": [1.5]})}
    monkeypatch.setattr(results, "BUILDERS", builders)
    write_table(pd.DataFrame({"ours": [1.5]}), tmp_path / "tables", "s2rm_table4")
    write_table(pd.DataFrame({"cause": ["leaked"]}), tmp_path / "tables", "failure_causes")
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    save(figure, tmp_path / "figures", "line")
    write_manifest(STUDY, "scenes", str(tmp_path))
    return tmp_path


def states(folder):
    return verify(STUDY, folder).set_index("file")["state"].to_dict()


def test_an_untouched_folder_is_verified(folder):
    found = states(folder)
    assert found.pop("tables/s2rm_table4.csv") == "same"
    assert found == dict.fromkeys(("tables/failure_causes.csv", "figures/line.svg", "figures/line.png"), "as written")


def test_every_edit_is_told(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    (folder / "tables" / "s2rm_table4.csv").write_text("ours\n1.60\n")
    (folder / "tables" / "failure_causes.csv").write_text("cause\nnone\n")
    (folder / "figures" / "line.png").unlink()
    found = states(folder)
    assert found["tables/s2rm_table4.csv"] == "differs"
    assert found["tables/failure_causes.csv"] == "changed"
    assert found["figures/line.png"] == "missing"
    done = CliRunner().invoke(app, ["verify", str(folder)])
    assert done.exit_code == 1 and "differs: " in done.output and "3 are not" in done.output


@pytest.mark.parametrize("content", ["{", "5", "[]", '{"profile": "scenes"}', '{"tables": {"a": {}}, "figures": {}}'])
def test_a_broken_manifest_is_named(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(StudyError, match=f"{FILE_NAME}: no manifest .*restore it, or delete it"):
        read_manifest(tmp_path)


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(StudyError, match=FILE_NAME):
        verify(STUDY, tmp_path)
