"""RefScenes on disk: scenes drawn, referents and expressions chosen, all written in the REFER layout."""

import json
import pickle
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

from PIL import Image

from refstudy.base.bar import bar
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_folder
from refstudy.data.masks import mask_box, mask_polygons

from .facts import facts_of
from .flavours import FLAVOURS, Flavour
from .grammar import WORDS, Phrase, Speaker, stuff_expressions
from .scene import Scene, make_scene
from .things import CATEGORIES

MARKER = "refscenes.json"
CATEGORY_IDS = {category.name: k for k, category in enumerate(CATEGORIES, start=1)}
STUFF_IDS = {name: k for k, name in enumerate(WORDS["stuff"], start=100)}
LEAST_AREA, LEAST_SHOWN = 0.01, 0.5  # a referent is at least this share of the picture, and this much of it is seen
CHUNK = 32  # scenes that a worker draws at a time


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
    depends on ``seed``, flavour, split and i alone, so a smaller set is the beginning of a larger one, with any number
    of ``workers``. A complete folder with the same scenes is left as it is. Of several processes that ask for one
    folder at once, one makes it and the others wait.

    Raises StudyError for an unknown flavour or split, a negative count, a folder with other scenes, or one that cannot
    be made.
    """
    from filelock import FileLock

    if flavour not in FLAVOURS:
        raise StudyError(f"unknown flavour of RefScenes '{flavour}'; known: {', '.join(FLAVOURS)}")
    kind = FLAVOURS[flavour]
    for split, count in scenes.items():
        if split not in kind.splits or count < 0:
            raise StudyError(f"{flavour}: scenes '{split}: {count}' is not a count of one of {', '.join(kind.splits)}")
    folder, sorted_scenes = Path(root) / flavour, dict(sorted(scenes.items()))
    order = {"version": kind.version, "flavour": flavour, "seed": seed, "size": size, "scenes": sorted_scenes}
    try:
        if _finished(folder, order):
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{flavour}.lock")):  # several notebooks may ask for the same scenes at once
            if not _finished(folder, order):
                for rest in folder.parent.glob(f".{flavour}.*.tmp"):  # of a process that was killed
                    shutil.rmtree(rest, ignore_errors=True)
                with atomic_folder(folder) as unfinished:
                    images = unfinished / "images"
                    images.mkdir()
                    _write_annotations(unfinished, kind, _make_all(images, kind, scenes, seed, size, workers, progress))
                    (unfinished / MARKER).write_text(json.dumps(order, indent=1), encoding="utf-8")
    except OSError as error:
        remedy = "make room, allow to write there, or name another in REFSTUDY_DATA"
        raise StudyError(f"{folder.parent}: cannot hold data ({error.strerror or error}); {remedy}") from error
    return folder


def _finished(folder: Path, order: dict[str, object]) -> bool:
    """Tell if the scenes of this order are there. Raises StudyError if the folder holds anything else."""
    marker = folder / MARKER
    if marker.exists():
        try:
            made = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StudyError(f"{marker}: not JSON; remove {folder}, and it is made anew") from error
        if made == order:
            return True
        raise StudyError(f"{marker}: holds other scenes than asked for; remove {folder} or choose another root")
    if folder.exists():
        raise StudyError(f"{folder}: exists but is no finished RefScenes folder; remove it or choose another root")
    return False


def _make_all(
    images: Path, flavour: Flavour, scenes: dict[str, int], seed: int, size: int, workers: int, progress: bool
) -> Iterator[dict]:
    """Draw all scenes, write their pictures, give one entry each: image, annotations, refs."""
    make = partial(_make_one, images, flavour, seed, size)
    names = [(split, index) for split in flavour.splits for index in range(scenes.get(split, 0))]
    shown = partial(bar, total=len(names), desc=f"drawing {flavour.name}", unit="scene", shown=progress)
    if workers <= 1 or len(names) <= CHUNK:
        yield from shown(map(make, names))
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from shown(pool.map(make, names, chunksize=CHUNK))


def _make_one(images: Path, flavour: Flavour, seed: int, size: int, name: tuple[str, int]) -> dict:
    split, index = name
    rng = Random(f"{seed} {flavour.name} {split} {index}")
    people = {"testA": True, "testB": False}.get(split)
    chosen: dict[int, list[Phrase]] = {}
    while not chosen:  # now and then nothing in a scene can be told apart: draw another
        scene = make_scene(rng, size, people, flavour.sizes)
        chosen = _choose_referents(rng, flavour, scene, people)
    image_id = (flavour.splits.index(split) + 1) * 1_000_000 + index
    file_name = f"{flavour.name}_{split}_{index:06d}.jpg"
    Image.fromarray(scene.picture).save(images / file_name, quality=92, subsampling=0)
    image = {"id": image_id, "file_name": file_name, "height": size, "width": size, "place": scene.place.name}
    numbers = sorted(set(scene.numbers.tobytes()) - {0})  # of all that is visible
    annotations = {number: _annotation(scene, number, image_id) for number in numbers}
    refs = [_ref(split, image, annotations[k], said, rank) for rank, (k, said) in enumerate(chosen.items())]
    return {"image": image, "annotations": list(annotations.values()), "refs": refs}


def _annotation(scene: Scene, number: int, image_id: int) -> dict:
    """An annotation as COCO has it. Things also have what programs need: their ``facts`` (true: may be said; false: a
    reader might take it to be true), how ``near`` they are, and other fields of ``Thing``."""
    mask = scene.numbers == number
    annotation = {"id": image_id * 1000 + number, "image_id": image_id, "segmentation": mask_polygons(mask)}
    annotation |= {"area": int(mask.sum()), "bbox": list(mask_box(mask) or ()), "iscrowd": 0}
    if number >= 200:
        region = scene.stuff[number - 200]
        return annotation | {"category_id": STUFF_IDS[region.name], "color": region.colour}
    thing = scene.things[number - 1]
    about = {"category_id": CATEGORY_IDS[thing.category.name], "color": thing.colour, "airborne": thing.airborne}
    about |= {"near": round(thing.near, 4), "height": round(thing.height, 4), "on": thing.on + 1}
    about |= {"inside": round(thing.inside, 4), "shown": round(scene.shown[number - 1], 4)}
    return annotation | about | {"facts": facts_of(scene, number - 1)}


def _choose_referents(rng: Random, flavour: Flavour, scene: Scene, people: bool | None) -> dict[int, list[Phrase]]:
    """Number in the scene's map -> its expressions, for as many referents as the flavour asks for, in random order."""
    wanted = _by_weight(rng, flavour.per_image)
    fits = [people is None or (thing.category.group == "person") == people for thing in scene.things]
    seen = zip(fits, scene.areas, scene.shown, strict=True)
    numbers = [k for k, (fit, area, shown) in enumerate(seen, 1) if fit and area >= LEAST_AREA and shown >= LEAST_SHOWN]
    regions = [200 + k for k in range(len(scene.stuff)) if rng.random() < flavour.stuff]
    numbers += [number for number in regions if (scene.numbers == number).mean() >= 4 * LEAST_AREA]
    rng.shuffle(numbers)
    speaker, chosen = Speaker(scene, rng, flavour.style), dict[int, list[Phrase]]()
    for number in numbers:
        lengths = [_by_weight(rng, flavour.lengths) for _ in range(_by_weight(rng, flavour.per_referent))]
        if number < 200:
            phrases = speaker.expressions(number - 1, lengths)
        else:
            phrases = stuff_expressions(rng, scene.stuff[number - 200], number - 200, lengths)
        if phrases:
            chosen[number] = phrases
        if len(chosen) == wanted:
            break
    return chosen


def _by_weight(rng: Random, weights: tuple[float, ...]) -> int:
    """A random number from 1 on, with these weights."""
    return rng.choices(range(1, len(weights) + 1), weights)[0]


def _ref(split: str, image: dict, annotation: dict, phrases: list[Phrase], rank: int) -> dict:
    """A REFER entry. ``rank`` numbers the image's referents: like RefCOCOg's, the google partition splits referents,
    not images."""
    ref_id = annotation["id"]
    ref = {"ref_id": ref_id, "ann_id": ref_id, "image_id": image["id"], "category_id": annotation["category_id"]}
    ref |= {"file_name": image["file_name"].replace(".jpg", f"_{ref_id}.jpg"), "split": split}
    ref |= {"google": "train" if split == "train" or rank % 2 else "val"}
    sentences = []
    for sent_id, phrase in enumerate(phrases, start=10 * ref_id):
        sentence = {"tokens": phrase.text.split(), "raw": phrase.text, "sent": phrase.text, "sent_id": sent_id}
        sentences.append(sentence | {"kind": phrase.kind, "program": phrase.program})
    return ref | {"sent_ids": [sentence["sent_id"] for sentence in sentences], "sentences": sentences}


def _write_annotations(folder: Path, flavour: Flavour, entries: Iterator[dict]) -> None:
    made = list(entries)
    images = [entry["image"] for entry in made]
    annotations, refs = ([one for entry in made for one in entry[key]] for key in ("annotations", "refs"))
    google = [ref.pop("google") for ref in refs]
    names = [{"id": CATEGORY_IDS[c.name], "name": c.name, "supercategory": c.group} for c in CATEGORIES]
    names += [{"id": number, "name": name, "supercategory": "stuff"} for name, number in STUFF_IDS.items()]
    info = {"description": f"RefScenes, flavour {flavour.name}", "version": flavour.version}
    instances = {"info": info, "images": images, "annotations": annotations, "categories": names}
    (folder / "instances.json").write_text(json.dumps(instances, separators=(",", ":")), encoding="utf-8")
    for split_by in flavour.split_by:
        if split_by == "google":
            refs = [ref | {"split": split} for ref, split in zip(refs, google, strict=True)]
        # A pickle shares equal objects by identity; a copy through JSON makes its bytes depend on the values alone.
        (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(json.loads(json.dumps(refs)), protocol=2))
