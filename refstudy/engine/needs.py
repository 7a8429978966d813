"""Checks before a run starts: are the data sets and the published weights there that it needs?"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from refstudy.base.config import ModelConfig
from refstudy.base.errors import DataMissing, StudyError
from refstudy.data.download import load_mirrors
from refstudy.data.forms.refer_files import COCO_ARCHIVE, IMAGE_ARCHIVES
from refstudy.data.refer import choose
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.engine.plan import released
from refstudy.study.file import Case, Study

ANSWER = 10  # seconds that the hub has to answer


def refuse_without(study: Study, profiles: Iterable[str], cases: Iterable[Case]) -> None:
    """Raise StudyError, a line for each thing, where the data of these profiles or the weights that these trainings
    start from are not there. RefScenes, which is made here, needs nothing."""
    cases = list(cases)
    if not released(study, *profiles, *(case[0] for case in cases)):
        return
    models = [study.run_config(*case).model for case in cases if not study.record(case).exists()]
    lines = missing_data(study, profiles)
    with chdir(study.root):  # where relative paths of pretrained parts start
        lines += missing_weights(models)
    if lines:
        raise StudyError("\n".join(lines))


def missing_data(study: Study, profiles: Iterable[str]) -> list[str]:
    """A line for each data set of these profiles that is not in the study's data root, and how to fetch it."""
    lines, needed = [], [study.profile(name).data for name in profiles]
    for dataset, split_by in dict.fromkeys((data.dataset, data.split_by) for data in needed):
        if dataset in FLAVOURS:
            continue
        try:
            choose(study.data_root, dataset, split_by)
        except StudyError as error:
            line = str(error)
            if isinstance(error, DataMissing) and dataset in load_mirrors():
                pictures = Path(IMAGE_ARCHIVES.get(dataset, COCO_ARCHIVE)).stem
                line += f"; fetch it: refstudy data download {dataset} {pictures} --to {study.data_root}"
            lines.append(line)
    return lines


def missing_weights(models: Iterable[ModelConfig], fetch: bool = True) -> list[str]:
    """Make a line for each pretrained encoder of these models that is missing, with what to put where.

    Encoders are built to find out, which takes some seconds; it fetches those that the hub has, unless ``fetch`` is
    False.
    """
    from refstudy.models.build import build_model
    from refstudy.models.encoders import ImageEncoder, TextEncoder

    tries: dict[tuple[str, str], Callable[[], object]] = {}  # by the key of the study file, and what it names
    for model in models:
        whole = model.whole
        if "text" in model.published:
            tries["model.text.name", model.text.name] = partial(TextEncoder, model.text)
        if "image" in model.published:
            if whole is not None and whole.name == "slvit":
                scratch = model.model_copy(update={"text": model.from_scratch().text})
                named = str(whole.options["pretrained"])
                tries["part_options.slvit.pretrained", named] = partial(build_model, scratch)
            else:
                tries["model.image.name", model.image.name] = partial(ImageEncoder, model.image, model.image_size)
    lines = []
    with nullcontext() if fetch and _hub_answers() else offline():  # it is asked only once
        for (key, _), attempt in tries.items():
            try:
                attempt()
            except StudyError as error:
                lines.append(f"{error} (key {key} of the study file)")
    return lines


@contextmanager
def offline() -> Iterator[None]:
    """Look for files of the hub in its cache alone, within the block."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWER)
    except Exception:  # whatever its HTTP library raises
        return False
    return True
