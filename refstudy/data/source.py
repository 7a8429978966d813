"""The place of a run's data: released data in their folder, RefScenes made on demand."""

import os
from pathlib import Path

from refstudy.base.config import DataConfig
from refstudy.base.errors import StudyError
from refstudy.data.scenes.flavours import FLAVOURS


def default_data_root(root: Path | str = ".") -> Path:
    """The folder that REFSTUDY_DATA names, otherwise ``data`` under ``root``."""
    named = os.environ.get("REFSTUDY_DATA")
    return Path(named) if named else Path(root) / "data"


def scenes_root(config: DataConfig, data_root: Path) -> Path:
    """Where RefScenes of these settings lies, or will lie."""
    counts = "-".join(f"{split}{config.scenes[split]}" for split in sorted(config.scenes))
    version = FLAVOURS[config.dataset].version
    return data_root / f"refscenes-v{version}-{config.image_size}px-seed{config.scenes_seed}-{counts}"


def prepare_data(
    config: DataConfig, data_root: Path | str | None = None, workers: int = 1, progress: bool = True
) -> Path:
    """The root that ``load_refer`` takes for these data; RefScenes is made first if it is not there yet.

    Each size, seed and number of scenes has a root of its own, so that sets do not mix. Raises StudyError when the
    settings ask for scenes of another version than this code makes.
    """
    from refstudy.data.scenes.write import make_refscenes  # a study file is checked without it

    data_root = Path(data_root or default_data_root())
    if config.dataset not in FLAVOURS:
        return data_root
    version = FLAVOURS[config.dataset].version
    if config.scenes_version != version:
        cannot = f"data: scenes_version '{config.scenes_version}' of {config.dataset} cannot be made"
        raise StudyError(f"{cannot}; this code makes '{version}'")
    root = scenes_root(config, data_root)
    make_refscenes(root, config.dataset, config.scenes, config.scenes_seed, config.image_size, workers, progress)
    return root


def lay_out(root: Path, flavour: str, to: Path) -> Path:
    """Link one flavour of RefScenes under ``root`` to the place where code for its benchmark looks for that, and
    return its annotations' folder: ``<to>/refcoco``, and for its pictures ``<to>/images/mscoco/images/train2014``.

    Raises StudyError when something else lies there, or links cannot be made.
    """
    from refstudy.data.entries import COCO_FOLDERS, IMAGE_FOLDERS

    name = FLAVOURS[flavour].stands_for
    wanted = {to / name: root / flavour, to / IMAGE_FOLDERS.get(name, COCO_FOLDERS)[0]: root / flavour / "images"}
    for link, folder in wanted.items():
        if link.is_symlink() and link.resolve() == folder.resolve():
            continue
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder.resolve(), target_is_directory=True)
        except OSError as error:
            raise StudyError(f"{link}: cannot be linked to {folder} ({error.strerror}); give another --to") from error
    return to / name
