"""The settings of a training run (data, model, training) and the key made from them."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

THRESHOLD = 0.5  # a pixel whose probability exceeds it is marked
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Resolution = Literal["resized", "original"]
Precision = Literal["float32", "bfloat16"]
SentenceField = Literal["sent", "raw"]


class Settings(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def replaced(self, values: Mapping[str, Any]) -> Self:
        """The same settings with some replaced. Raises pydantic's ValidationError for values that do not fit."""
        return self.model_validate(self.model_dump() | dict(values))


class DataConfig(Settings):
    """The data of a run and their size. Of RefScenes, ``scenes`` pictures of each split are drawn from ``scenes_seed``;
    of released data, the first so many pictures of the named splits are taken, and all if ``scenes`` is empty."""

    dataset: str = "refscenes"
    split_by: str = "unc"
    image_size: int = Field(128, ge=32)
    max_words: int = Field(20, ge=3, description="word pieces, [CLS] and [SEP] included")
    keep_aspect: bool = Field(False, description="pictures keep their aspect, on a square of ImageNet's mean colour")
    sentence_field: SentenceField = Field("sent", description="REFER's cleaned text of a sentence, or raw, as typed")
    scenes: dict[str, PositiveInt] = {}
    scenes_seed: int = 0
    scenes_version: str = ""
    kinds: tuple[str, ...] = Field((), description="of RefScenes: only expressions of these kinds; empty: all")
    referents: Count = Field(1, description="only pictures about which ``kinds`` leave so many referents or more")


OF_A_FOLDER = "SHA-256 of the weights, where the name is that of a folder: it stands for the folder in a run's key"
WEIGHTS = Field("", exclude_if=lambda digest: not digest, description=OF_A_FOLDER)


class ImageEncoderConfig(Settings):
    """A timm Swin by name; the other fields, if given, override the sizes that the name implies."""

    name: str = "swin_tiny_patch4_window7_224"
    embed_dim: int | None = None
    depths: tuple[int, ...] | None = None
    num_heads: tuple[int, ...] | None = None
    window_size: int | None = None
    drop_path_rate: float = 0.0
    pretrained: bool = False
    weights: str = WEIGHTS


class TextEncoderConfig(Settings):
    """A BERT: by name with its published weights, or by sizes from scratch."""

    name: str = ""
    vocab_size: int = 30522
    hidden_size: int = 768
    layers: int = 12
    heads: int = 12
    intermediate_size: int = 3072
    dropout: float = 0.1
    pretrained: bool = False
    weights: str = WEIGHTS

    @property
    def vocabulary(self) -> str | None:
        """The argument of ``build_tokenizer``: a pretrained encoder's own words, otherwise those of RefScenes."""
        return self.name if self.pretrained else None


class PartConfig(Settings):
    """A fusion module, decoder or whole model by name, with the options that make it an ablation."""

    name: str
    options: dict[str, Any] = {}
    source: str = Field("", description="SHA-256 of the file of your own class: an edited one is another run")


# Names of our settings -> names in the config.json of timm's or transformers' folders.
SWIN_NAMES = {name: name for name in ("embed_dim", "depths", "num_heads", "window_size")}
BERT_NAMES = {name: name for name in ("vocab_size", "hidden_size", "intermediate_size")}
BERT_NAMES |= {"layers": "num_hidden_layers", "heads": "num_attention_heads", "dropout": "hidden_dropout_prob"}
SHARED = ("image_size", "keep_aspect", "max_words")  # the model has these settings from the data
# The names that ``models/build.py`` knows, here because the study file is checked without loading PyTorch.
PARTS = {"fusion": ("s2rm", "tile_concat", "acm", "pwam"), "decoder": ("fpn", "casg"), "whole": ("lavt", "slvit")}


class ModelConfig(Settings):
    """All settings that build a model."""

    image_size: int = 128
    image: ImageEncoderConfig = ImageEncoderConfig()
    text: TextEncoderConfig = TextEncoderConfig()
    fusion: PartConfig = PartConfig(name="s2rm")
    decoder: PartConfig = PartConfig(name="fpn")
    whole: PartConfig | None = Field(None, description="lavt or slvit, in place of fusion and decoder")
    # As in ``DataConfig``: how pictures and expressions are prepared goes with the weights.
    keep_aspect: bool = False
    max_words: int = Field(20, ge=3)

    @property
    def published(self) -> tuple[str, ...]:
        """The encoders, of "image" and "text", that start from published weights."""
        image = self.image.pretrained
        if self.whole is not None and self.whole.name == "slvit":  # its image encoder is its own
            image = "pretrained" in self.whole.options
        return ("image",) * image + ("text",) * self.text.pretrained

    def from_scratch(self) -> "ModelConfig":
        """The same model with no part pretrained: to build it, no weights are read."""
        whole = self.whole
        if whole is not None:
            options = {name: value for name, value in whole.options.items() if name != "pretrained"}
            whole = whole.model_copy(update={"options": options})
        no_weights = {"pretrained": False, "weights": ""}
        image, text = (encoder.model_copy(update=no_weights) for encoder in (self.image, self.text))
        return self.model_copy(update={"image": image, "text": text, "whole": whole})


class TrainConfig(Settings):
    """The training of a model. One epoch shows every referent once, with one random sentence (S²RM, Sec. IV-B), unless
    ``sampling`` says otherwise."""

    epochs: Count = 40
    images_per_batch: Count = 12
    expressions_per_image: Count = 3
    learning_rate: Positive = 5e-5
    image_rate: NotNegative = Field(1.0, description="factor on the learning rate of the image encoder")
    text_rate: NotNegative = Field(1.0, description="factor on the learning rate of the text encoder")
    weight_decay: NotNegative = 0.01
    poly_power: Positive = 0.9
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all updates with a linearly rising rate")
    clip_norm: Positive | None = None
    precision: Precision = Field("float32", description="of training and evaluation, where it is native; else float32")
    evaluate_every: Count = Field(1, description="epochs between validations; the last epoch always validates")
    validation_images: Count | None = Field(None, description="images of val used for model selection; None: all")
    encoder_weights: str = Field("", description="SHA-256 of the pretrained encoders that training starts from")
    accumulate: Count = Field(
        1,
        description="parts in which a batch goes through the model, one after the other, to save memory; the gradient "
        "is that of the whole batch, but batch normalisation and what is random see the parts",
    )
    checkpointing: bool = Field(False, description="the image encoder's blocks are computed again backwards")
    compile: bool = Field(False, description="train with torch.compile")
    sampling: Literal["referent", "sentence"] = Field("referent", description="of which an epoch shows each once")
    selection_split: str = Field("val", description="the split that chooses the best epoch")


class EvaluationConfig(Settings):
    """The counting of masks: see ``refstudy.training.evaluation.evaluate``."""

    resolution: Resolution = "resized"
    threshold: float = Field(THRESHOLD, gt=0, lt=1)


class PretrainConfig(Settings):
    """The pretraining of the encoders on RefScenes, the stand-in for ImageNet's and BERT's weights."""

    image_updates: Count = 900
    images_per_batch: Count = 36
    text_updates: NonNegativeInt = Field(600, description="0: the text encoder is not pretrained")
    expressions_per_batch: Count = 128
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    seed: int = 0


class RunConfig(Settings):
    """One training run: a named variant, its data, model, training, evaluation and seed."""

    variant: str
    seed: int
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    splits: tuple[str, ...] = Field(("val",), min_length=1)
    evaluation: EvaluationConfig = Field(EvaluationConfig())

    @model_validator(mode="after")
    def _weights_know_their_data(self) -> Self:
        for name in ("keep_aspect", "max_words"):
            if getattr(self.model, name) != getattr(self.data, name):
                remedy = "weights keep how data were prepared: make them equal"
                raise ValueError(f"model.{name} and data.{name} differ; {remedy}")
        return self

    def key(self) -> str:
        """12 hexadecimal digits of the SHA-256 of these settings: equal settings, equal key. Settings at their default
        are left out, so that a new setting leaves the keys of earlier records alone; so are the folders of weights."""
        settings = self.model_dump(mode="json", exclude_defaults=True)
        for encoder in settings["model"].values():
            if isinstance(encoder, dict) and "weights" in encoder:
                del encoder["name"]
        text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def record_name(config: RunConfig) -> str:
    """The name of the folder that holds a run's record."""
    return f"{config.variant}-seed{config.seed}-{config.key()}"
