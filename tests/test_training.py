"""Losses, metrics, training, evaluation and records: exact, repeatable, resumable."""

import itertools
import json
import math
import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from refstudy.base.config import PartConfig, PretrainConfig, TextEncoderConfig, TrainConfig
from refstudy.base.errors import StudyError
from refstudy.base.files import file_digest
from refstudy.data.batches import build_corpus, grouped_batches
from refstudy.data.masks import decode_mask
from refstudy.data.refer import load_refer
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer
from refstudy.metrics import METRICS, overlap, summarize
from refstudy.models.build import build_model, load_model
from refstudy.models.encoders import TextEncoder
from refstudy.prediction.predict import predict
from refstudy.study.load import load_study
from refstudy.training.checkpoint import resume, save
from refstudy.training.evaluation import ABOUT, evaluate, summarize_counts, whole_image_counts
from refstudy.training.loop import Unfinished, load_corpora, train
from refstudy.training.losses import dice_loss
from refstudy.training.optim import learning_rate, parameter_groups
from refstudy.training.pretraining import pretrain, pretrain_text_encoder, said
from refstudy.training.records import circumstances, find_record, find_records, read_record
from refstudy.training.trainer import Trainer
from refstudy.training.weights import load_encoders

from .conftest import assert_same_but_for_rounding, tiny_data, tiny_model, tiny_run
from .test_slvit import TINY

pytestmark = pytest.mark.numeric


def test_dice_is_its_formula():
    torch.manual_seed(0)
    logits, masks = torch.randn(3, 4, 5).double(), (torch.rand(3, 4, 5) < 0.4).double()
    expected = 0.0
    for e in range(3):
        p = [1 / (1 + math.exp(-x)) for x in logits[e].flatten().tolist()]
        g = masks[e].flatten().tolist()
        expected += 1 - (2 * sum(a * b for a, b in zip(p, g, strict=True)) + 1) / (sum(p) + sum(g) + 1)
    assert dice_loss(logits, masks).item() == pytest.approx(expected / 3, abs=1e-6)


def test_metrics_are_their_definitions():
    made = summarize([5, 0, 9, 4], [10, 7, 10, 5])
    assert list(made) == list(METRICS)
    assert made["oIoU"] == pytest.approx(100 * 18 / 32)
    assert made["mIoU"] == pytest.approx(100 * (0.5 + 0 + 0.9 + 0.8) / 4)
    assert made["P@0.5"] == 50.0  # an IoU of exactly 0.5 does not exceed 0.5
    assert made["P@0.7"] == 50.0 and made["P@0.8"] == 25.0 and made["P@0.9"] == 0.0
    assert summarize([0], [0])["mIoU"] == 0.0


def test_the_overlap_of_two_masks_is_a_share():
    upper, left = np.zeros((2, 4, 6), bool)
    upper[:2], left[:, :3] = True, True
    assert overlap(upper, left) == pytest.approx(6 / 18)  # 12 pixels each, 6 of them shared
    assert overlap(upper, upper) == 1 and overlap(upper, ~upper) == 0
    assert overlap(upper & ~upper, upper & ~upper) == 0  # both empty, as in ``summarize``


@pytest.mark.parametrize("counts", [([2], [1]), ([-1], [3]), ([], []), ([1, 1], [2])])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(StudyError, match="metrics"):
        summarize(*counts)


def test_the_learning_rate_rises_then_decays():
    settings = TrainConfig(learning_rate=1.0, warmup=0.1, poly_power=0.9)
    rates = [learning_rate(settings, update, 100) for update in range(100)]
    assert max(rates) == max(rates[5:12]) and rates[0] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.5**0.9) and rates[-1] < 0.02


def test_weight_decay_spares_norms_biases_and_tables():
    model = build_model(tiny_model())
    groups = parameter_groups(model, 0.01, {model.text_encoder: 0.5})
    spared = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    slow = {id(p) for g in groups if g["rate"] == 0.5 for p in g["params"]}
    for name, parameter in model.named_parameters():
        table = "relative_position_bias" in name or "embeddings" in name
        assert (id(parameter) in spared) == (parameter.ndim < 2 or table)
        assert (id(parameter) in slow) == name.startswith("text_encoder")


def test_a_pretrained_text_encoder_brings_its_own_vocabulary(data_root, tmp_path):
    words = list(build_tokenizer().vocab)
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:5], *reversed(words[5:])]) + "\n")
    own = TextEncoderConfig(name=str(tmp_path), pretrained=True)
    first, second = (
        load_corpora(tiny_data(), text, ("val",), data_root, progress=False)[0]["val"]
        for text in (TextEncoderConfig(), own)
    )
    assert first.token_ids.shape == second.token_ids.shape and (first.token_ids != second.token_ids).any()
    assert build_tokenizer(tmp_path).decode(second.token_ids[0]) == build_tokenizer().decode(first.token_ids[0])
    with pytest.raises(StudyError, match="vocabulary not found"):
        build_tokenizer(tmp_path / "nowhere")


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def corpora(data_root):
    return load_corpora(tiny_data(), TextEncoderConfig(), ("train", "val"), data_root, progress=False)[0]


def test_evaluation_counts_pixels_of_every_expression(corpora):
    torch.manual_seed(0)
    model, corpus = build_model(tiny_model()).eval(), corpora["val"]
    few = corpus.subset(2)
    counts = few.table[ABOUT].copy()
    for k, row in enumerate(few.table.itertuples()):
        image = few.images[few.image_of_ref[few.ref_of_expression[k]]].transpose(1, 2, 0)
        predicted = predict(model, image, [row.expression])[0] > 0.5
        truth = decode_mask(row.segmentation, 64, 64)
        counts.loc[k, ["intersection", "union"]] = (predicted & truth).sum(), (predicted | truth).sum()
    assert_same_but_for_rounding(counts, model, few, images_per_batch=3)


def test_grouping_does_not_change_an_evaluation(corpora):
    torch.manual_seed(0)
    model = build_model(tiny_model()).eval()
    assert_same_but_for_rounding(evaluate(model, corpora["val"], images_per_batch=1), model, corpora["val"])


def test_the_whole_image_has_the_truth_as_intersection(corpora):
    counts = whole_image_counts(corpora["val"])
    truth = [decode_mask(s, 64, 64).sum() for s in corpora["val"].table["segmentation"]]
    assert counts["intersection"].tolist() == truth and set(counts["union"]) == {64 * 64}


SAME = ("record.json", "curve.csv", "counts.parquet", "masks.json", "weights.safetensors")


def record_bytes(folder):
    return {name: (folder / name).read_bytes() for name in ("record.json", "curve.csv", "gates.csv", "counts.parquet")}


def random_slvit(run):
    """The run with SLViT in place of its model, and all that SLViT does at random: dropout, drop-path, bases."""
    text = run.model.text.model_copy(update={"dropout": 0.1})
    whole = PartConfig(name="slvit", options=TINY | {"drop_path_rate": 0.2})
    return run.model_copy(update={"model": run.model.model_copy(update={"text": text, "whole": whole})})


@pytest.mark.parametrize("config", [tiny_run(), random_slvit(tiny_run())], ids=["composed", "slvit"])
def test_two_whole_trainings_and_one_in_halves_are_the_same(data_root, tmp_path, monkeypatch, config):
    monkeypatch.setattr("refstudy.training.trainer.CURVE_EVERY", 4)
    calls = itertools.count(1)
    stopped = False
    for name in ("whole", "again", "halves"):
        folder = tmp_path / name
        try:
            stop = (lambda: next(calls) == 5) if name == "halves" else (lambda: False)
            train(config, folder / "records", folder, data_root, progress=False, stop=stop)
        except Unfinished as reached:
            stopped = "stopped after 5 of 12 updates" in str(reached) and not (folder / "records").exists()
            train(config, folder / "records", folder, data_root, progress=False)
    assert stopped
    same = (*SAME, "gates.csv") if config.model.whole is None else SAME  # SLViT has none
    made = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.name in (*SAME, "gates.csv")}
    assert len(made) == 3 * len(same)
    assert {name: len({made[path] for path in made if path.name == name}) for name in same} == dict.fromkeys(same, 1)


@pytest.mark.parametrize("stop_at", [6, 12])
def test_a_stop_at_the_end_of_an_epoch_leaves_the_validation_to_the_next_call(
    data_root, tmp_path, stop_at, monkeypatch, capsys
):
    calls = itertools.count(1)
    with pytest.raises(Unfinished, match=f"stopped after {stop_at} of 12"):
        train(tiny_run(), tmp_path / "r", tmp_path, data_root, progress=False, stop=lambda: next(calls) == stop_at)
    monkeypatch.setattr(
        "refstudy.training.loop.circumstances", lambda: circumstances() | {"commit": "0" * 40}
    )  # other code
    curve = read_record(train(tiny_run(), tmp_path / "r", tmp_path, data_root)).curve()
    told = capsys.readouterr().out
    assert f"goes on from update {stop_at} of 12, to which commit" in told and "checkpoint.pt" in told
    assert curve["update"][curve["val_oIoU"].notna()].tolist() == [6, 12]


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [3, 8])
def test_an_interrupted_run_resumes_to_the_same_record(data_root, tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr("refstudy.training.trainer.CURVE_EVERY", 4)
    whole = train(tiny_run(), tmp_path / "a" / "records", tmp_path / "a", data_root, progress=False)
    assert {4, 8, 12} <= set(read_record(whole).curve()["update"])  # the stops come between these
    monkeypatch.setattr("refstudy.training.loop.CHECKPOINT_EVERY", -1)  # a checkpoint after every update
    step = Trainer.step

    def stopping(self, batch):
        if self.update == stop_at:
            raise Stop
        step(self, batch)

    monkeypatch.setattr(Trainer, "step", stopping)
    with pytest.raises(Stop):
        train(tiny_run(), tmp_path / "b" / "records", tmp_path / "b", data_root, progress=False)
    assert not (tmp_path / "b" / "records").exists()
    monkeypatch.setattr(Trainer, "step", step)
    resumed = train(tiny_run(), tmp_path / "b" / "records", tmp_path / "b", data_root, progress=False)
    assert record_bytes(resumed) == record_bytes(whole)


def test_a_model_can_learn_a_few_pictures_by_heart(data_root, corpora):
    run = tiny_run(epochs=40, images_per_batch=4, learning_rate=3e-3)
    few = corpora["train"].subset(4)
    trainer = Trainer(run, {"train": few, "val": few})
    before = summarize_counts(evaluate(trainer.model, few))["oIoU"]
    for epoch in range(40):
        for batch in grouped_batches(few, 4, 3, 0, epoch):
            trainer.step(batch)
    after = summarize_counts(evaluate(trainer.model, few))["oIoU"]
    assert after > max(2 * before, 30)


def broken(path):
    path.write_bytes(b"half a checkpoint")


def foreign(path):
    torch.save({"key": "000000000000"}, path)


def malicious(path):
    torch.save({"key": Bomb(path.parent / "ran")}, path)


def tensor(path):
    torch.save(torch.zeros(2), path)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (broken, "unusable checkpoint"),
        (foreign, "of another run"),
        (malicious, "unusable checkpoint"),
        (tensor, "unusable checkpoint"),
    ],
)
def test_bad_checkpoints_are_refused(corpora, tmp_path, spoil, message):
    spoil(tmp_path / "checkpoint.pt")
    with pytest.raises(StudyError, match=f"checkpoint.pt: .*{message}.*remove it"):
        resume(Trainer(tiny_run(), corpora), tmp_path / "checkpoint.pt")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_finds_no_room_leaves_the_last_one(corpora, tmp_path, monkeypatch):
    path, trainer = tmp_path / "checkpoint.pt", Trainer(tiny_run(), corpora)
    save(trainer, path)
    before = path.read_bytes()

    def full(state, to):
        to.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StudyError, match="checkpoint.pt: .*; make room, and the same command goes on from the last"):
        save(trainer, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_run_goes_on_in_its_precision_alone(corpora, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save(Trainer(tiny_run(precision="bfloat16"), corpora), path)
    resume(Trainer(tiny_run(precision="bfloat16"), corpora), path)
    monkeypatch.setattr("refstudy.training.evaluation.native_bfloat16", lambda: True)
    with pytest.raises(
        StudyError, match="began in float32, and here it would go on in bfloat16.*a machine like the first"
    ):
        resume(Trainer(tiny_run(precision="bfloat16"), corpora), path)


def test_variants_of_one_seed_see_equal_batches(corpora):
    first, second = (
        [b.expressions.tolist() for b in grouped_batches(corpora["train"], 4, 3, seed=0, epoch=1)] for _ in range(2)
    )
    torch.manual_seed(99)
    assert first == second == [b.expressions.tolist() for b in grouped_batches(corpora["train"], 4, 3, 0, 1)]


@pytest.mark.parametrize("selection", ["train", "val"])
def test_a_run_keeps_masks_of_a_split_that_it_counts(selection, data_root, tmp_path):
    run = tiny_run(epochs=1, selection_split=selection).model_copy(update={"splits": ("train",)})
    record = read_record(train(run, tmp_path / "records", tmp_path, data_root, progress=False))
    assert record.masks() and set(record.masks()) <= set(record.counts()["sent_id"])


def test_a_loss_that_is_no_number_ends_the_training(corpora, monkeypatch):
    monkeypatch.setattr("refstudy.training.trainer.CURVE_EVERY", 1)
    trainer = Trainer(tiny_run(), corpora)
    batch = next(trainer.rest_of_epoch())
    trainer.step(batch)
    with torch.no_grad():
        next(trainer.model.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(StudyError, match="tiny-seed0-.* after 2 updates; lower train.learning_rate"):
        trainer.step(batch)


@pytest.mark.slow
@pytest.mark.skipif("TEST_NOISE" in os.environ, reason="Dynamo would count the noise, too")
def test_every_model_of_a_process_is_compiled(corpora, monkeypatch):
    """Dynamo compiles one code object a limited number of times."""
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counted))
    with torch._dynamo.config.patch(recompile_limit=1):
        for _ in range(2):
            before = len(graphs)
            trainer = Trainer(tiny_run(compile=True), corpora)
            trainer.step(next(trainer.rest_of_epoch()))
            assert len(graphs) > before


def test_half_precision_on_a_cpu_is_told(data_root, tmp_path, capsys):
    run = tiny_run(epochs=1, precision="bfloat16")
    record = read_record(train(run, tmp_path / "records", tmp_path, data_root))
    assert record.provenance()["precision"] == "float32"
    assert "train.precision bfloat16 is not native here; computes in float32" in capsys.readouterr().out


@pytest.fixture(scope="module")
def record_path(data_root, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    return train(tiny_run(epochs=1), root / "records", root / "work", data_root, progress=False)


def test_a_record_reads_back_and_is_found_by_its_settings(record_path):
    record = read_record(record_path)
    assert record.config == tiny_run(epochs=1)
    assert record.metrics["val"] == summarize_counts(record.counts())
    assert find_record(record_path.parent, tiny_run(epochs=1)).path == record_path
    assert find_record(record_path.parent, tiny_run(epochs=2)) is None
    assert [r.path for r in find_records(record_path.parent)] == [record_path]
    made = record.provenance()
    assert {"commit", "versions", "device", "training_seconds"} <= set(made)
    assert 100 < made["peak_memory_mb"] < psutil.virtual_memory().total >> 20  # PyTorch alone takes the first
    assert {"update", "pairs", "val_oIoU"} <= set(record.curve().columns)


def copy_of(record_path, tmp_path):
    import shutil

    return shutil.copytree(record_path, tmp_path / record_path.name)


def test_an_edited_or_broken_record_is_refused(record_path, tmp_path):
    folder = copy_of(record_path, tmp_path)
    content = json.loads((folder / "record.json").read_text())
    content["config"]["train"]["epochs"] = 40
    (folder / "record.json").write_text(json.dumps(content))
    with pytest.raises(StudyError, match="key does not follow"):
        read_record(folder)
    content["config"]["train"]["epochs"] = 1
    content["metrics"]["val"]["oIoU"] = 99.0
    (folder / "record.json").write_text(json.dumps(content))
    with pytest.raises(StudyError, match="metrics does not follow"):
        read_record(folder)
    (folder / "counts.parquet").write_bytes(b"half")
    with pytest.raises(StudyError, match="unreadable run record"):
        read_record(folder)


@pytest.mark.parametrize("variant", ["s2rm_casg", "slvit", "slvit_strip7", "lavt"])
def test_what_starts_from_random_numbers_learns_at_the_full_rate(variant):
    study = load_study(ROOT / "papermill_runs.yaml")
    config = study.run_config("scenes", variant, 0)
    model = build_model(config.model)
    fresh = load_encoders(model, config.train, study.encoders("scenes", variant))
    rates = {model.image_encoder: config.train.image_rate, model.text_encoder: config.train.text_rate}
    groups = parameter_groups(model, 0.01, rates, fresh)
    rate_of = {id(p): group["rate"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        known = name.startswith(("image_encoder.", "text_encoder.")) and ".cross." not in name
        known &= not (variant == "slvit_strip7" and ".strips." in name)  # this row's strips start at random
        assert rate_of[id(parameter)] == (0.3 if known else 1.0), name


def test_pretrained_encoders_are_loaded_and_checked(data_root, tmp_path):
    path = tmp_path / "encoders.safetensors"
    settings = PretrainConfig(image_updates=6, images_per_batch=8, text_updates=6, expressions_per_batch=16)
    reached = pretrain(tiny_data(), tiny_model(), settings, path, data_root, progress=False)
    assert set(reached) == {"category_accuracy", "colour_accuracy", "said_accuracy"}
    run = tiny_run(encoder_weights=file_digest(path))
    corpora, _ = load_corpora(tiny_data(), TextEncoderConfig(), ("train", "val"), data_root, progress=False)
    trainer, plain = Trainer(run, corpora, path), Trainer(tiny_run(), corpora)
    started, written = trainer.model.state_dict(), load_file(path)
    assert {name.split(".")[0] for name in written} == {"image", "text"}
    for name, tensor in written.items():
        assert torch.equal(started[name.replace(".", "_encoder.", 1)], tensor), name
    for name in ("image_encoder.norms.0.weight", "text_encoder.bert.embeddings.word_embeddings.weight"):
        assert not torch.equal(started[name], plain.model.state_dict()[name])
    few = settings.model_copy(update={"images_per_batch": 999})
    with pytest.raises(StudyError, match="pretraining.images_per_batch: 999, but there are only .* make it smaller"):
        pretrain(tiny_data(), tiny_model(), few, path, data_root, progress=False)
    with pytest.raises(StudyError, match="not train.encoder_weights"):
        Trainer(tiny_run(encoder_weights="0" * 64), corpora, path)
    with pytest.raises(StudyError, match="pretrained encoders not found"):
        Trainer(run, corpora, tmp_path / "none.safetensors")
    save_file({"image.norms.0.weight": torch.zeros(3)}, path)
    with pytest.raises(StudyError, match="does not fit"):
        Trainer(tiny_run(encoder_weights=file_digest(path)), corpora, path)


def test_pretraining_names_pixels_better_with_more_updates(data_root, tmp_path):
    few, many = (
        pretrain(
            tiny_data(),
            tiny_model(),
            PretrainConfig(image_updates=n, images_per_batch=12, text_updates=0, learning_rate=3e-3),
            tmp_path / f"{n}.safetensors",
            data_root,
            progress=False,
        )
        for n in (1, 60)
    )
    assert many["category_accuracy"] > few["category_accuracy"] + 10


def test_a_text_encoder_is_pretrained_alike_beside_every_image_encoder(data_root, tmp_path):
    for updates in (1, 2):
        settings = PretrainConfig(image_updates=updates, images_per_batch=12, text_updates=2, expressions_per_batch=8)
        pretrain(tiny_data(), tiny_model(), settings, tmp_path / f"{updates}.safetensors", data_root, progress=False)
    one, other = (load_file(tmp_path / f"{updates}.safetensors") for updates in (1, 2))
    alike = {name for name, tensor in one.items() if torch.equal(tensor, other[name])}
    assert {name for name in one if name.startswith("text.")} <= alike < one.keys()


def test_pretraining_tells_what_is_said_better_with_more_updates(data_root):
    """Left from right too, which words that are only filled in would not tell apart."""
    data, sizes = tiny_data(), tiny_model().text
    corpora, _ = load_corpora(data, sizes, ("train", "val"), data_root, progress=False)
    labels = said(data, corpora, data_root)
    reached, apart = [], []
    for updates in (1, 150):
        torch.manual_seed(0)
        encoder = TextEncoder(sizes)
        settings = PretrainConfig(text_updates=updates, expressions_per_batch=32, learning_rate=3e-3)
        reached.append(pretrain_text_encoder(encoder, corpora, labels, settings, progress=False)["said_accuracy"])
        words = build_tokenizer()(["left dog", "right dog", "dog on left"], padding=True, return_tensors="pt")
        mask = words.attention_mask.bool()
        with torch.inference_mode():
            means = (encoder(words.input_ids, mask) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        apart.append((means[0] - means[1]).norm() / (means[0] - means[2]).norm())
    assert reached[1] > reached[0] and apart[1] > max(1, apart[0])


def test_what_is_said_is_the_category_and_the_steps(data_root):
    data = tiny_data()
    corpora, _ = load_corpora(data, tiny_model().text, ("train", "val"), data_root, progress=False)
    labels = said(data, corpora, data_root)
    table = corpora["train"].table
    assert labels["train"].shape == (len(table), labels["val"].shape[1]) and labels["train"].any(axis=0).all()
    left = table["expression"].str.contains(r"\bleft\b").to_numpy()
    most = labels["train"][left].mean(axis=0) - labels["train"][~left].mean(axis=0)
    assert most.max() > 0.3  # one of the steps is that of the left side


def test_the_real_triples_go_through_loader_model_and_evaluation(triples_root):
    table = load_refer(triples_root, "refcoco", "unc")
    assert table["ref_id"].nunique() == 51 + 14 - 1 and table["words"].mean() > 2
    corpus = build_corpus(table, "val", 64, build_tokenizer(), progress=False)
    torch.manual_seed(0)
    counts = evaluate(build_model(tiny_model()), corpus)
    assert len(counts) == len(table) and (counts["union"] > 0).all()
    assert np.isfinite(list(summarize_counts(counts).values())).all()
    area = whole_image_counts(corpus)["intersection"] / 64**2
    boxes = table["area"] / (table["height"] * table["width"])
    assert np.corrcoef(area, boxes)[0, 1] > 0.99


def test_real_photographs_and_their_masks_decode(real_sample):
    folder = real_sample / "coco_small"
    instances = json.loads(next((folder / "annotations").glob("*.json")).read_text())
    images = {image["id"]: image for image in instances["images"]}
    kinds = pd.Series(0, index=["polygon", "rle"])
    for annotation in instances["annotations"]:
        image = images[annotation["image_id"]]
        mask = decode_mask(annotation["segmentation"], image["height"], image["width"])
        if isinstance(annotation["segmentation"], dict):
            kinds["rle"] += 1
            counts = annotation["segmentation"]["counts"]
            assert mask.sum() == sum(counts[1::2])  # the stored area of crowds is another one than their own mask's
        else:
            kinds["polygon"] += 1
            # the stored area is that of the polygon itself; drawn, it gains or loses pixels along its border
            points = sum(len(part) for part in annotation["segmentation"])
            assert abs(mask.sum() - annotation["area"]) <= math.sqrt(annotation["area"]) + points / 4 + 3
    assert kinds.to_dict() == {"polygon": 887, "rle": 13}


def test_trained_weights_predict_as_the_run_did(data_root, tmp_path):
    path = train(tiny_run(epochs=1), tmp_path / "records", tmp_path / "work", data_root, progress=False)
    model = load_model(next((tmp_path / "work").glob("*/weights.safetensors")))
    corpus = build_corpus(
        load_refer(prepare_data(tiny_data(), data_root), "refscenes", "unc"),
        "val",
        64,
        build_tokenizer(),
        progress=False,
    )
    assert_same_but_for_rounding(read_record(path).counts(), model, corpus)


def test_the_seed_decides_weights_and_batches_and_the_variant_does_not(corpora):
    def made(**change):
        trainer = Trainer(tiny_run().model_copy(update=change), corpora)
        words = [value for value in trainer.model.text_encoder.state_dict().values() if value.is_floating_point()]
        return words, [batch.expressions.tolist() for batch in trainer.rest_of_epoch()]

    (words, order), (others, another), (of_variant, same) = made(), made(seed=1), made(model=tiny_model("tile_concat"))
    assert order != another and any(not torch.equal(one, two) for one, two in zip(words, others, strict=True))
    assert order == same and all(torch.equal(one, two) for one, two in zip(words, of_variant, strict=True))


def test_an_update_follows_schedule_rates_and_clipping(corpora):
    trainer = Trainer(tiny_run(text_rate=0.3, warmup=0.5, clip_norm=1e-3), corpora)
    text = {id(parameter) for parameter in trainer.model.text_encoder.parameters()}
    for batch in itertools.islice(trainer.rest_of_epoch(), 3):
        rate = learning_rate(trainer.settings, trainer.update, trainer.total)
        trainer.step(batch)
        for group in trainer.optimizer.param_groups:
            for parameter in group["params"]:
                assert group["lr"] == pytest.approx(rate * (0.3 if id(parameter) in text else 1))
        gradients = [parameter.grad.norm() for parameter in trainer.model.parameters() if parameter.grad is not None]
        assert torch.stack(gradients).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_the_kept_weights_are_those_of_the_earliest_best_validation(corpora, monkeypatch):
    trainer, scores = Trainer(tiny_run(), corpora), iter([10.0, 30.0, 30.0, 20.0])
    monkeypatch.setattr("refstudy.training.trainer.summarize_counts", lambda counts: {"oIoU": next(scores)})
    for epoch in range(1, 5):
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter.fill_(epoch)
        trainer.validate(epoch)
    assert (trainer.best, trainer.best_epoch) == (30.0, 2)
    assert all((parameter == 2).all() for parameter in trainer.best_model().parameters())


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_freed_memory_is_kept_where_asked():
    """Resident pages after tensors of 16 MiB are gone."""
    code = """
import torch
from refstudy.base.allocation import keep_freed_memory
def resident(): return int(open("/proc/self/statm").read().split()[1]) >> 8  # MiB
{ask}
before = resident()
tensors = [torch.ones(4 << 20) for _ in range(20)]
del tensors
print(resident() - before)
"""
    left = {}
    for ask in ("assert keep_freed_memory()", ""):
        command = [sys.executable, "-c", code.format(ask=ask)]
        left[ask] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert left[""] < 100 < 300 < left["assert keep_freed_memory()"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="of Linux")
def test_the_peak_of_one_run_is_not_that_of_the_run_before():
    """Though what that run freed is kept: 300 MiB, of which at least half is no part of the next peak. In a process of
    its own, where nothing else is allocated meanwhile."""
    code = """
from refstudy.base.allocation import keep_freed_memory
from refstudy.base.provenance import forget_peak_memory, peak_memory
keep_freed_memory()
blocks = [b"1" * (1 << 20) for _ in range(300)]
del blocks
before = peak_memory()["peak_memory_mb"]
forget_peak_memory()
print(before - peak_memory()["peak_memory_mb"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 150 < int(done.stdout) < 450
