"""What tests/test_scaling.py has torchrun start: updates, and whole trainings, by as many processes as there are."""

import sys
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import nn

from refstudy.data.batches import grouped_batches
from refstudy.models.build import build_model
from refstudy.training.loop import Unfinished, load_corpora, train
from refstudy.training.losses import dice_loss
from refstudy.training.optim import parameter_groups
from refstudy.training.trainer import Trainer

from .conftest import tiny_run

UPDATES = 5


def exact_model(config):
    """The model in float64, with group normalisation in place of batch normalisation, whose output depends on the
    batch."""
    model = build_model(config)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(1, child.num_features))
    model.register_forward_pre_hook(lambda _, given: (given[0].double(), *given[1:]))
    return model.double()


def exact_loss(logits, masks):
    """The loss in float64."""
    with patch.object(torch.Tensor, "float", torch.Tensor.double):
        return dice_loss(logits, masks)


def trained_weights(data_root, **settings):
    """The weights after a few steps downhill, in float64. Plain gradient descent: where a gradient is nothing but
    rounding, Adam would divide it by its own size and take a whole step."""
    config = tiny_run(clip_norm=1.0, learning_rate=0.3, **settings)
    corpora, _ = load_corpora(config.data, config.model.text, ("train", "val"), data_root, progress=False)
    with patch("refstudy.training.trainer.build_model", exact_model):
        trainer = Trainer(config, corpora)
    trainer.optimizer = torch.optim.SGD(parameter_groups(trainer.model, 0.0), lr=1.0)
    share = {"share": trainer.accelerator.process_index, "shares": trainer.processes}
    batches = grouped_batches(corpora["train"], config.train.images_per_batch, 3, seed=0, epoch=0, **share)
    with patch("refstudy.training.trainer.dice_loss", exact_loss):
        for _, batch in zip(range(UPDATES), batches, strict=False):
            trainer.step(batch)
    return trainer.model.state_dict(), trainer.loss_sum


def main(data_root, out):
    weights, loss = trained_weights(data_root)
    train(tiny_run(), out / "whole" / "records", out / "whole", data_root)
    try:
        train(tiny_run(), out / "halves" / "records", out / "halves", data_root, stop=lambda: True)
    except Unfinished as reached:
        (out / "stopped.txt").write_text(str(reached))
    train(tiny_run(), out / "halves" / "records", out / "halves", data_root)
    if torch.distributed.get_rank() == 0:
        save_file(
            {name: value.contiguous() for name, value in (weights | {"loss": loss}).items()}, out / "w.safetensors"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
