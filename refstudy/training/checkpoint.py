"""Checkpoints of a training: all that it needs to go on exactly where it stopped."""

import pickle
from pathlib import Path

import torch
from accelerate.utils import gather_object

from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write
from refstudy.training.trainer import Trainer

STATE = ("update", "pairs", "best", "best_epoch", "best_weights", "curve", "gates", "stretches", "loss_sum")
# The errors that a broken or foreign file raises.
BROKEN = (pickle.UnpicklingError, RuntimeError, LookupError, ValueError, EOFError, OSError, TypeError, AttributeError)


def save(trainer: Trainer, path: Path) -> None:
    """Write the checkpoint; an earlier one stays whole until this one is complete. The main process writes it.

    Raises StudyError where it cannot be written.
    """
    own = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if trainer.device.type == "cuda" else [])]
    random = gather_object([own])  # of every process
    if not trainer.accelerator.is_main_process:
        return
    state = {name: getattr(trainer, name) for name in STATE} | {
        "key": trainer.config.key(),
        "precision": trainer.precision,
        "seconds": trainer.elapsed(),
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "random": random,
    }
    try:
        with atomic_write(path) as temporary:
            torch.save(state, temporary)
    except RuntimeError as error:  # of a full disk
        remedy = "make room, and the same command goes on from the last checkpoint"
        raise StudyError(f"{path}: could not be written; {remedy}") from error


def resume(trainer: Trainer, path: Path) -> None:
    """Go on from a checkpoint, if there is one, written by any number of processes.

    Raises StudyError for one that is broken, of another run, or computed in another precision.
    """
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["key"] != trainer.config.key():
            raise StudyError(f"{path}: is the checkpoint of another run; remove it to train afresh")
        if state["precision"] != trainer.precision:
            about = f"{path}: this run began in {state['precision']}, and here it would go on in {trainer.precision}"
            remedy = "go on with it on a machine like the first, or remove it to train afresh"
            raise StudyError(f"{about}; {remedy}")
        trainer.model.load_state_dict(state["model"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        for name in (*STATE, "seconds"):
            setattr(trainer, name, state[name])
        trainer.loss_sum = trainer.loss_sum.to(trainer.device)
        if trainer.accelerator.process_index < len(state["random"]):
            generators = (torch.set_rng_state, torch.cuda.set_rng_state)
            for put_back, kept in zip(generators, state["random"][trainer.accelerator.process_index], strict=False):
                put_back(kept)
    except StudyError:
        raise
    except BROKEN as error:
        raise StudyError(f"{path}: unusable checkpoint ({type(error).__name__}); remove it to train afresh") from error
