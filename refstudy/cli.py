"""The command line: run the study, train one run, pretrain the encoders, make the data."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from refstudy.errors import StudyError
from refstudy.study import FILE_NAME

app = typer.Typer(no_args_is_help=True, add_completion=False, help="refstudy: a study of referring image segmentation.")
data_app = typer.Typer(no_args_is_help=True, help="Make and check data.")
app.add_typer(data_app, name="data")

Profile = Annotated[str, typer.Option(help="a profile of the study file")]
StudyOption = Annotated[str, typer.Option("--study", help="the study file")]


@app.command()
def run(
    profile: Profile = "scenes",
    train: Annotated[bool, typer.Option("--train", help="also train every run that has no record")] = False,
    only: Annotated[list[str] | None, typer.Option(help="consider only this run; repeatable")] = None,
    start: Annotated[
        list[str] | None,
        typer.Option("--from", help="execute this run and all that need it, even if up to date; repeatable"),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="execute all, even if up to date; records stay")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="change a parameter of the runs that have it; repeatable"),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="notebooks at once; 0: one per core")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would run, and why, and stop")] = False,
    study: StudyOption = FILE_NAME,
) -> None:
    """Execute the notebooks of a profile that are not up to date; leave tables and figures in results/<profile>.

    A notebook is up to date when its code, its parameters, its part of the study file, the modules it uses, what it
    read and what it wrote are as at its last execution. A training is, when its run record is there: delete the record
    to train again.
    """
    from refstudy.plan import parse_changes, plan, show
    from refstudy.study import load_study

    loaded = load_study(study)
    changes = parse_changes(settings or ())
    steps = plan(loaded, profile, train, only or (), start=start or (), fresh=fresh, changes=changes)
    waiting = [step for step in steps if step.state == "to run"]
    if dry_run or not waiting:
        show(steps, loaded)
    if dry_run:
        return
    if any(step.data for step in waiting):
        from refstudy.data.source import prepare_data

        prepare_data(loaded.profile(profile).data, loaded.data_root, workers=os.cpu_count() or 1)
    if waiting:
        from refstudy.runs import execute, report

        succeeded = execute(steps, loaded.root, workers)
        report(steps)
        if not succeeded:
            raise typer.Exit(1)
    page = loaded.results(profile) / "report" / "index.html"
    if waiting or not page.exists():
        from refstudy.report import write_report

        page = write_report(loaded, profile)
    typer.echo(f"results in {loaded.results(profile)}, to be read from {page}")


@app.command()
def train(
    variant: Annotated[str, typer.Option(help="a variant of the study file")],
    profile: Profile = "scenes",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    study: StudyOption = FILE_NAME,
) -> None:
    """Train one run and leave its record in results/<profile>/records; an interrupted one is resumed."""
    from refstudy.runs import train_run
    from refstudy.study import load_study

    typer.echo(train_run(load_study(study), profile, variant, seed))


@app.command()
def pretrain(
    profile: Profile = "scenes",
    whole: Annotated[str, typer.Option(help="pretrain the image encoder of this whole model, e.g. slvit")] = "",
    output: Annotated[Path | None, typer.Option(help="default: the file that the profile names")] = None,
    study: StudyOption = FILE_NAME,
) -> None:
    """Pretrain the encoders on RefScenes and print the SHA-256 to put into the profile."""
    from refstudy.config import ModelConfig, PartConfig
    from refstudy.pretraining import pretrain as pretrain_encoders
    from refstudy.study import load_study
    from refstudy.training import file_digest

    loaded = load_study(study)
    settings = loaded.profile(profile)
    own = settings.special[whole].encoders if whole in settings.special else settings.encoders
    path = output or (loaded.root / own if own else None)
    if path is None:
        raise StudyError(f"{loaded.path}: profile '{profile}' has no key 'encoders'; add it or give --output")
    model = ModelConfig(
        image_size=settings.data.image_size,
        image=settings.model.image,
        text=settings.model.text,
        whole=PartConfig(name=whole, options=settings.part_options.get(whole, {})) if whole else None,
    )
    reached = pretrain_encoders(settings.data, model, settings.pretraining, path, loaded.data_root)
    for name, value in reached.items():
        typer.echo(f"{name.replace('_', ' ')}: {value:.1f} %")
    typer.echo(f"{path}\nencoder_weights: {file_digest(path)}")


@app.command("report")
def report_command(profile: Profile = "scenes", study: StudyOption = FILE_NAME) -> None:
    """Write results/<profile>/report/index.html from the tables, figures and notebooks that lie there."""
    from refstudy.report import write_report
    from refstudy.study import load_study

    typer.echo(write_report(load_study(study), profile))


@app.command()
def cost(
    profile: Profile = "refcoco",
    variant: Annotated[list[str] | None, typer.Option(help="only this one; may be given several times")] = None,
    csv: Annotated[Path | None, typer.Option(help="also write the table here")] = None,
    study: StudyOption = FILE_NAME,
) -> None:
    """Count parameters and multiply-adds of every variant at the profile's size, without weights or data."""
    from refstudy.cost import cost_table, printed_costs
    from refstudy.study import load_study
    from refstudy.tables import write_table

    loaded = load_study(study)
    table = cost_table(loaded, profile, variant or ())
    typer.echo("parameters in millions; G multiply-adds of one image with one expression, and of a further one")
    typer.echo(table.to_string(index=False, float_format="{:.1f}".format))
    typer.echo("\nprinted costs beside ours, every equation computed as the paper writes it")
    typer.echo(printed_costs(loaded).to_string(index=False, float_format="{:.1f}".format))
    if csv is not None:
        typer.echo(write_table(table, csv.parent, csv.stem))


@data_app.command()
def make(
    profile: Profile = "scenes",
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    study: StudyOption = FILE_NAME,
) -> None:
    """Make the RefScenes data of a profile."""
    from refstudy.data.source import prepare_data
    from refstudy.study import load_study

    loaded = load_study(study)
    typer.echo(prepare_data(loaded.profile(profile).data, loaded.data_root, workers))


def main() -> None:
    """Run the command line; bad input ends with a line of its own and exit status 2."""
    try:
        app()
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
