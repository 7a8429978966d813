"""The command line: run the study, train one run, pretrain the encoders, make the data, segment a photo."""

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option, echo
from typer.core import TyperCommand

from refstudy.base.errors import StudyError
from refstudy.study import FILE_NAME

if TYPE_CHECKING:
    from refstudy.study.file import Study

PLAIN: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "rich_markup_mode": None}
app = typer.Typer(help="refstudy: a study of referring image segmentation.", **PLAIN)
data_app = typer.Typer(help="Make and check data.", **PLAIN)
app.add_typer(data_app, name="data")

# Largest message from a page to the kernel: a photo from a camera fits; Jupyter breaks the connection at 10 MiB.
LARGE_UPLOADS = {"websocket_max_message_size": 128 * 2**20}

WEIGHTS = "a weights file or a folder of save_pretrained"
Texts = list[str] | None
Profile = Annotated[str, Option(metavar="NAME", help="a profile of the study file")]
StudyOption = Annotated[str, Option("--study", metavar="FILE", help="the study file")]
Scheduler = Annotated[str, Option(metavar="ADDRESS", help="work on this Dask cluster, e.g. tcp://host:8786")]
TimeBudget = Annotated[float | None, Option(metavar="MINUTES", min=0, help="after which to stop")]
AtOnce = Annotated[int, Option(metavar="N", min=1, help="runs at once on this machine, each a process of its own")]
Beside = Annotated[bool, Option("--beside", help="also the profiles that this one names in `beside`")]
OnlyVariant = Annotated[Texts, Option("--variant", metavar="NAME", help="only this one; repeatable; default: all")]


def _study(name: str) -> "Study":
    from refstudy.study.load import load_study  # nothing is loaded for --help

    return load_study(name)


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from refstudy.base.provenance import code_version

        commit = code_version()["commit"]
        echo(f"refstudy {version('refstudy')}" + (f", commit {commit}" if commit else ""))
        raise typer.Exit


Version = Annotated[bool, Option("--version", help="show version and commit", is_eager=True, callback=_tell_version)]


@app.callback()
def options(version: Version = False) -> None:
    """refstudy: a study of referring image segmentation."""


@app.command()
def run(
    profile: Profile = "scenes",
    train: Annotated[bool, Option("--train", help="first train every run that has no record")] = False,
    only: Annotated[Texts, Option(metavar="NAME", help="consider only this notebook; repeatable")] = None,
    fresh: Annotated[bool, Option("--fresh", help="execute all, even if up to date; records stay")] = False,
    settings: Annotated[
        Texts, Option("--set", metavar="KEY=VALUE", help="change a parameter of notebooks; repeatable")
    ] = None,
    workers: Annotated[int, Option(metavar="N", min=0, help="notebooks at once; 0: one per core")] = 0,
    scheduler: Scheduler = "",
    time_budget: TimeBudget = None,
    dry_run: Annotated[bool, Option("--dry-run", help="show what would run, and why, and stop")] = False,
    study: StudyOption = FILE_NAME,
) -> None:
    """Execute the notebooks of a profile that are not up to date. Their tables and figures go to results/<profile>.

    A notebook is up to date when its code, its parameters, its part of the study file, the modules it uses, what it
    read and what it wrote are as at its last execution. With --train, and always for a profile that says `training:
    always` (unless --only names notebooks), runs without a record are trained first, as by `refstudy train`, --workers
    at once (0: one). When the time budget is spent, status 75 says that the same command goes on.
    """
    from refstudy.engine.run import run_profile
    from refstudy.study.changes import parse_changes

    asked = (train, only or (), fresh, parse_changes(settings or ()))
    raise typer.Exit(run_profile(_study(study), profile, *asked, workers, scheduler, time_budget, dry_run))


@app.command()
def train(
    variant: Annotated[Texts, Option(metavar="NAME", help="a variant; repeatable; default: all of the profile")] = None,
    profile: Profile = "scenes",
    seed: Annotated[
        list[int] | None,
        Option(metavar="N", min=0, max=2**32 - 1, help="repeatable; default: the seeds of the profile"),
    ] = None,
    at_once: AtOnce = 1,
    time_budget: TimeBudget = None,
    again: Annotated[bool, Option("--again", help="train also what has a record")] = False,
    beside: Beside = False,
    scheduler: Scheduler = "",
    settings: Annotated[
        Texts,
        Option("--set", metavar="KEY=VALUE", help="change a setting, e.g. train.epochs=2; repeatable"),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="list the runs and which have a record, and stop")] = False,
    study: StudyOption = FILE_NAME,
) -> None:
    """Train the runs that have no record. Their records go to results/<profile>/records.

    The same command goes on where an earlier one stopped. When the time budget is spent, or on SIGTERM or Ctrl-C, it
    finishes the update, saves, and ends with status 75; with status 1 when one of several runs failed. Under torchrun
    or `accelerate launch -m refstudy.cli train`, all processes train one run after the other together.

    With --set, whose keys are those of a record's `config`, a run is another one and has its own record: the file name
    holds the digest of the settings. No table counts it, and it replaces no shipped weights.
    """
    from refstudy.study.changes import parse_changes

    loaded = _study(study).changed(parse_changes(settings or ()))
    cases = loaded.cases(profile, variant or (), seed or (), beside)
    if dry_run:
        for case in cases:
            record = loaded.record(case)
            echo(f"{'has its record' if record.exists() else 'to train':14}  {record}")
        return
    from refstudy.engine.needs import refuse_without
    from refstudy.engine.signals import Stop
    from refstudy.engine.trainings import train_all  # PyTorch takes seconds to import

    refuse_without(loaded, loaded.together(profile) if beside else (profile,), cases)
    raise typer.Exit(train_all(loaded, cases, Stop(time_budget), at_once, again, scheduler))


@app.command()
def compare(
    source: Annotated[
        str,
        Argument(metavar="MODULE", help="file.py:Class, a fusion module or decoder; a variant; or a study file of one"),
    ],
    decoder: Annotated[str, Option(metavar="NAME", help="of a fusion module: fpn, casg, or file.py:Class")] = "fpn",
    against: Annotated[
        Texts,
        Option(metavar="NAME", help="a recorded variant; repeatable; default: all with this decoder, and S²RM + CASG"),
    ] = None,
    seeds: Annotated[int, Option(metavar="N", min=1, help="runs; fewer than three give no verdict")] = 3,
    minutes: Annotated[float | None, Option(metavar="MINUTES", min=0, help="begin no seed that ends later")] = None,
    flavour: Annotated[str, Option(metavar="NAME", help="the data, e.g. refscenes+; default: the profile's")] = "",
    at_once: AtOnce = 1,
    scheduler: Scheduler = "",
    output: Annotated[Path | None, Option(metavar="FOLDER", help="default: comparisons/NAME")] = None,
    profile: Profile = "scenes",
    study: StudyOption = FILE_NAME,
) -> None:
    """Train a module of your own and compare it with baselines. It is trained as they were.

    The baselines are not trained again. First it says how long it will take here, and which gains so many seeds can
    show; in the end it writes tables and a page that can be sent to someone. Ctrl-C saves, and the same command goes
    on; status 75 says that it has to.
    """
    if scheduler and minutes is not None:
        raise StudyError("--minutes: not with --scheduler; give the queue's own limit to the workers")
    from refstudy.engine.comparison_file import write_study

    written = write_study(source, decoder, against or (), seeds, flavour, profile, output, study)
    from refstudy.engine.comparison import compare as compare_with  # PyTorch takes seconds to import

    raise typer.Exit(compare_with(written, minutes, at_once, scheduler))


@app.command()
def rehearse(
    profile: Annotated[Texts, Option(metavar="NAME", help="repeatable; default: both encoders of RefCOCO")] = None,
    variant: OnlyVariant = None,
    images: Annotated[int, Option(metavar="N", help="photographs, 3 or more: two to train on, others to evaluate")] = 3,
    study: StudyOption = FILE_NAME,
) -> None:
    """Train every variant at its true size for two updates. Validate it, and fill a cell of its table.

    Prints memory, seconds and ranges of gates of each, and the cost of a full run. Nothing is downloaded: weights that
    are not on this machine are random ones. The same command goes on where an earlier one was interrupted. Exit status
    1 when a variant fails or gives a number that is not finite.
    """
    from refstudy.study.file import PAPERS_SWIN_B, PAPERS_SWIN_T

    loaded = _study(study)
    profiles = profile or [PAPERS_SWIN_T, PAPERS_SWIN_B]
    names = {name: loaded.variant_names(name) for name in profiles}
    cases = [(name, one) for name in profiles for one in (variant or names[name]) if profile or one in names[name]]
    listed = {one for _, one in cases}
    cases += [(profiles[0], one) for one in variant or () if one not in listed]  # one that no profile trains by itself
    path = loaded.root / "work" / "rehearsal.csv"
    from refstudy.engine.rehearsal import FINE, rehearse

    try:
        found = rehearse(loaded, cases, images, path, echo)
    except KeyboardInterrupt:
        echo(f"stopped; {path} keeps what is done, and the same command goes on", err=True)
        raise typer.Exit(130) from None
    sound = found["result"] == FINE
    echo(f"{sound.sum()} of {len(found)} variants are sound; {path}")
    raise typer.Exit(0 if sound.all() else 1)


@app.command()
def pretrain(
    profile: Profile = "scenes",
    whole: Annotated[str, Option(metavar="NAME", help="pretrain the image encoder of it, e.g. of slvit")] = "",
    output: Annotated[Path | None, Option(metavar="FILE", help="default: the file that the profile names")] = None,
    study: StudyOption = FILE_NAME,
) -> None:
    """Pretrain the encoders on RefScenes. Prints the SHA-256 to put into the profile."""
    from refstudy.base.config import PARTS, ModelConfig, PartConfig
    from refstudy.base.files import file_digest
    from refstudy.data.scenes.flavours import FLAVOURS
    from refstudy.study.file import Special

    loaded = _study(study)
    settings = loaded.profile(profile)
    if whole and whole not in PARTS["whole"]:
        raise StudyError(f"--whole {whole}: no such whole model; known: {', '.join(PARTS['whole'])}")
    if settings.data.dataset not in FLAVOURS:
        raise StudyError(f"--profile {profile}: pretraining needs RefScenes, not {settings.data.dataset}; name another")
    special = settings.special.get(whole, Special())
    # never the file of the encoders that the others share
    key, own = (f"special.{whole}.encoders", special.encoders) if whole else ("encoders", settings.encoders)
    path = output or (loaded.root / own if own else None)
    if path is None:
        raise StudyError(f"{loaded.path}: profile '{profile}' has no key '{key}'; add it or give --output")
    data = settings.data.replaced(special.data)
    image = settings.model.image.replaced(special.image)
    part = PartConfig(name=whole, options=settings.part_options.get(whole, {})) if whole else None
    model = ModelConfig(image_size=data.image_size, image=image, text=settings.model.text, whole=part)
    from refstudy.training.pretraining import pretrain as pretrain_encoders

    how = settings.pretraining.replaced(special.pretraining)
    for name, value in pretrain_encoders(data, model, how, path, loaded.data_root).items():
        echo(f"{name.replace('_', ' ')}: {value:.1f} %")
    echo(f"{path}\nencoder_weights: {file_digest(path)}")


@app.command()
def verify(
    folder: Annotated[Path | None, Argument(metavar="FOLDER", help="a results folder; default: that of scenes")] = None,
    study: StudyOption = FILE_NAME,
) -> None:
    """Compute tables again and compare them with their files. These are the tables of run records, printed numbers and
    shapes, compared byte for byte; of all other results it tells whether they changed. Exit status 1 if the code makes
    other results, or if some changed."""
    from refstudy.engine.verify import verify as verify_results

    loaded = _study(study)
    folder = folder or loaded.results("scenes")
    found = verify_results(loaded, folder)
    wrong = found[~found["state"].isin(("same", "as written"))]
    for row in wrong.itertuples():
        echo(f"{row.state}: {folder / row.file}")
    same, written = ((found["state"] == state).sum() for state in ("same", "as written"))
    echo(f"{same} tables are what the code makes, {written} files are as their notebook wrote them")
    if len(wrong):
        echo(f"{len(wrong)} are not; `refstudy run` makes them again")
        raise typer.Exit(1)


@app.command()
def table(
    stem: Annotated[str, Argument(metavar="TABLE", help="e.g. s2rm_table4, claims; without it: a list")] = "",
    profile: Profile = "scenes",
    csv: Annotated[bool, Option("--csv", help="the whole table as CSV, as its file has it")] = False,
    study: StudyOption = FILE_NAME,
) -> None:
    """Print a table of the results. A paper's has a line per row, the printed number and, in brackets, ours."""
    from refstudy.analysis.table_files import read_table, readable, table_files

    files = table_files(_study(study).under(profile).folder)
    if not files:
        raise StudyError(f"profile {profile} has no tables yet; `refstudy run --profile {profile}` makes them")
    if not stem:
        echo("\n".join(files))
        return
    if stem not in files:
        raise StudyError(f"no table '{stem}' in the results of profile {profile}; known: {', '.join(files)}")
    table = read_table(files[stem], keep_default_na=False, na_values=[""])
    if csv:
        echo(files[stem].read_text(encoding="utf-8"), nl=False)
        return
    shown = readable(table)
    is_papers = shown.index.names != [None]
    echo(shown.to_string(na_rep="", index=is_papers))
    if is_papers:
        data = ", ".join(table["data"].dropna().unique()) or "nothing yet"
        echo(f"as printed; in brackets ours, on {data}; `refstudy show {stem} ROW` has intervals and runs")


@app.command()
def show(
    stem: Annotated[str, Argument(metavar="TABLE", help="a table, e.g. s2rm_table4")],
    row: Annotated[str, Argument(metavar="ROW", help="its row, as the table names it, or a variant")],
    profile: Profile = "scenes",
    study: StudyOption = FILE_NAME,
) -> None:
    """Print a row of a table, and the run records it comes from. Every number has its interval."""
    from refstudy.analysis.opened import open_study
    from refstudy.analysis.table_files import read_table, table_files

    opened = open_study(profile, study)
    folders = {name: opened.file.results(name) for name in opened.file.profiles}
    paths = {name: files[stem] for name, folder in folders.items() if stem in (files := table_files(folder))}
    if profile not in paths:
        remedy = f"--profile {next(iter(paths))} has it" if paths else "`refstudy table` lists them"
        raise StudyError(f"no table '{stem}' in the results of profile {profile}; {remedy}")
    table = read_table(paths[profile])
    named = [name for name in ("row", "variant") if name in table]
    chosen = table[(table[named] == row).any(axis=1)].dropna(axis="columns", how="all")
    if chosen.empty:
        known = ", ".join(map(str, table[named[0]].dropna().unique())) if named else "none"
        raise StudyError(f"table '{stem}': no row '{row}'; known: {known}")
    echo(chosen.to_string(index=False, float_format="{:.2f}".format))
    for variant in chosen["variant"].unique() if "variant" in chosen else ():
        records = opened.records(variant)
        for record in records:
            made, config = record.provenance(), record.config
            about = f"seed {config.seed}, commit {made.get('commit')}, {made.get('started')}, {config.data.dataset}"
            echo(f"{record.path}: {about}, data {record.summary.get('data_fingerprint')}")
        others = [name for name, folder in folders.items() if any(folder.glob(f"records/{variant}-seed*/record.json"))]
        if others and not records:
            echo(f"{variant}: no record under profile {profile}; recorded under {', '.join(others)}: give --profile")


@app.command("evaluate")
def evaluate_command(
    weights: Annotated[Path, Argument(metavar="FILE", help=WEIGHTS)],
    profile: Annotated[str, Option(metavar="NAME", help="whose data, splits and protocol are taken")] = "scenes",
    split: Annotated[Texts, Option(metavar="NAME", help="only this one; repeatable; default: the profile's")] = None,
    csv: Annotated[Path | None, Option(metavar="FILE", help="also write the counts of every expression here")] = None,
    data: Annotated[
        Path | None, Option(metavar="FOLDER", help="a folder that `data check` accepts, in place of the profile's data")
    ] = None,
    dataset: Annotated[str, Option(metavar="NAME", help="the data set of --data, where that holds several")] = "",
    split_by: Annotated[str, Option(metavar="NAME", help="its partition, where that has several")] = "",
    study: StudyOption = FILE_NAME,
) -> None:
    """Score a trained model on a profile's data, or on your own. They are prepared in the size, words and aspect of the
    model's training; in brackets 95 % intervals, over pictures; a single picture has none.

    No record is written: a table has numbers of records, which say how a model was trained.
    """
    from refstudy.models.saved import saved_settings

    _refuse_unwritable(csv)
    loaded = _study(study)
    settings = loaded.profile(profile)
    saved_settings(weights)
    if data is not None and not data.is_dir():
        raise StudyError(f"--data {data}: no such folder; name the folder that holds the data sets")
    from refstudy.analysis.scores import own_data, scored  # PyTorch takes seconds to import
    from refstudy.base.files import atomic_write
    from refstudy.models.build import default_device, load_model

    own = own_data(data, dataset, split_by, settings.data) if data else None
    model = load_model(weights).to(default_device())
    scores, counts, precision = scored(model, settings, loaded.data_root, split or (), own, sys.stderr.isatty())
    echo(f"{weights}, in percent, computed in {precision}\n{scores.to_string()}")
    if csv is not None:
        with atomic_write(csv) as temporary:
            counts.to_csv(temporary, index=False)
        echo(csv)


class _WithExpressions(TyperCommand):
    """A command whose arguments may begin with a dash."""

    def parse_args(self, *arguments: Any) -> list[str]:
        try:
            return super().parse_args(*arguments)
        except Exception as error:
            if hasattr(error, "option_name") and hasattr(error, "message"):
                error.message += "; an expression that begins with a dash stands after --, behind all options"
            raise


@app.command(cls=_WithExpressions)
def predict(
    image: Annotated[Path, Argument(metavar="IMAGE", help="a picture, or a folder of pictures")],
    expressions: Annotated[
        list[str], Argument(metavar="EXPRESSION", help='what to look for, e.g. "the dog on the left"')
    ],
    weights: Annotated[
        Path | None, Option(metavar="FILE", help=f"{WEIGHTS}; default: a small model of RefScenes")
    ] = None,
    output: Annotated[Path, Option(metavar="FOLDER", help="for masks, overlays and JSON")] = Path("predictions"),
    overwrite: Annotated[bool, Option("--overwrite", help="replace what an earlier call wrote")] = False,
    study: Annotated[str, Option("--study", metavar="FILE", help="needed for weights with a class of your own")] = "",
) -> None:
    """Segment in a photo, or in many, what expressions mean. Writes a mask and an overlay for each expression, and a
    JSON file for each photo."""
    from refstudy.data.pictures import find_photos, unread
    from refstudy.models.saved import saved_settings, shipped_weights
    from refstudy.prediction.photos import planned_files, segment_files

    photos, others = find_photos(image)
    if weights and not weights.exists():
        raise StudyError(f"--weights {weights}: not found; train them or fetch them again")
    path = weights or shipped_weights()
    saved_settings(path)
    planned = planned_files(photos, expressions, output, overwrite)
    if others:
        echo(f"note: {len(photos)} photos in {image}{unread(others)}", err=True)
    if study:
        _study(study)
    from refstudy.models.build import default_device, load_model  # PyTorch takes seconds to import

    model = load_model(path).to(default_device())
    failed = 0
    for level, line in segment_files(model, path.name, planned, expressions):
        echo(f"{level}: {line}", err=True)
        failed += level == "error"
    each = f"{len(expressions)} mask{'s'[: len(expressions) != 1]} each"
    echo(f"{len(photos) - failed} of {len(photos)} photos segmented, {each}, in {output}")
    raise typer.Exit(1 if failed else 0)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(context: typer.Context, study: StudyOption = FILE_NAME) -> None:
    """Open a notebook in which to ask the model about a picture.

    It opens in JupyterLab. Further options are JupyterLab's: --no-browser on a server, --allow-root in a container.
    """
    import subprocess

    loaded = _study(study)
    if "10_demo" not in loaded.runs:
        raise StudyError(f"{loaded.path}: no run '10_demo' under 'runs', whose notebook this command opens; add it")
    about = [f"--ServerApp.root_dir={loaded.root}", f"--ServerApp.tornado_settings={LARGE_UPLOADS}"]
    command = [sys.executable, "-m", "jupyter", "lab", loaded.runs["10_demo"].notebook, *about, *context.args]
    raise typer.Exit(subprocess.run(command, cwd=loaded.root, check=False).returncode)


@app.command()
def new(
    kind: Annotated[str, Argument(metavar="KIND", help="fusion or decoder")],
    name: Annotated[str, Argument(metavar="NAME", help="e.g. film; FiLM for a class with such capitals")],
    study: StudyOption = FILE_NAME,
) -> None:
    """Write a module of your own here. It comes with a test, and with a study file that has it as a variant."""
    from refstudy.engine.new_part import write_new

    files, named = write_new(kind, name, Path(), study)
    echo("\n".join(map(str, files)))
    echo(f"next: refstudy examine {named}\n      refstudy compare {named}")


@app.command("examine")
def examine_command(
    name: Annotated[
        str, Argument(metavar="MODULE", help="film.py:FiLM, package.module:Class, or a part of the study, e.g. s2rm")
    ],
    kind: Annotated[str, Option(metavar="KIND", help="fusion, decoder or model, if the class does not tell")] = "",
    size: Annotated[str, Option(metavar="NAME", help="scenes or papers: whose channels, words, cells")] = "scenes",
    option: Annotated[Texts, Option(metavar="KEY=VALUE", help="of the class; repeatable")] = None,
    study: StudyOption = FILE_NAME,
) -> None:
    """Look in a module for the faults of published ones. Two of the study's are examined next to it, without data or
    training. Exit status 1 when it has a fault. docs/examine.md explains every check."""
    from refstudy.study.changes import parse_changes
    from refstudy.study.parts import named_part

    loaded, options = _study(study), parse_changes(option or (), "--option")
    named_part(name, kind, options, size)
    from refstudy.analysis.examination import examine  # PyTorch takes seconds to import

    told = (lambda step: echo(f"looking: {step}", err=True)) if sys.stderr.isatty() else (lambda step: None)
    made = examine(name, kind, size, options, loaded, told)
    echo(made)
    raise typer.Exit(0 if made.sound else 1)


@app.command("report")
def report_command(profile: Profile = "scenes", study: StudyOption = FILE_NAME) -> None:
    """Write results/<profile>/report/index.html. It is made of the tables, figures and notebooks that lie there."""
    under = _study(study).under(profile)
    from refstudy.engine.report import write_report

    echo(write_report(under))


@app.command()
def card(profile: Profile = "scenes", study: StudyOption = FILE_NAME) -> None:
    """Write the weights that a profile ships, and their model card. The weights come from the folder work, where this
    machine trained them; the card's numbers come from the run records."""
    under = _study(study).under(profile)
    from refstudy.engine.model_card import ship, write_model_card

    echo("\n".join(map(str, [*ship(under), write_model_card(under)])))


@app.command()
def pages(profile: Profile = "scenes", study: StudyOption = FILE_NAME) -> None:
    """Fill the blocks of numbers in README.md and docs/findings.md. They come from the tables of a profile."""
    under = _study(study).under(profile)
    from refstudy.engine.pages import fill_pages

    echo("\n".join(map(str, fill_pages(under))) or "nothing changed")


@app.command()
def cost(
    profile: Profile = "refcoco",
    variant: OnlyVariant = None,
    beside: Beside = False,
    rate: Annotated[float | None, Option(metavar="TFLOP/S", help="what the GPU reaches; default: 316")] = None,
    csv: Annotated[Path | None, Option(metavar="FILE", help="also write the table here")] = None,
    study: StudyOption = FILE_NAME,
) -> None:
    """Count parameters and multiply-adds of every variant. They are counted at the profile's size, without weights or
    data; for released data, the GPU-hours of every training are estimated."""
    if rate is not None and not rate > 0:
        raise StudyError(f"--rate {rate:g}: not above 0; give the TFLOP/s that the GPU reaches, or leave it out")
    _refuse_unwritable(csv)
    loaded = _study(study)
    for one in variant or ():
        loaded.run_config(profile, one, 0)
    names = loaded.together(profile)[: None if beside else 1]
    from refstudy.analysis.cost import RATE, cost_table, gpu_hours, printed_costs
    from refstudy.analysis.table_files import write_table

    rate = RATE if rate is None else rate
    tables, total = {name: cost_table(loaded, name, variant or ()) for name in names}, 0.0
    echo("parameters in millions; G multiply-adds of one image with one expression, and of a further one")
    for name, table in tables.items():
        configs = [loaded.run_config(name, one, 0) for one in table["variant"]]
        counted = zip(configs, table["macs"], table["further"], strict=True)
        table = table.assign(gpu_hours=[gpu_hours(config, macs, further, rate) for config, macs, further in counted])
        echo(f"\n{name}: {loaded.profile(name).about}")
        echo(table.dropna(axis="columns").to_string(index=False, float_format="{:.1f}".format))
        total += sum(row.gpu_hours * len(loaded.seeds(name, row.variant)) for row in table.itertuples())
    if total == total:
        echo(f"\nabout {total:.0f} GPU-hours in all, at {rate:.0f} TFLOP/s (an estimate; --rate changes it)")
    echo("\nprinted costs next to ours, every equation computed as the paper writes it")
    echo(printed_costs(loaded).to_string(index=False, float_format="{:.1f}".format))
    if csv is not None:
        echo(write_table(tables[profile], csv.parent, csv.stem))


def _scenes(study: "Study", profile: str, refusal: str) -> Any:
    """The data of a profile. Raises StudyError, which ends with ``refusal``, where they are not RefScenes."""
    from refstudy.data.scenes.flavours import FLAVOURS

    data = study.profile(profile).data
    if data.dataset not in FLAVOURS:
        raise StudyError(f"--profile {profile}: {data.dataset} {refusal}")
    return data


@data_app.command()
def make(
    profile: Profile = "scenes",
    workers: Annotated[int, Option(metavar="N", min=1, help="processes")] = 1,
    study: StudyOption = FILE_NAME,
) -> None:
    """Make the RefScenes data of a profile."""
    from refstudy.data.source import prepare_data

    loaded = _study(study)
    data = _scenes(loaded, profile, "cannot be made; `refstudy data download` fetches it")
    echo(prepare_data(data, loaded.data_root, workers))


@data_app.command()
def layout(
    to: Annotated[Path, Option(metavar="FOLDER", help="what the other code takes as its data root")],
    profile: Profile = "scenes",
    study: StudyOption = FILE_NAME,
) -> None:
    """Link RefScenes where code for REFER's data looks for it."""
    from refstudy.data.source import lay_out, prepare_data

    loaded = _study(study)
    data = _scenes(loaded, profile, "is no RefScenes; name another")
    echo(lay_out(prepare_data(data, loaded.data_root), data.dataset, to))


@data_app.command()
def check(
    root: Annotated[Path, Argument(metavar="FOLDER", help="the folder that holds the data sets")],
    dataset: Annotated[str, Option(metavar="NAME", help="only this one, e.g. refcoco")] = "",
    split_by: Annotated[str, Option(metavar="NAME", help="only this partition, e.g. unc")] = "",
    images: Annotated[bool, Option("--images", help="decode every image")] = False,
) -> None:
    """Count the data sets of a folder and find what is broken. Their counts are compared with the published ones.

    Exit status 1 when there are problems; notes alone leave it at 0.
    """
    from refstudy.data.check import check_root, summary

    broken = False
    for found, counted, problems in check_root(root, dataset, split_by, images, progress=sys.stderr.isatty()):
        echo(f"{found.dataset} ({found.split_by}): {found.form}, {found.path}")
        echo(counted.to_string(float_format="{:.3f}".format))
        echo("\n".join([*summary(problems), ""]))
        broken |= bool((problems["level"] == "problem").any())
    raise typer.Exit(1 if broken else 0)


@data_app.command()
def download(
    name: Annotated[Texts, Argument(metavar="NAME", help="what to fetch; nothing: show what there is")] = None,
    to: Annotated[Path | None, Option(metavar="FOLDER", help="where the data go; default: that of the study")] = None,
    study: StudyOption = FILE_NAME,
) -> None:
    """Fetch data sets and pictures from their mirrors. They are verified and unpacked; interrupted ones are resumed."""
    from refstudy.data.download import fetch, load_mirrors

    mirrors = load_mirrors()
    if not name:
        for known, mirror in mirrors.items():
            size = f"{mirror.size / 1e6:,.0f} MB" if mirror.size else "size unknown"
            echo(f"{known}: {mirror.about}; {size}, {'SHA-256 known' if mirror.sha256 else 'not verified'}")
    if unknown := [one for one in name or () if one not in mirrors]:
        raise StudyError(f"no data '{unknown[0]}'; known: {', '.join(mirrors)}")
    for one in name or ():
        echo(fetch(mirrors[one], to or _study(study).data_root))


def _refuse_unwritable(csv: Path | None) -> None:
    """Raise StudyError, before anything is computed, for a table that could not be written under this name."""
    if csv is None:
        return
    if csv.suffix != ".csv":
        raise StudyError(f"--csv {csv}: a table is written as CSV; give a name that ends in .csv")
    try:
        csv.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"--csv {csv}: its folder cannot be made ({error.strerror}); give another name") from error


def main() -> None:
    """Run the command line; bad input ends with a line of its own and exit status 2, Ctrl-C with 130."""
    if named := os.environ.get("REFSTUDY_DATA"):  # relative to here, also for kernels, which start at the study
        os.environ["REFSTUDY_DATA"] = os.path.abspath(named)
    for stream in (sys.stdout, sys.stderr):  # names of files may be no text, and a terminal may lack letters
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EROFS, errno.EACCES):
            raise
        place = error.filename or "a file"
        print(f"error: {place}: {error.strerror}; make room, or allow writing there", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as ended:
        cause = getattr(ended.__context__, "__cause__", None)
        if isinstance(ended, SystemExit) and not isinstance(cause, KeyboardInterrupt):  # of which typer says nothing
            raise
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
