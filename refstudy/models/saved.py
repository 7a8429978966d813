"""Models as they lie on disk, as far as they are read without PyTorch: where they are, and their settings."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from refstudy.base.config import ModelConfig
from refstudy.base.errors import StudyError

ROOT = Path(__file__).resolve().parents[2]  # of the repository; an installed package has no weights there
SHIPPED_WEIGHTS = ROOT / "results" / "scenes" / "weights" / "s2rm_casg.safetensors"
UNREADABLE = (OSError, SafetensorError, KeyError, ValueError, TypeError)  # what reading a broken or foreign file raises


def shipped_weights() -> Path:
    """The small model that comes with the repository. Raises StudyError where the package was installed without it."""
    if not SHIPPED_WEIGHTS.is_file():
        remedy = "give --weights, a file of refstudy or a folder of save_pretrained"
        raise StudyError(f"this installation comes without weights; {remedy}")
    return SHIPPED_WEIGHTS


def saved_settings(path: Path) -> tuple[ModelConfig, dict[str, str]]:
    """The settings of a model that ``save_weights`` or ``save_pretrained`` wrote, and what else the metadata of the
    file hold: its tokenizer's files by name, where it has them.

    Raises StudyError when it is missing, broken or not one of ours.
    """
    if not path.exists():
        raise StudyError(f"{path}: weights not found; train them or fetch them again")
    if path.is_dir() and not (path / "model.safetensors").is_file():
        names = ", ".join(sorted(file.name for file in path.glob("*.safetensors")))
        remedy = f"name one of its files: {names}" if names else "train them or fetch them again"
        raise StudyError(f"{path}: no model weights of refstudy as model.safetensors; {remedy}")
    try:
        if path.is_dir():
            return ModelConfig.model_validate_json((path / "config.json").read_text(encoding="utf-8")), {}
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
        about = json.loads(about["saved"]) if "saved" in about else about
        return ModelConfig.model_validate_json(about["model"]), about
    except UNREADABLE as error:
        raise not_ours(path, error) from error


def not_ours(path: Path, error: Exception) -> StudyError:
    """The error that says that no model of ours lies there."""
    return StudyError(f"{path}: no model weights of refstudy ({type(error).__name__}); train them or fetch them again")
