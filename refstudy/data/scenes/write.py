"""RefScenes on disk: scenes drawn, referents and expressions chosen, all written in the REFER layout."""

import json
import multiprocessing
import pickle
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image
from pycocotools import mask as coco_mask

from refstudy.bar import bar
from refstudy.errors import StudyError

from .flavours import FLAVOURS, Flavour
from .grammar import Phrase, stuff_expressions
from .scene import STUFF, Scene, as_first_described, make_scene
from .things import CATEGORIES

MARKER = "refscenes.json"
CATEGORY_IDS = {category.name: k for k, category in enumerate(CATEGORIES, start=1)}
STUFF_IDS = {name: k for k, name in enumerate(STUFF, start=100)}
LEAST_AREA, LEAST_SHOWN = 0.01, 0.6  # a referent is at least this share of the picture, and this much of it is seen
CHUNK = 32


@dataclass(frozen=True)
class Order:
    """What a worker needs to know to make some scenes."""

    flavour: str
    seed: int
    size: int
    split: str
    first: int
    count: int
    images: Path


def make_refscenes(
    root: Path | str,
    flavour: str,
    scenes: dict[str, int],
    seed: int = 0,
    size: int = 128,
    workers: int = 1,
    progress: bool = True,
) -> Path:
    """Make one flavour of RefScenes under ``<root>/<flavour>/`` and return that folder.

    ``scenes`` gives the number of scenes of each split, ``size`` their side in pixels. Scene number i of a split
    depends on ``seed``, flavour, split and i alone, so a smaller set is the beginning of a larger one, whatever the
    number of ``workers``. A folder that is complete and made to the same order is left as it is. Of several processes
    that ask for one folder at once, one makes it and the others wait.

    Raises StudyError for an unknown flavour or split, a negative count, a folder made to another order, or
    one that cannot be made.
    """
    if flavour not in FLAVOURS:
        raise StudyError(f"unknown flavour of RefScenes '{flavour}'; known: {', '.join(FLAVOURS)}")
    kind = FLAVOURS[flavour]
    for split, count in scenes.items():
        if split not in kind.splits or count < 0:
            raise StudyError(f"{flavour}: scenes '{split}: {count}' is not a count of one of {', '.join(kind.splits)}")
    folder = Path(root) / flavour
    order = {
        "version": kind.version,
        "flavour": flavour,
        "seed": seed,
        "size": size,
        "scenes": dict(sorted(scenes.items())),
    }
    try:
        if _finished(folder, order):
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{flavour}.lock")):  # several notebooks may ask for the same scenes at once
            if _finished(folder, order):
                return folder
            unfinished = folder.with_name(f".{flavour}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            images = unfinished / "images"
            images.mkdir(parents=True)
            _write_annotations(unfinished, kind, _make_all(images, kind, scenes, seed, size, workers, progress))
            (unfinished / MARKER).write_text(json.dumps(order, indent=1))
            unfinished.rename(folder)
    except OSError as error:
        raise StudyError(
            f"{folder.parent}: cannot hold data ({error.strerror or error}); make room, allow to write there, "
            "or name another in REFSTUDY_DATA"
        ) from error
    return folder


def _finished(folder: Path, order: dict[str, object]) -> bool:
    """Whether the scenes of this order are there. Raises StudyError where something else is."""
    if (folder / MARKER).exists():
        try:
            made = json.loads((folder / MARKER).read_text())
        except ValueError as error:
            raise StudyError(f"{folder / MARKER}: not JSON; remove {folder}, and it is made anew") from error
        if made == order:
            return True
        raise StudyError(
            f"{folder / MARKER}: holds other scenes than asked for; remove {folder} or choose another root"
        )
    if folder.exists():
        raise StudyError(f"{folder}: exists but is no finished RefScenes folder; remove it or choose another root")
    return False


def _make_all(
    images: Path, flavour: Flavour, scenes: dict[str, int], seed: int, size: int, workers: int, progress: bool
):
    orders = [
        Order(flavour.name, seed, size, split, first, min(CHUNK, scenes.get(split, 0) - first), images)
        for split in flavour.splits
        for first in range(0, scenes.get(split, 0), CHUNK)
    ]
    with bar(total=sum(scenes.values()), desc=f"drawing {flavour.name}", unit="scene", shown=progress) as drawn:
        for order, entries in zip(orders, _in_parallel(orders, workers), strict=True):
            drawn.update(order.count)
            yield from entries


def _in_parallel(orders: list[Order], workers: int) -> Iterator[list[dict]]:
    if workers <= 1 or len(orders) <= 1:
        yield from map(_make_chunk, orders)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_make_chunk, orders)


def _make_chunk(order: Order) -> list[dict]:
    """Draw ``order.count`` scenes, write their pictures, return one entry each: image, annotations, refs."""
    flavour = FLAVOURS[order.flavour]
    return [_make_one(order, flavour, index) for index in range(order.first, order.first + order.count)]


def _make_one(order: Order, flavour: Flavour, index: int) -> dict:
    names = zlib.crc32(flavour.name.encode()), zlib.crc32(order.split.encode())
    rng = np.random.default_rng([order.seed, *names, index])
    people = {"testA": True, "testB": False}.get(order.split)
    while True:  # now and then a scene holds nothing that can be told apart: draw another
        scene = make_scene(rng, order.size, people)
        if flavour.version == "1":
            scene = as_first_described(scene)
        chosen = _choose_referents(rng, flavour, scene, people)
        if chosen:
            break
    image_id = (flavour.splits.index(order.split) + 1) * 1_000_000 + index
    file_name = f"{flavour.name}_{order.split}_{index:06d}.jpg"
    Image.fromarray(scene.picture).save(order.images / file_name, quality=92, subsampling=0)
    image = {
        "id": image_id,
        "file_name": file_name,
        "height": order.size,
        "width": order.size,
        "place": scene.place.name,
    }
    annotations = {number: _annotation(scene, number, image_id) for number in _numbers(scene)}
    refs = [
        _ref(flavour, order.split, image, annotations[number], phrases, rank)
        for rank, (number, phrases) in enumerate(chosen.items())
    ]
    return {"image": image, "annotations": list(annotations.values()), "refs": refs}


def _numbers(scene: Scene) -> list[int]:
    """The numbers in the scene's map that stand for something visible."""
    return [int(number) for number in np.unique(scene.numbers) if number]


def _annotation(scene: Scene, number: int, image_id: int) -> dict:
    rle = coco_mask.encode(np.asfortranarray(scene.numbers == number).astype(np.uint8))
    if number < 200:
        thing = scene.things[number - 1]
        category, colour = CATEGORY_IDS[thing.category.name], thing.colour
    else:
        region = scene.stuff[number - 200]
        category, colour = STUFF_IDS[region.name], region.colour
    return {
        "id": image_id * 1000 + number,
        "image_id": image_id,
        "category_id": category,
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
        "area": int(coco_mask.area(rle)),
        "bbox": [float(side) for side in coco_mask.toBbox(rle)],
        "iscrowd": 0,
        "color": colour,
    }


def _choose_referents(
    rng: np.random.Generator, flavour: Flavour, scene: Scene, people: bool | None
) -> dict[int, list[Phrase]]:
    """Number in the scene's map -> its expressions, for as many referents as the flavour asks for, in random order."""
    wanted = 1 + int(rng.choice(len(flavour.per_image), p=flavour.per_image))
    numbers = [
        k + 1
        for k, thing in enumerate(scene.things)
        if scene.areas[k] >= LEAST_AREA
        and scene.shown[k] >= LEAST_SHOWN
        and (people is None or (thing.category.group == "person") == people)
    ]
    if flavour.stuff:
        sizes = np.bincount(scene.numbers.ravel(), minlength=256) / scene.numbers.size
        numbers += [200 + k for k in range(len(scene.stuff)) if sizes[200 + k] >= 4 * LEAST_AREA]
    chosen: dict[int, list[Phrase]] = {}
    for number in rng.permutation(numbers).tolist():
        phrases = flavour.expressions(scene, number - 1) if number < 200 else stuff_expressions(scene, number - 200)
        if phrases:
            chosen[number] = _choose_expressions(rng, flavour, phrases)
        if len(chosen) == wanted:
            break
    return chosen


def _choose_expressions(rng: np.random.Generator, flavour: Flavour, phrases: list[Phrase]) -> list[Phrase]:
    """Draw a length, then a kind among the phrases nearest to that length, then one of those; no phrase twice."""
    count = 1 + int(rng.choice(len(flavour.per_referent), p=flavour.per_referent))
    lengths, weights = list(flavour.lengths), np.array(list(flavour.lengths.values()))
    chosen: dict[str, Phrase] = {}
    for length in rng.choice(lengths, size=count, p=weights / weights.sum()):
        rest = [phrase for phrase in phrases if phrase.text not in chosen]
        if not rest:
            break
        nearest = min(abs(phrase.words - length) for phrase in rest)
        fitting = [phrase for phrase in rest if abs(phrase.words - length) == nearest]
        kinds = sorted({phrase.kind for phrase in fitting})
        kind = kinds[int(rng.integers(len(kinds)))]
        fitting = [phrase for phrase in fitting if phrase.kind == kind]
        phrase = fitting[int(rng.integers(len(fitting)))]
        chosen[phrase.text] = phrase
    return list(chosen.values())


def _ref(flavour: Flavour, split: str, image: dict, annotation: dict, phrases: list[Phrase], rank: int) -> dict:
    """A REFER entry. ``rank`` counts the image's referents: the google partition splits them, not images, as it did."""
    ref_id = annotation["id"]
    return {
        "ref_id": ref_id,
        "ann_id": ref_id,
        "image_id": image["id"],
        "category_id": annotation["category_id"],
        "file_name": image["file_name"].replace(".jpg", f"_{ref_id}.jpg"),
        "split": split,
        "google": "train" if split == "train" or rank % 2 else "val",
        "sent_ids": [ref_id * 10 + k for k in range(len(phrases))],
        "sentences": [
            {"tokens": p.text.split(), "raw": p.text, "sent": p.text, "sent_id": ref_id * 10 + k, "kind": p.kind}
            for k, p in enumerate(phrases)
        ],
    }


def _write_annotations(folder: Path, flavour: Flavour, entries: Iterator[dict]) -> None:
    images, annotations, refs = [], [], []
    for entry in entries:
        images.append(entry["image"])
        annotations += entry["annotations"]
        refs += entry["refs"]
    google = [ref.pop("google") for ref in refs]
    names = [{"id": CATEGORY_IDS[c.name], "name": c.name, "supercategory": c.group} for c in CATEGORIES]
    names += [{"id": STUFF_IDS[name], "name": name, "supercategory": "stuff"} for name in STUFF]
    instances = {
        "info": {"description": f"RefScenes, flavour {flavour.name}", "version": flavour.version},
        "images": images,
        "annotations": annotations,
        "categories": names,
    }
    (folder / "instances.json").write_text(json.dumps(instances, separators=(",", ":")))
    for split_by in flavour.split_by:
        if split_by == "google":
            refs = [ref | {"split": split} for ref, split in zip(refs, google, strict=True)]
        # A pickle shares equal objects by identity; a copy through JSON makes its bytes depend on the values alone.
        (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(json.loads(json.dumps(refs)), protocol=2))
