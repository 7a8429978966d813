"""The blocks of numbers in README.md and of two pages of docs/, filled from the tables of a results folder.

A block stands between ``<!-- NAME -->`` and ``<!-- end -->``; do not edit it by hand.
"""

import re
from pathlib import Path

import pandas as pd

from refstudy.analysis.claims import STRATA
from refstudy.analysis.inference import ALPHA, CONTRADICTED, EQUIVALENT, SUPPORTED, UNDECIDED, UNMEASURED
from refstudy.analysis.table_files import read_table
from refstudy.analysis.table_text import markdown, render_verdicts, with_interval
from refstudy.analysis.tables import PAPER_TABLES
from refstudy.base.errors import StudyError
from refstudy.base.files import write_text
from refstudy.metrics import METRICS
from refstudy.study.file import ProfileStudy, Study

PAGES = (Path("README.md"), Path("docs/findings.md"), Path("docs/compare.md"))
ENDS = {"low": "measured_low", "high": "measured_high"}  # as ``with_interval`` has them
NONE = "*No run is recorded yet.*"
BLOCK = re.compile(r"<!-- (findings|rows|claims|compared)((?: [\w/]+)*) -->\n.*?<!-- end -->", re.DOTALL)


def fill_pages(study: ProfileStudy) -> list[Path]:
    """Fill the blocks of ``PAGES``, whose paths start at the study file; return the pages that changed.

    Raises StudyError, before any page is written, for a study with a home of its own and for results without claims.
    """
    if study.file.home != study.file.root:
        about = f"{study.file.path}: its results lie under {study.file.home}, and the pages are those of the study in"
        raise StudyError(f"{about} {study.file.root}; leave out --study, or the key 'home'")
    if not (claims := study.folder / "claims.csv").is_file():
        raise StudyError(f"{claims}: missing, and the pages need it; `refstudy run --profile {study.profile}` makes it")
    before = {path: path.read_text(encoding="utf-8") for path in (study.file.root / page for page in PAGES)}
    now = {path: filled(text, study.file, study.folder) for path, text in before.items()}
    changed = [path for path in before if now[path] != before[path]]
    for path in changed:
        write_text(path, now[path])
    return changed


def filled(text: str, study: Study, folder: Path) -> str:
    """A page's text with every block as the tables in ``folder`` have it.

    ``findings`` are a few sentences; ``rows`` is a line for each variant that was trained, the lowest first, or for
    those that it names; ``claims`` is a line for each claim that was measured; ``compared`` is a line for each baseline
    of a comparison, in the folder that it names.
    """

    def block(found: re.Match[str]) -> str:
        name, variants = found[1], found[2].split()
        if name == "findings":
            table = "\n".join(f"- {text}" for text in findings(study, folder))
        elif name == "compared":
            table = _compared(study, study.root / found[2].strip())
        else:
            table = _claims(folder) if name == "claims" else _rows(study, folder, variants)
        return f"<!-- {name}{found[2]} -->\n{table}\n<!-- end -->"

    return BLOCK.sub(block, text)


def findings(study: Study, folder: Path) -> list[str]:
    """The main findings in a few plain sentences, in Markdown, from the tables of a results folder."""
    said, own = [], _measured(study, folder)
    if len(own):
        ends = own.assign(level=with_interval(own, "ours")).iloc[[0, -1]].itertuples()
        low, high = (
            f"{study.variants[row.variant].label} ({row.level} %, {row.runs:.0f} run{'s' if row.runs > 1 else ''})"
            for row in ends
        )
        where = own["data"].iloc[-1] + _sizes(study, folder)
        of = f"Of {len(own)} trained models of the papers' tables"
        several = f"{of}, {high} has the highest overall IoU on {where}, {low} the lowest."
        one = f"One model is trained so far: {high}, overall IoU on {where}."
        said.append(f"**Models.** {several if len(own) > 1 else one}{_runs_in(study, folder)}")
    else:
        said.append("**Models.** No run is recorded yet: what the papers print stands next to empty columns.")
    if (folder / "claims.csv").exists():
        claims = read_table(folder / "claims.csv")
        said.append(f"**Claims.** {_verdicts(claims)}")
        so_far = " so far" if (claims["verdict"] == UNMEASURED).any() else ""  # until all rows have their runs
        for verdict in (SUPPORTED, CONTRADICTED, EQUIVALENT, UNDECIDED):
            judged = claims[claims["runs"].notna() & (claims["verdict"] == verdict)]
            if len(judged):
                said.append(f"**{verdict.capitalize()}{so_far}:** {_judged(judged)}.")
        said += [f"**Close.** {text}" for text in _by_own_spread(claims[claims["runs"].notna()])]
        both = claims[claims["runs"].notna()].dropna(subset=["printed", "measured"])
        if len(both):
            inside = both["printed"].between(both["low"], both["high"]).sum()
            said.append(
                f"**Size.** Of {len(both)} measured gains, {inside} have an interval that holds the printed gain."
            )
    path = folder / "tables" / "explanations.csv"
    if path.exists():
        tested = read_table(path).sort_values("measured", ascending=False)
        for verdict in (SUPPORTED, CONTRADICTED):
            for seen, heading in ((False, "Put to the test"), (True, "Seen, then judged")):
                some = tested[(tested["verdict"] == verdict) & (tested["seen"].eq("yes") == seen)]
                if len(some):
                    gains = with_interval(some.rename(columns=ENDS), "measured", signed=True)
                    said.append(f"**{heading}, {verdict}:** {'; '.join(some['explanation'] + ' (' + gains + ')')}.")
    path = folder / "tables" / "rank_agreement.csv"
    if path.exists() and len(ranked := read_table(path).dropna(subset=["tau", "low"])) == 2:
        every, far = (f"{line.tau:.2f} [{line.low:.2f}, {line.high:.2f}]" for line in ranked.itertuples())
        (pairs, fewer), least = ranked["pairs"], ranked["least"].iloc[1]
        left_out = "the one that differs" if pairs - fewer == 1 else f"the {pairs - fewer} that differ"
        apart = f"without {left_out} by less than {least} points in print, {far}"
        what = (
            f"Of {pairs} pairs of rows of one table of ablations, {50 * (1 + ranked['tau'].iloc[0]):.0f} % stand in the"
        )
        meant = "1: the same order, 0: chance, -1: turned round"
        shown = "is not shown to order" if ranked["low"].iloc[0] <= 0 else "orders"
        verdict = f"By all pairs, the study {shown} modules like the papers better than chance"
        said.append(f"**Order.** {what} printed order: Kendall's tau {every}; {apart} ({meant}). {verdict}.")
    path = folder / "tables" / "replication.csv"
    if path.exists():
        for line in read_table(path).dropna(subset="fresh").itertuples():
            names = " over ".join(study.variants[name].label for name in (line.variant, line.reference))
            within = "which holds it" if line.inside == "yes" else "which does **not** hold it"
            foretold = f"The interval foretold for it was [{line.low:+.1f}, {line.high:+.1f}], {within}."
            what = f"With {line.fresh_runs} fresh seeds a side, the gain of {names} is {line.fresh:+.1f}"
            said.append(f"**Done again.** {what} ({line.gain:+.1f} by the runs that count). {foretold}")
    path = folder / "tables" / "paper_audit.csv"
    if path.exists():
        verdicts = read_table(path)["verdict"].value_counts()
        agree, near, differ = (verdicts.get(verdict, 0) for verdict in ("agrees", "last digit", "differs"))
        checked = f"Of {verdicts.sum()} statements of the papers that their own tables can check"
        numbers = f"{agree} agree with the tables, {near} are off in the last digit, {differ} differ"
        said.append(f"**Print.** {checked}, {numbers}.")
    return said


def _sizes(study: Study, folder: Path) -> str:
    """How many pictures and expressions results rest on; empty without the table of kinds, or of released data."""
    paths = [folder / "tables" / f"{stem}.csv" for stem in ("all_runs", "kinds")]
    if not all(path.exists() for path in paths):
        return ""
    runs, kinds = (read_table(path) for path in paths)
    profile = study.profile(runs["profile"].iloc[0])
    scenes, split = profile.data.scenes, profile.splits[0]
    if split not in scenes or kinds.empty:
        return ""
    expressions = kinds.loc[kinds["variant"] == kinds["variant"].iloc[0], "expressions"].sum()
    return f" ({scenes[split]:,} pictures, {expressions:,.0f} expressions; {scenes['train']:,} pictures to learn from)"


def _runs_in(study: Study, folder: Path) -> str:
    """How many runs of the study are recorded; empty without the table of all runs."""
    path = folder / "tables" / "all_runs.csv"
    if not path.exists():
        return ""
    recorded = read_table(path)
    planned = [
        len(study.seeds(profile, name))
        for profile in study.together(recorded["profile"].iloc[0])
        for name in study.variant_names(profile)
    ]
    return f" {recorded['runs'].sum():.0f} of {sum(planned)} runs are in."


def _verdicts(claims: pd.DataFrame) -> str:
    """How many claims have which verdict, in words."""
    counted = claims["measured"].notna() & claims["runs"].isna()
    texts = []
    for about, some in (("accuracy", claims[~counted]), ("cost", claims[counted])):
        if some.empty:
            continue
        verdicts, own = some["verdict"].value_counts(), (some["paper"] == "this study").sum()
        numbers = [f"{count} {'is' if count == 1 else 'are'} {verdict}" for verdict, count in verdicts.items()]
        notes = ["cost is counted, without a run"] if about == "cost" else []
        notes += [f"{own} of them {'is' if own == 1 else 'are'} this study's own"] if own else []
        note = f" ({'; '.join(notes)})" if notes else ""
        texts.append(f"Of {len(some)} claim{'s'[: len(some) != 1]} about {about}, {', '.join(numbers)}{note}.")
    return " ".join(texts)


def _judged(claims: pd.DataFrame) -> str:
    """Claims with one verdict in a line, the largest gain first; the metric is named where it is not overall IoU."""
    texts = []
    for claim in claims.loc[claims["measured"].abs().sort_values(ascending=False).index].itertuples():
        metric = "" if claim.metric == METRICS[0] else f" points of {claim.metric}"
        printed = f"; printed {claim.printed:+.1f}" if pd.notna(claim.printed) else ""
        texts.append(f"{claim.claim} ({claim.measured:+.1f} [{claim.low:+.1f}, {claim.high:+.1f}]{metric}{printed})")
    return "; ".join(texts)


def _by_own_spread(claims: pd.DataFrame) -> list[str]:
    """Say which verdicts rest on the spread that rows of one family share; empty without a verdict."""
    decided = claims[claims["verdict"].isin((SUPPORTED, CONTRADICTED))]
    if decided.empty:
        return []
    close = decided[decided["p_own"] > ALPHA]
    names = "; ".join(close["claim"] + close["p_own"].map(" (*p* = {:.3f})".format)) or "none"
    return [f"Decided, but undecided if each row's spread over seeds is that of its own runs alone: {names}."]


def _measured(study: Study, folder: Path) -> pd.DataFrame:
    """A line for each variant that was trained, the lowest overall IoU first."""
    paths = [path for stem in PAPER_TABLES if (path := folder / "tables" / f"{stem}.csv").exists()]
    if not paths:
        return pd.DataFrame()
    tables = pd.concat([read_table(path) for path in paths], ignore_index=True)
    own = tables[(tables["metric"] == METRICS[0]) & (tables["runs"] > 0) & tables["variant"].isin(list(study.variants))]
    return own.drop_duplicates("variant").sort_values("ours")


def _rows(study: Study, folder: Path, variants: list[str]) -> str:
    own = _measured(study, folder)
    if variants:
        own = own[own["variant"].isin(variants)]
    if own.empty:
        return NONE
    labels, runs = own["variant"].map(lambda name: study.variants[name].label), own["runs"].map("{:.0f}".format)
    columns = {"": labels, "overall IoU": with_interval(own, "ours"), "runs": runs, "measured on": own["data"]}
    return markdown(pd.DataFrame(columns))


def _claims(folder: Path) -> str:
    table = read_table(folder / "claims.csv")
    measured = table[table["measured"].notna() & table["runs"].notna()]
    parts = measured[[part for part in STRATA if part in measured]].fillna("")
    shown = NONE if measured.empty else markdown(render_verdicts(measured, "claim", "metric").join(parts).astype(str))
    others = table.drop(measured.index)
    notes = [f"The others: {_verdicts(others).replace('Of', 'of', 1)}"] if len(others) else []
    notes += _by_own_spread(measured)
    return "\n\n".join([shown, *notes])


def _compared(study: Study, folder: Path) -> str:
    table = read_table(folder / "gains.csv", "refstudy compare").rename(columns=ENDS)
    shown = pd.DataFrame({"over": [study.variants[name].label for name in table["reference"]]})
    shown["gain in overall IoU"] = with_interval(table, "measured", signed=True)
    shown = shown.assign(verdict=table["said"], runs=table["runs"], **{"its runs": table["reference_runs"]})
    return markdown(shown.astype(str))
