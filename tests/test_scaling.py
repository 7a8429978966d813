"""One training by several processes, in parts, with activations computed again: the same updates."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from refstudy.base.config import PartConfig
from refstudy.base.errors import StudyError
from refstudy.data.batches import IMAGE_MEAN, IMAGE_STD, grouped_batches, made_ahead, normalise
from refstudy.training.checkpoint import save
from refstudy.training.loop import load_corpora
from refstudy.training.records import find_records
from refstudy.training.trainer import Trainer

from .conftest import tiny_data, tiny_model, tiny_run
from .test_models import Calls
from .test_slvit import TINY
from .two_processes import trained_weights

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def corpora(data_root):
    return load_corpora(tiny_data(), tiny_model().text, ("train", "val"), data_root, progress=False)[0]


def assert_equal_weights(some, others):
    """Up to rounding in float64. A gradient is a sum of at most 12 expressions times 64 x 64 pixels < 2^16 terms, so
    another order moves it by less than 2^16 2^-53 = 7e-12 of their absolute sum; after five updates of at most 0.3
    times a gradient of norm 1, that is below 1e-10. A mean of means in place of the mean would show at 1e-3."""
    assert set(some) == set(others)
    for name, weight in some.items():
        if weight.is_floating_point():
            assert weight.dtype == torch.float64, name
        torch.testing.assert_close(weight, others[name], rtol=0, atol=1e-10, msg=lambda text, name=name: name + text)


# The loss is added up in float32: once a part and once an update, 2 x 5 + 5 roundings of 2^-24, below 1e-6.


def test_parts_hold_different_numbers_of_expressions(corpora):
    """Otherwise the tests below could not tell a mean of means from the mean."""
    cut = ((number, each, each.parts(2)) for number, each in enumerate(grouped_batches(corpora["train"], 4, 3, 0, 0)))
    number, batch, parts = next(one for one in cut if len({len(part.masks) for part in one[2]}) == 2)
    assert {part.of for part in parts} == {len(batch.masks)}
    shares = [next(grouped_batches(corpora["train"], 4, 3, 0, 0, start=number, share=k, shares=2)) for k in (0, 1)]
    for part, share in zip(parts, shares, strict=True):
        assert part.expressions.tolist() == share.expressions.tolist() and share.of == part.of
        assert torch.equal(part.images, share.images) and torch.equal(part.masks, share.masks)
        assert torch.equal(part.image_index, share.image_index)
        width = share.token_ids.shape[1]  # a part keeps the padding of its batch
        assert torch.equal(part.token_ids[:, :width], share.token_ids) and not part.token_mask[:, width:].any()


def test_parts_of_a_pinned_batch_are_pinned(corpora, monkeypatch):
    """Otherwise everyone waits for their copies to a GPU. Pinning needs one; here, what was pinned is remembered."""
    pinned = []

    def pin(tensor):
        if not tensor.is_pinned():
            pinned.append(tensor := tensor.clone())
        return tensor

    def is_pinned(tensor):
        return tensor.untyped_storage().data_ptr() in {other.untyped_storage().data_ptr() for other in pinned}

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "is_pinned", is_pinned)
    batch = next(grouped_batches(corpora["train"], 4, 3, 0, 0))
    for part, expected in zip(batch.pinned().parts(2), batch.parts(2), strict=True):
        for name in ("pixels", "image_index", "token_ids", "token_mask", "inside"):
            made, plain = getattr(part, name), getattr(expected, name)
            assert made.is_pinned() and not plain.is_pinned() and torch.equal(made, plain), name


def test_pictures_are_normalised_by_numbers_that_the_device_has():
    pixels = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    assert torch.equal(normalise(pixels), (pixels.float() / 255 - mean) / std)
    with Calls() as calls:
        normalise(pixels)
    assert "float" in calls.names and "tensor" not in calls.names


def test_batches_made_ahead_are_the_same_and_errors_arrive(corpora):
    plain, ahead = (grouped_batches(corpora["train"], 4, 3, 0, 0) for _ in range(2))
    pairs = list(zip(plain, made_ahead(ahead, pinned=False), strict=True))
    assert len(pairs) > 2 and all(a.expressions.tolist() == b.expressions.tolist() for a, b in pairs)

    def failing():
        yield pairs[0][0]
        raise StudyError("broken")

    batches = made_ahead(failing(), pinned=False)
    next(batches)
    with pytest.raises(StudyError, match="broken"):
        next(batches)


def test_a_batch_in_parts_makes_the_same_updates(data_root):
    whole, loss = trained_weights(data_root)
    parts, loss_of_parts = trained_weights(data_root, accumulate=2)
    assert_equal_weights(whole, parts)
    assert loss_of_parts.item() == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch has no gloo here")
def test_two_processes_make_the_updates_of_one_and_resume(data_root, corpora, tmp_path):
    """Batch normalisation, whose statistics are per process on CPUs, is replaced for the first; not for the others."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.two_processes"]
    done = subprocess.run(
        [sys.executable, *command, str(data_root), str(tmp_path)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    weights, loss = trained_weights(data_root)
    both = load_file(tmp_path / "w.safetensors")
    assert both.pop("loss").item() == pytest.approx(loss.item(), rel=1e-6)
    assert_equal_weights(weights, both)
    whole, halves = (find_records(tmp_path / name / "records")[0] for name in ("whole", "halves"))
    assert "stopped after 8 of" in (tmp_path / "stopped.txt").read_text()
    for name in ("record.json", "curve.csv", "counts.parquet"):
        assert (whole.path / name).read_bytes() == (halves.path / name).read_bytes()
    assert whole.provenance()["processes"] == 2
    # Both validate with the statistics of batch normalisation that are kept.
    assert whole.summary["val_oIoU_of_best"] == pytest.approx(whole.metrics["val"]["oIoU"], abs=1e-9)
    of_both_epochs = [batch for epoch in (0, 1) for batch in grouped_batches(corpora["train"], 4, 3, 0, epoch)]
    assert whole.summary["pairs"] == sum(len(batch.masks) for batch in of_both_epochs)


def model_run(whole, **train):
    run = tiny_run(**train)
    if not whole:
        image = run.model.image.model_copy(update={"drop_path_rate": 0.5, "depths": (2, 1, 1, 1)})
        return run.model_copy(update={"model": run.model.model_copy(update={"image": image})})
    options = {"slvit": TINY | {"drop_path_rate": 0.5}, "lavt": {}}[whole]
    model = run.model.model_copy(update={"whole": PartConfig(name=whole, options=options)})
    return run.model_copy(update={"model": model})


@pytest.mark.parametrize("whole", ["", "lavt", "slvit"])
def test_checkpointing_changes_no_gradient_and_no_statistic(corpora, whole):
    batch = next(grouped_batches(corpora["train"], 4, 3, 0, 0))
    made, kept = [], []
    for checkpointing in (False, True):
        trainer = Trainer(model_run(whole, checkpointing=checkpointing), corpora)
        saved = 0

        def count(tensor):
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            trainer.step(batch)
        kept.append(saved)
        gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
        made.append((gradients, dict(trainer.model.named_buffers())))
    assert kept[1] < 0.8 * kept[0]
    for some, others in zip(*made, strict=True):
        assert some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)
    assert any(isinstance(m, nn.BatchNorm2d) for m in trainer.model.image_encoder.modules()) == (whole == "slvit")


def test_batches_that_do_not_divide_are_refused(corpora):
    with pytest.raises(StudyError, match="train.images_per_batch: 4 images .* train.accumulate 3; change one"):
        Trainer(tiny_run(accumulate=3), corpora)


class Compiled(nn.Module):
    """What ``torch.compile`` returns in its place: a model around the model, which counts its forwards."""

    def __init__(self, model, **options):
        super().__init__()
        self.wrapped, self.forwards = model, 0

    def forward(self, *arguments):
        self.forwards += 1
        return self.wrapped(*arguments)


def test_compiling_is_for_training_alone(corpora, monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "compile", Compiled)
    trainer = Trainer(tiny_run(compile=True), corpora)
    batch = next(grouped_batches(corpora["train"], 4, 3, 0, 0))
    trainer.step(batch)
    assert trainer.learner.wrapped is trainer.model and trainer.learner.forwards == 1
    trainer.validate(1)
    save(trainer, tmp_path / "checkpoint.pt")
    assert trainer.learner.forwards == 1
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["model"].keys() == trainer.best_weights.keys() == trainer.model.state_dict().keys()


def test_each_new_setting_changes_the_key():
    keys = {tiny_run(**change).key() for change in ({}, {"accumulate": 2}, {"checkpointing": True}, {"compile": True})}
    assert len(keys) == 4
