"""What several tests share: a small RefScenes, a REFER folder made of real triples, tiny model settings.

TEST_THREADS is the number of threads, TEST_NOISE a salt of the noise of tests/noise.py; ``--shuffle SEED`` takes the
files, and the tests of each, in random order.
"""

import json
import math
import os
import random

os.environ["OMP_NUM_THREADS"] = os.environ.get("TEST_THREADS", "1")  # of the processes that tests start, too

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from refstudy.base.config import (
    DataConfig,
    ImageEncoderConfig,
    ModelConfig,
    PartConfig,
    RunConfig,
    TextEncoderConfig,
    TrainConfig,
)
from refstudy.data.masks import encode_mask
from refstudy.data.samples import sample_folder
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer
from refstudy.training.evaluation import evaluate, predictions

from .noise import install

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
if salt := os.environ.get("TEST_NOISE"):
    install(int(salt))
BROKEN_TRIPLES = {32055, 44766, 8789}  # named in the sample's notes


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, help="seed of a random order of files, and of the tests in each")


def pytest_collection_modifyitems(config, items):
    """The longest files first, so that no process is left with one of them in the end."""
    if (seed := config.getoption("shuffle")) is not None:
        draw = random.Random(seed)
        place = {path: draw.random() for path in sorted({item.path for item in items})}
        items.sort(key=lambda item: (place[item.path], draw.random()))
        return
    longest = ("smoke", "refcoco_plan", "scaling", "runs", "trainings", "results", "demo")
    rank = {f"test_{name}.py": number for number, name in enumerate(longest)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(autouse=True)
def float32_on_cpus(monkeypatch):
    """Tests give the same on every processor: none of them computes bfloat16 by itself."""
    monkeypatch.setattr("refstudy.training.evaluation.native_bfloat16", lambda: False)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU")


@pytest.fixture(scope="session")
def real_sample():
    """The folder with samples of the real benchmarks; the test is skipped without it."""
    folder = sample_folder()
    if folder is None:
        pytest.skip("no sample of the real benchmarks beside the repository")
    return folder


@pytest.fixture(scope="session")
def triples_root(real_sample, tmp_path_factory):
    """The real triples (image, mask, sentences) as a REFER folder named refcoco, split_by unc."""
    root = tmp_path_factory.mktemp("triples")
    source = real_sample / "refcoco_triples"
    triples = json.loads((source / "triples.json").read_text()) + json.loads(
        (source / "extra_triples.json").read_text()
    )
    images, annotations, refs = {}, [], []
    (root / "refcoco" / "images").mkdir(parents=True)
    for number, triple in enumerate(t for t in triples if int(t["ref_id"]) not in BROKEN_TRIPLES):
        name = os.path.splitext(os.path.basename(triple["image"]))[0] + ".png"
        picture = Image.open(source / triple["image"]).convert("RGB")
        picture.save(root / "refcoco" / "images" / name)
        mask = np.asarray(Image.open(source / triple["mask"]).convert("L")) > 127
        images[number] = {"id": number, "file_name": name, "height": picture.height, "width": picture.width}
        box = [float(side) for side in triple["bbox"]]
        annotation = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box}
        annotations.append(annotation | {"area": int(mask.sum()), "segmentation": encode_mask(mask)})
        sentences = [
            {"sent": s, "raw": s, "tokens": s.split(), "sent_id": number * 100 + k}
            for k, s in enumerate(triple["sents"])
        ]
        ref = {"ref_id": number, "ann_id": number, "image_id": number, "category_id": 1, "split": "val"}
        refs.append(ref | {"file_name": name, "sent_ids": [s["sent_id"] for s in sentences], "sentences": sentences})
    write_refer(root, "refcoco", "unc", refs, list(images.values()), annotations)
    return root


def write_refer(root, dataset, split_by, refs, images, annotations):
    """Write a REFER folder; pictures are the caller's."""
    import pickle

    folder = root / dataset
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(refs, protocol=2))
    instances = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "instances.json").write_text(json.dumps(instances))


def tiny_model(fusion="s2rm", decoder="fpn", image_size=64, fusion_options=None, decoder_options=None):
    """Model settings small enough for a test."""
    options = {"width": 16} if decoder == "fpn" else {}
    return ModelConfig(
        image_size=image_size,
        image=ImageEncoderConfig(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4),
        text=TextEncoderConfig(
            vocab_size=len(build_tokenizer()), hidden_size=32, layers=1, heads=2, intermediate_size=64, dropout=0.0
        ),
        fusion=PartConfig(name=fusion, options=fusion_options or {}),
        decoder=PartConfig(name=decoder, options=options | (decoder_options or {})),
    )


def tiny_profile(**train):
    """A profile of a study file for ``tiny_data`` and ``tiny_model``; ``train`` is added to its training settings."""
    model = tiny_model().model_dump(mode="json")
    return {
        "about": "for tests",
        "data": tiny_data().model_dump(mode="json"),
        "model": {"image": model["image"], "text": model["text"]},
        "train": {"images_per_batch": 4, "learning_rate": 2e-3} | train,
        "part_options": {"fpn": {"width": 16}},
    }


SCENES = {"train": 24, "val": 10}


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """A data root with a small RefScenes of 64 pixels."""
    root = tmp_path_factory.mktemp("data")
    prepare_data(tiny_data(), root, progress=False)
    return root


def tiny_data():
    return DataConfig(image_size=64, scenes=SCENES, scenes_version=FLAVOURS["refscenes"].version)


def tiny_run(**train):
    """Settings of a training that takes a second or two."""
    settings = {"epochs": 2, "images_per_batch": 4, "learning_rate": 2e-3} | train
    return RunConfig(variant="tiny", seed=0, data=tiny_data(), model=tiny_model(), train=TrainConfig(**settings))


def assert_same_but_for_rounding(counts, model, corpus, threshold=0.5, **how):
    """Hold pixel counts against those of ``evaluate``, as far as rounding tells them.

    Processors add in different orders, so a pixel near the cut may fall on either side of it. A sum of n terms is
    rounded by at most n 2^-24 of the sum of their sizes; one layer's n is what a weight of it has per output, and
    layers come one after another, so logits move by at most the sum of all n, times 2^-24, of the largest. Counts at a
    cut that much higher and lower are the bounds. Returns both frames, fewest and most.
    """
    terms = sum(weight[0].numel() for weight in model.parameters() if weight.ndim > 1)
    largest = max(logits.abs().max().item() for _, logits in predictions(model, corpus))
    margin = terms * 2**-24 * largest
    cut = math.log(threshold / (1 - threshold))
    fewest, most = (
        evaluate(model, corpus, threshold=1 / (1 + math.exp(-cut - side * margin)), **how) for side in (1, -1)
    )
    about = fewest.columns.drop(["intersection", "union"])
    pd.testing.assert_frame_equal(
        counts[about].reset_index(drop=True), fewest[about].reset_index(drop=True), check_dtype=False
    )
    for column in ("intersection", "union"):
        found = counts[column].to_numpy()
        assert (fewest[column] <= found).all() and (found <= most[column]).all(), column
        assert (most[column] - fewest[column]).mean() < 0.01 * corpus.image_size**2  # the bounds say something
    return fewest, most
