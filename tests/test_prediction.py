"""Photographs of any kind, mode and orientation to masks at their own size, from Python and from the command line."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import refstudy.models.saved
import refstudy.prediction.predict
from refstudy.base.errors import StudyError
from refstudy.cli import app
from refstudy.data.masks import decode_mask, mask_box
from refstudy.data.pictures import find_photos
from refstudy.data.words import build_tokenizer, strange_words
from refstudy.models.build import build_model, load_model, save_weights
from refstudy.prediction.predict import confidence, predict, read_expressions, read_photo, segment_photo

from .conftest import tiny_model
from .test_models import variant_config

pytestmark = pytest.mark.numeric

EXPRESSIONS = ["the red car", "the dog on the left"]
ORIENTATION = 0x0112  # the EXIF tag


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny untrained model, as ``save_weights`` leaves it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(build_model(tiny_model()), path)
    return path


@pytest.fixture(scope="module")
def model(weights):
    return load_model(weights)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    colours().save(path)
    return path


def colours(height=48, width=80):
    """A picture whose four quarters differ."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 220, 30, 30
    pixels[: height // 2, width // 2 :] = 30, 200, 30
    pixels[height // 2 :, : width // 2] = 30, 30, 210
    pixels[height // 2 :, width // 2 :] = 240, 240, 240
    return Image.fromarray(pixels)


def run(*arguments):
    """The command line's exit status, output, and the StudyError that ``main`` would print."""
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, StudyError | SystemExit), result.exception
    return result


def test_masks_have_the_photos_own_size_and_follow_from_the_probabilities(model):
    pixels = np.asarray(colours(50, 90))
    answers = segment_photo(model, pixels, EXPRESSIONS)
    small = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR))
    for answer, probability in zip(answers, predict(model, small, EXPRESSIONS), strict=True):
        assert answer.mask.shape == (50, 90) and answer.mask.dtype == bool
        whole = np.asarray(Image.fromarray(probability).resize((90, 50), Image.Resampling.BILINEAR))
        away = np.abs(whole - 0.5) > 0.05  # Pillow averages where it makes smaller, so it is a near expectation only
        assert (answer.mask == (whole > 0.5))[away].mean() > 0.98
        assert answer.score == pytest.approx(confidence(whole), abs=0.02)


def test_a_photo_of_the_models_size_is_answered_as_predict_does(model):
    pixels = np.asarray(colours(64, 64))
    expected = predict(model, pixels, EXPRESSIONS)
    for answer, probability in zip(segment_photo(model, pixels, EXPRESSIONS), expected, strict=True):
        assert (answer.mask == (probability > 0.5)).all()
        assert answer.score == confidence(probability)


@pytest.mark.parametrize("variant", ["lavt", "slvit"])
def test_models_without_late_fusion_answer_several_expressions_as_one_by_one(variant):
    torch.manual_seed(0)
    model = build_model(variant_config(variant)).eval()
    pixels = np.asarray(colours())
    together = segment_photo(model, pixels, EXPRESSIONS)
    for answer, text in zip(together, EXPRESSIONS, strict=True):
        (alone,) = segment_photo(model, pixels, [text])
        assert answer.score == pytest.approx(alone.score, abs=1e-4)


def test_confidence_is_that_of_the_marked_pixels():
    probability = np.full((2, 2), 0.1)
    assert confidence(probability) == pytest.approx(0.1)
    probability[0] = 0.6, 0.8
    assert confidence(probability) == pytest.approx(0.7)


def test_the_box_is_the_smallest_around_the_mask():
    mask = np.zeros((9, 12), bool)
    assert mask_box(mask) is None
    mask[2:5, 7] = mask[4, 3:8] = True
    assert mask_box(mask) == (3, 2, 5, 3)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("grey.png", lambda picture: picture.convert("L")),
        ("grey_alpha.png", lambda picture: picture.convert("LA")),
        ("palette.png", lambda picture: picture.convert("P")),
        ("cmyk.jpg", lambda picture: picture.convert("CMYK")),
        ("one_bit.png", lambda picture: picture.convert("1")),
    ],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path, name, change):
    changed = change(colours())
    changed.save(tmp_path / name, **({"quality": 100} if name.endswith("jpg") else {}))
    pixels = read_photo(tmp_path / name)
    assert pixels.shape == (48, 80, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(changed.convert("RGB"), int)).mean() < 6


@pytest.mark.parametrize("name", ["moving.gif", "deep.pgm", "several pages é.tiff", "SHOUTING.JPG"])
def test_other_pictures_give_what_is_seen_first(tmp_path, name):
    first, second = colours(), Image.fromarray(np.zeros((48, 80, 3), np.uint8))
    if name == "deep.pgm":
        grey = np.asarray(first.convert("L"))
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / name)
        expected = grey[..., None].repeat(3, 2)
    else:
        more = {} if name.endswith("JPG") else {"save_all": True, "append_images": [second]}
        first.save(tmp_path / name, **more)
        expected = np.asarray(first)
    assert find_photos(tmp_path) == ([tmp_path / name], [])
    assert np.abs(read_photo(tmp_path / name).astype(int) - expected).mean() < 6


def test_a_folder_of_pictures_has_no_documents_in_it(tmp_path):
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.4")
    colours().save(tmp_path / "a.webp")
    assert find_photos(tmp_path) == ([tmp_path / "a.webp"], [tmp_path / "notes.pdf"])


def test_transparency_is_white(tmp_path):
    pixels = np.asarray(colours().convert("RGBA")).copy()
    pixels[:, :40, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    read = read_photo(tmp_path / "cut.png")
    assert (read[:, :40] == 255).all() and (read[:, 40:] == pixels[:, 40:, :3]).all()


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(8, 0)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert (read_photo(tmp_path / "ramp.png")[..., 0] == np.rint(ramp / 257)).all()


def test_the_camera_is_turned_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored lying on its left side: to be turned clockwise
    upright = np.asarray(colours())
    Image.fromarray(np.rot90(upright)).save(tmp_path / "turned.png", exif=exif)
    assert (read_photo(tmp_path / "turned.png") == upright).all()


def test_what_is_no_picture_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "text.jpg").write_text("no picture")
    colours().save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:100])
    colours().save(tmp_path / "huge.png")
    for name in ("text.jpg", "cut.png"):
        with pytest.raises(StudyError, match=f"{name}: image does not decode.*save it as JPEG or PNG"):
            read_photo(tmp_path / name)
    with pytest.raises(StudyError, match=r"none\.png: image not found"):
        read_photo(tmp_path / "none.png")
    for most in (3000, 1000):  # Pillow warns from once, and stops from twice as many pixels on
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(StudyError, match=f"more than {most} pixels; make it smaller"):
            read_photo(tmp_path / "huge.png")


def test_words_that_the_vocabulary_lacks_are_named():
    tokenizer = build_tokenizer()
    assert strange_words(tokenizer, "the Red walrus über a car") == ["walrus", "über"]
    assert strange_words(tokenizer, "a dog") == []


def test_an_expression_is_clipped_to_twenty_pieces_with_both_ends():
    model = build_model(tiny_model())
    eighteen = " ".join(["the red car on the left"] * 3)
    whole, longer = read_expressions(model, [eighteen, eighteen + " side"])
    assert not whole.clipped and longer.clipped
    assert whole.text == longer.text == eighteen


def test_where_an_expression_is_clipped_goes_with_the_weights(tmp_path):
    model = build_model(tiny_model().model_copy(update={"max_words": 5}))
    save_weights(model, tmp_path / "short.safetensors")
    short = load_model(tmp_path / "short.safetensors")
    (reading,) = read_expressions(short, ["the red car on the left"])
    assert reading.clipped and reading.text == "the red car"
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    clipped, same, longer = (predict(short, image, [text]) for text in ("the red car on it", "the red car", "the red"))
    assert np.array_equal(clipped, same) and not np.array_equal(same, longer)


@pytest.mark.parametrize("expressions", [[], [""], ["a dog", "  "], ["\u200b"]])
def test_nothing_to_look_for_is_refused(model, expressions):
    with pytest.raises(StudyError, match="say what to look for"):
        segment_photo(model, np.zeros((8, 8, 3), np.uint8), expressions)


def test_a_text_in_place_of_a_list_and_odd_arrays_are_refused(model):
    pixels = np.asarray(colours())
    with pytest.raises(StudyError, match="one text, 'a dog'; give a list of texts"):
        segment_photo(model, pixels, "a dog")
    for odd in (pixels / 255, pixels[..., 0], pixels.transpose(2, 0, 1), np.dstack([pixels, pixels[..., 0]])):
        with pytest.raises(StudyError, match=r"give uint8 \(H, W, 3\), or a file"):
            segment_photo(model, odd, ["a dog"])


def test_a_picture_of_pillow_is_answered_as_its_file_is(model, tmp_path):
    picture = colours().convert("P")
    picture.save(tmp_path / "photo.png")
    (of_file,), (ours,) = (segment_photo(model, photo, ["a dog"]) for photo in (tmp_path / "photo.png", picture))
    assert np.array_equal(of_file.mask, ours.mask) and of_file.score == ours.score


def test_an_empty_mask_is_told(photo, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(refstudy.prediction.predict, "THRESHOLD", 1.0)
    result = run(photo, "a dog", "--weights", weights, "--output", tmp_path / "out")
    assert result.exit_code == 0 and "1 of 1 photos" in result.output
    assert f"note: {photo}: nothing is marked for “a dog”; no pixel is more probable than 0." in result.stderr


def test_the_command_writes_masks_overlays_and_json(photo, weights, model, tmp_path):
    output = tmp_path / "out"
    result = run(photo, *EXPRESSIONS, "--weights", weights, "--output", output)
    assert result.exit_code == 0 and "1 of 1 photos" in result.output
    content = json.loads((output / "photo.json").read_text())
    assert content["size"] == [48, 80] and content["model"] == "tiny.safetensors"
    expected = segment_photo(model, photo, EXPRESSIONS)
    assert len(list(output.iterdir())) == 1 + 2 * len(EXPRESSIONS)
    for line, answer in zip(content["predictions"], expected, strict=True):
        mask = np.asarray(Image.open(output / line["mask"]))
        assert (mask == 255 * answer.mask).all()
        assert (decode_mask(line["rle"], 48, 80) == answer.mask).all()
        assert line["expression"] == answer.expression and line["score"] == pytest.approx(answer.score, abs=1e-5)
        assert line["box"] == (list(answer.box) if answer.box else None)
        assert Image.open(output / line["overlay"]).size == (320, 192)  # large enough to see


def test_a_folder_goes_on_past_what_does_not_decode(weights, tmp_path):
    folder, output = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    colours().save(folder / "a.png")
    (folder / "b.jpg").write_text("no picture")
    colours().save(folder / "c.png")
    colours().save(folder / "a.jpg")  # same name but for the suffix
    (folder / "notes.txt").write_text("not asked for")
    result = run(folder, "a dog", "--weights", weights, "--output", output)
    assert result.exit_code == 1
    assert "3 of 4 photos" in result.output
    assert [line for line in result.stderr.splitlines() if line.startswith("error:")] == [
        f"error: {line}" for line in _errors(folder / "b.jpg")
    ]
    assert {path.name for path in output.glob("*.json")} == {"a.png.json", "a.jpg.json", "c.png.json"}


def test_a_photo_whose_masks_cannot_be_written_is_named_and_the_others_are_answered(weights, tmp_path):
    folder, output = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    long = "a" * 240
    for name in (long, "b"):
        colours().save(folder / f"{name}.png")
    result = run(folder, "a dog on the left", "--weights", weights, "--output", output)
    assert result.exit_code == 1 and "1 of 2 photos" in result.output
    assert f"{long}.png: cannot be written to {output}; shorten its name or make room (File name too long)" in (
        result.stderr.replace("\n", "")
    )
    assert {path.name for path in output.iterdir()} == {
        f"b_1-a-dog-on-the-left-{of}.png" for of in ("mask", "overlay")
    } | {"b.json"}


def _errors(path):
    with pytest.raises(StudyError) as caught:
        read_photo(path)
    return [str(caught.value)]


def test_no_expression_leads_out_of_the_output_folder(photo, weights, tmp_path):
    output = tmp_path / "deep" / "out"
    texts = ["../../dog", "/etc/car", "a dog\x00", "dog " * 300, "über", "2 dog", "..."]
    assert run(photo, *texts, "--weights", weights, "--output", output).exit_code == 0
    assert len(list(output.iterdir())) == 1 + 2 * len(texts)
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "deep"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_earlier_outputs_stay_unless_told(photo, weights, tmp_path):
    call = (photo, "a dog", "--weights", weights, "--output", tmp_path / "out")
    assert run(*call).exit_code == 0
    (tmp_path / "out" / "photo.json").write_text("mine")
    assert "give --overwrite or another --output" in str(run(*call).exception)
    assert (tmp_path / "out" / "photo.json").read_text() == "mine"
    assert run(*call, "--overwrite").exit_code == 0
    assert json.loads((tmp_path / "out" / "photo.json").read_text())["image"] == str(photo)


def test_what_the_model_does_not_read_is_said(photo, weights, tmp_path):
    long = "the walrus " + "near the red car " * 6
    result = run(photo, long.strip(), "--weights", weights, "--output", tmp_path / "out")
    assert "is clipped to 20 word pieces" in result.stderr
    assert "the model does not know walrus" in result.stderr


def test_bad_input_ends_in_one_line(photo, weights, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    other = Path(__file__).resolve().parents[1] / "results" / "scenes" / "weights" / "encoders.safetensors"
    out = ("--output", tmp_path / "out")
    for call, message in (
        ((tmp_path / "none.jpg", "a dog", "--weights", weights), "image not found"),
        ((tmp_path / "empty", "a dog", "--weights", weights), "no pictures"),
        ((photo, " ", "--weights", weights), "say what to look for"),
        ((photo, "a dog", "--weights", other), "no model weights of refstudy"),
        ((photo, "a dog", "--weights", photo), "no model weights of refstudy"),
        ((photo, "a dog", "--weights", tmp_path / "empty"), "no model weights of refstudy"),
        ((photo, "a dog", "--weights", weights.parent), "name one of its files: tiny.safetensors"),
        ((photo, "a dog", "--weights", tmp_path / "none.safetensors"), "none.safetensors: not found"),
    ):
        result = run(*call, *out)
        assert isinstance(result.exception, StudyError) and message in str(result.exception)
        assert len(str(result.exception).splitlines()) == 1
    taken = run(photo, "a dog", "--weights", weights, "--output", photo).exception
    assert "cannot be written to" in str(taken) and "give another --output" in str(taken)
    monkeypatch.setattr(refstudy.models.saved, "SHIPPED_WEIGHTS", tmp_path / "no.safetensors")
    assert "give --weights" in str(run(photo, "a dog", *out).exception)
    assert not (tmp_path / "out").exists()


def test_real_photographs_through_a_saved_folder(real_sample, model, tmp_path):
    """A few of COCO's photographs, colour and size as they come, with the model from a ``save_pretrained`` folder."""
    model.save_pretrained(tmp_path / "model")
    photos = sorted((real_sample / "coco_small" / "images").glob("*.jpg"))[:3]
    (tmp_path / "photos").mkdir()
    for path in photos:
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    output = tmp_path / "out"
    result = run(tmp_path / "photos", *EXPRESSIONS, "--weights", tmp_path / "model", "--output", output)
    assert result.exit_code == 0
    for path in photos:
        content = json.loads((output / f"{path.stem}.json").read_text())
        width, height = Image.open(path).size
        assert content["size"] == [height, width]
        for line in content["predictions"]:
            assert decode_mask(line["rle"], height, width).shape == (height, width)
            assert 0 <= line["score"] <= 1


def test_the_first_command_of_the_readme_ends_in_overlays(tmp_path, monkeypatch):
    root = Path(__file__).resolve().parents[1]
    (line,) = (
        line for line in (root / "README.md").read_text("utf-8").splitlines() if line.startswith("refstudy predict")
    )
    arguments = shlex.split(line, comments=True)[1:]
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    answers = json.loads((tmp_path / "scene.json").read_text())["predictions"]
    assert len(list(tmp_path.glob("*overlay.png"))) == len(answers) == 2
    assert all(answer["box"] for answer in answers)  # something is marked
