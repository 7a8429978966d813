"""How the loaders grow with the number of expressions, from 100 to a million, and at RefCOCO's 142,000.

Made-up annotations in REFER's layout with RefCOCO's proportions: 142,209 expressions, 50,000 referents, 19,994
pictures, 196,771 annotations, as its released files have (S²RM, Sec. IV-A; instances.json), and as many letters in an
annotation as COCO's files have on average, 550. The pictures are empty files: no reader opens one. Each size is a
process of its own on one thread. ``table_s``: CPU seconds until ``load_refer`` has its table; ``epoch_s``: until the
expressions are tokens and the order of an epoch is drawn. ``imports_MB`` and ``table_MB``: the most memory that the
process held before it read anything, and until it had the table. ``at_most`` is for RefCOCO's table.
"""

import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPRESSIONS, REFERENTS, PICTURES, ANNOTATIONS = 142_209, 50_000, 19_994, 196_771
SIZES = (100, 1_000, 10_000, 100_000, EXPRESSIONS, 1_000_000)
POINTS = 27  # of a polygon, which make 550 letters with the other fields
WORDS = "the a left right man woman dog red blue shirt front back of on in with white black chair bus".split()


def write_refer(root: Path, expressions: int) -> None:
    """REFER's two files of this size, and pictures of no content."""
    draw = random.Random(0)
    share = expressions / EXPRESSIONS
    pictures, referents = (max(1, round(share * number)) for number in (PICTURES, REFERENTS))
    annotations = max(referents, round(share * ANNOTATIONS))
    folder, images = root / "refcoco", root / "train2014"
    folder.mkdir(parents=True)
    images.mkdir()
    names = [f"COCO_train2014_{number:012d}.jpg" for number in range(pictures)]
    for name in names:
        (images / name).touch()
    about = [{"id": k, "file_name": name, "height": 480, "width": 640} for k, name in enumerate(names)]
    with open(folder / "instances.json", "w", encoding="utf-8") as file:
        file.write(f'{{"images": {json.dumps(about)}, "categories": [{{"id": 1, "name": "thing"}}], "annotations": [')
        for k in range(annotations):
            polygon = [round(draw.uniform(0, 480), 2) for _ in range(2 * POINTS)]
            entry = {"id": k, "image_id": k % pictures, "category_id": 1, "iscrowd": 0, "area": 1234.5}
            entry |= {"bbox": [10.25, 20.5, 100.75, 80.5], "segmentation": [polygon]}
            file.write((", " if k else "") + json.dumps(entry))
        file.write("]}")
    refs, sentence = [], 0
    for k in range(referents):
        count = (expressions - sentence) // (referents - k) + (draw.random() < 0.5 and k < referents - 1)
        texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 7))) for _ in range(count)]
        sentences = [
            {"sent_id": sentence + n, "sent": text, "raw": text, "tokens": text.split()} for n, text in enumerate(texts)
        ]
        sentence += count
        ref = {"ref_id": k, "ann_id": k, "image_id": k % pictures, "category_id": 1, "split": "train"}
        refs.append(ref | {"file_name": names[k % pictures], "sentences": sentences, "sent_ids": []})
    (folder / "refs(unc).p").write_bytes(pickle.dumps([ref for ref in refs if ref["sentences"]], protocol=2))


def load(root: Path) -> dict[str, float]:
    """What the fresh process measures of the loaders."""
    import numpy as np
    import pandas  # noqa: F401 (not counted)

    from refstudy.base.provenance import peak_memory
    from refstudy.data.refer import load_refer

    imports, start = peak_memory()["peak_memory_mb"], time.process_time()
    table = load_refer(root, "refcoco", "unc")
    found = {"expressions": len(table), "table_s": time.process_time() - start}
    found |= {"imports_MB": imports, "table_MB": peak_memory()["peak_memory_mb"]}

    from refstudy.data.batches import Corpus, batches_per_epoch, grouped_batches
    from refstudy.data.words import build_tokenizer, tokenize

    tokenizer, start = build_tokenizer(), time.process_time()
    ids, mask = tokenize(tokenizer, table["expression"].tolist())
    refs = table.drop_duplicates("ref_id")
    pictures, image_of_ref = np.unique(refs["image_id"], return_inverse=True)
    ref_of = np.unique(table["ref_id"], return_inverse=True)[1]
    side = 8  # of pictures and masks that cost nothing: those of a training lie in a file
    images, masks = np.zeros((len(pictures), 3, side, side), np.uint8), np.zeros((len(refs), side), np.uint8)
    corpus = Corpus(images, masks, image_of_ref, ids, mask, ref_of, table)
    if batches_per_epoch(corpus, 12, 3):
        next(grouped_batches(corpus, 12, 3, 0, 0))
    return found | {"epoch_s": time.process_time() - start}


def measured(expressions: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        write_refer(Path(folder), expressions)
        done = subprocess.run([sys.executable, __file__, folder], stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)


def main(sizes: tuple[int, ...] = SIZES) -> None:
    from measure import write

    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    for size in sizes:
        found = {name: round(value, 2) for name, value in measured(size).items()}
        rows.append(found | {"at_most": "5 s, 1024 MB" if size == EXPRESSIONS else ""})
    write("loaders", rows)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(load(Path(sys.argv[1]))))
    else:
        main()
