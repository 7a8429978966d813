"""The weights that a training starts from: pretrained encoders of the study, or published ones."""

import hashlib
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from refstudy.base.config import TrainConfig
from refstudy.base.errors import StudyError
from refstudy.base.files import file_digest, note
from refstudy.models.mscan import MSCAN, published_names
from refstudy.models.segmenter import Segmenter

NOT_PRETRAINED = re.compile(r"^blocks\..*\.attention\.(cross|strips)\.")  # in SLViT's image encoder


def published_weights(model: Segmenter, encoders: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of the published weights of these encoders ("image", "text"): those under a name can change."""
    digests = {}
    for kind in encoders:
        encoder = getattr(model, f"{kind}_encoder")
        given = encoder.state_dict()
        if isinstance(encoder, MSCAN):  # its other tensors start from random numbers
            given = {name: given[name] for name in published_names(encoder)}
        digest = hashlib.sha256()
        for name, tensor in given.items():
            digest.update(name.encode())
            digest.update(tensor.numpy(force=True).tobytes())
        digests[kind] = digest.hexdigest()
    return digests


def load_encoders(model: Segmenter, settings: TrainConfig, path: Path | str | None) -> set[str]:
    """Start the encoders from pretrained weights, if the settings name any by their SHA-256. Return the names of the
    tensors within pretrained encoders that start from random weights: SLViT's language branches, and strip pairs that
    are fresh or of other sizes.

    The file may hold the image encoder alone. Raises StudyError when it is missing, another one, or does not fit.
    """
    fresh: set[str] = set()
    if not settings.encoder_weights:
        return fresh
    if path is None or not Path(path).exists():
        raise StudyError(f"{path}: pretrained encoders not found; restore the file or run `refstudy pretrain`")
    if file_digest(path) != settings.encoder_weights:
        raise StudyError(f"{path}: its SHA-256 is not train.encoder_weights of the settings; restore it, or set that")
    note("read", path)
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        for prefix, encoder in (("image.", model.image_encoder), ("text.", model.text_encoder)):
            state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            if isinstance(encoder, MSCAN):
                state = encoder.pretrained_part(state)
            if state or prefix == "image.":
                strange = encoder.load_state_dict(state, strict=False)
                names = (*strange.missing_keys, *strange.unexpected_keys)
                if unfit := [name for name in names if not NOT_PRETRAINED.search(name)]:
                    raise RuntimeError(f"{unfit[0]} is on one side only")
                fresh |= {f"{prefix[:-1]}_encoder.{name}" for name in strange.missing_keys}
    except (SafetensorError, RuntimeError) as error:
        raise StudyError(f"{path}: does not fit the encoders of the settings; run `refstudy pretrain`") from error
    return fresh
