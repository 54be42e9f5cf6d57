"""python -m jaxnets predict: pictures of all kinds, the run folder, and what is printed."""

import functools
import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
from conftest import read_json, slow
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from served import SoftmaxRun

import train
from benchmarks.digits import PAPERS, as_picture, page_of, row_of
from jaxnets.base.errors import DONE
from jaxnets.data.pictures.decode import BadPictureError
from jaxnets.predict import answer
from jaxnets.predict.digit import otsu, to_digit, to_digits
from jaxnets.predict.predict import load_predictor

COUNT, FEW = 200, 60  # MNIST test images in the tests of preprocessing: small and large ones.


@pytest.fixture(scope="session")
def mnist_run(tmp_path_factory):
    """A run on MNIST: a dense network, an epoch of which takes a second."""
    folder = tmp_path_factory.mktemp("runs") / "mlp"
    flags = ["--model=mlp_functional", "--epochs=1", "--devices=1", f"--workdir={folder}"]
    assert train.main(flags) == DONE
    return folder


@pytest.fixture(scope="session")
def predictor(mnist_run):
    return load_predictor(str(mnist_run))


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory):
    """A checkpoint of softmax regression on colour pictures of 72 x 72 with three classes."""
    names = ("cat", "\x1b[31mdog\n", "鸟")
    run = SoftmaxRun(tmp_path_factory.mktemp("runs") / "colour", names=names, shape=(72, 72, 3))
    run.folder.close()
    return run.path


@pytest.fixture
def predict(run_command):
    """Runs `python -m jaxnets predict` in this process."""
    return functools.partial(run_command, "predict")


@pytest.fixture(scope="session")
def digits(mnist):
    """The first test images as bytes [N, 28, 28], and their labels."""
    images = np.rint(255 * mnist.test.images[:COUNT, ..., 0]).astype(np.uint8)
    return images, mnist.test.labels[:COUNT]


def drawn_seven(mode="L", width=14, ink=20, paper=240, size=(400, 300)):
    """A seven as a pen writes it."""
    picture = Image.new("L", size, paper)
    ImageDraw.Draw(picture).line([(130, 60), (230, 60), (170, 240)], ink, width, joint="curve")
    return picture.convert(mode)


@pytest.fixture
def seven(tmp_path):
    """A file with a seven."""
    drawn_seven().save(tmp_path / "seven.png")
    return tmp_path / "seven.png"


def enlarged(image, times=10):
    side = 28 * times
    large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    return ndimage.gaussian_filter(np.asarray(large, np.float32), 0.15 * times)


def on_canvas(image, rng, height=300, width=400, times=8):
    canvas = np.zeros((height, width), np.float32)
    ink = enlarged(image, times)
    top, left = rng.integers(0, height - len(ink) + 1), rng.integers(0, width - len(ink) + 1)
    canvas[top : top + len(ink), left : left + len(ink)] = ink
    return canvas


def photographed(image, rng):
    """Ink of a quarter of the light on paper of 0.85, half of it lost across, and noise."""
    ink = np.clip(on_canvas(image, rng, times=int(rng.integers(5, 10))) / 255, 0, 1)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-0.5:0.5:300j, -0.5:0.5:400j]
    light = 0.75 - 0.5 * (y * np.sin(angle) + x * np.cos(angle))
    return 255 * (light * (0.85 - 0.6 * ink) + rng.normal(0, 0.03, ink.shape))


# Digits


# How a digit comes, of how many images, and how much accuracy may be lost. A mistake more is 0.017
# of the few. Without paper around it a digit is harder to tell from what it encloses: README.md
# asks for a margin.
DISGUISES = {
    "as it is": (COUNT, 0, lambda image, rng: image),
    "inverted": (COUNT, 0, lambda image, rng: 255 - image),
    "with a margin": (COUNT, 0.02, lambda image, rng: np.pad(image, 6)),
    "cut to its box": (COUNT, 0.08, lambda image, rng: image[4:24, 4:24]),
    "enlarged and blurred": (FEW, 0.02, lambda image, rng: enlarged(image)),
    "on a canvas, off its centre": (FEW, 0.02, on_canvas),
    "on white paper": (FEW, 0.02, lambda image, rng: 255 - on_canvas(image, rng)),
    "a photo": (FEW, 0.02, photographed),
}
SLOW = ("a photo", "on a canvas, off its centre", "on white paper", "enlarged and blurred")


@pytest.mark.parametrize(
    ("count", "loss", "disguise"),
    [slow(*how, id=name) if name in SLOW else how for name, how in DISGUISES.items()],
    ids=DISGUISES,
)
def test_digits_are_recognized_however_they_come(predictor, digits, count, loss, disguise):
    images, labels = (part[:count] for part in digits)
    rng = np.random.default_rng(0)
    converted = []
    for image in images:
        try:
            converted.append(to_digit(as_picture(disguise(image, rng))))
        except BadPictureError:
            converted.append(np.zeros_like(image))  # No ink was found.
    raw, found = (
        predictor.probabilities(np.array(batch)[..., None]).argmax(axis=1) == labels
        for batch in (images, converted)
    )
    assert found.mean() >= raw.mean() - loss
    if loss == 0:
        np.testing.assert_array_equal(converted, images)


@pytest.mark.parametrize("width", [3, 8, 14, 30])
@pytest.mark.parametrize("ink, paper", [(20, 240), (240, 20), (110, 170)])
def test_ink_fills_the_box_and_is_centred(width, ink, paper):
    image = to_digit(drawn_seven(width=width, ink=ink, paper=paper))
    assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    rows, columns = (np.flatnonzero((image > 127).any(axis)) for axis in (1, 0))
    assert 19 <= np.ptp(rows) + 1 <= 20 and np.ptp(columns) + 1 < 20
    # Pixel i covers i to i + 1 here; MNIST's own centres lie from 13.5 to 14.5.
    np.testing.assert_allclose(ndimage.center_of_mass(image.astype(float)), 14, atol=0.6)
    assert image[0].max() == 0 and image.max() > 200


def test_thin_strokes_alone_are_thickened():
    mass = {width: to_digit(drawn_seven(width=width)).sum() / 255 for width in (2, 4, 8, 14, 30)}
    assert mass[2] > 45  # A line of 2 pixels in 180, only scaled, would leave 0.2 pixels: 7.
    assert abs(mass[2] - mass[8]) < 0.25 * mass[8]
    assert mass[30] > 1.4 * mass[14]


def test_dirt_and_the_edge_of_the_paper_are_no_ink():
    clean = to_digit(drawn_seven())
    dirty = drawn_seven()
    draw_on = ImageDraw.Draw(dirty)
    draw_on.rectangle((0, 0, 20, 300), 30)  # The table that the paper lies on.
    for x, y in ((300, 40), (350, 200), (330, 270)):
        draw_on.ellipse((x, y, x + 4, y + 4), 0)
    difference = np.abs(to_digit(dirty).astype(float) - clean).mean()
    assert difference < 2


RANDOM, RAMP = np.random.default_rng(0), np.linspace(250, 90, 300)[None].repeat(200, 0)
BLANKS = {
    "white": np.full((28, 28), 255),
    "black": np.zeros((200, 300)),
    "one pixel": np.zeros((1, 1)),
    "a line": np.zeros((1, 500)),
    "noise": 200 + RANDOM.normal(0, 8, (200, 300)),
    "white noise": RANDOM.integers(0, 256, (200, 300)),
    "a gradient": RAMP,
    "a gradient with noise": RAMP + RANDOM.normal(0, 8, RAMP.shape),
}


@pytest.mark.parametrize("name", BLANKS)
def test_paper_without_ink_is_told(name):
    for read in (to_digit, to_digits):
        with pytest.raises(BadPictureError, match="no ink found"):
            read(as_picture(BLANKS[name]))


def test_otsu_parts_two_heaps_where_the_variance_within_is_least():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.2, 0.05, 900), rng.normal(0.8, 0.05, 100)])

    def within(threshold):
        below, above = values[values <= threshold], values[values > threshold]
        return len(below) * below.var() + len(above) * above.var()

    best = min(within(t) for t in np.linspace(values.min(), values.max(), 400)[1:-1])
    assert within(otsu(values)) <= best * 1.001


# Several digits


def typed(text, size=100, ink=20, paper=240, margin=60):
    """A text in Pillow's own font."""
    font = ImageFont.load_default(size)
    draw_on = ImageDraw.Draw(Image.new("L", (1, 1)))
    _, _, right, bottom = draw_on.multiline_textbbox((0, 0), text, font, spacing=40)
    picture = Image.new("L", (round(right) + 2 * margin, round(bottom) + 2 * margin), paper)
    ImageDraw.Draw(picture).multiline_text((margin, margin), text, ink, font, spacing=40)
    return picture


@pytest.mark.parametrize(
    "paper",
    [slow(p, id=name) if name == "white paper" else p for name, p in PAPERS.items()],
    ids=PAPERS,
)
def test_digits_in_a_row_are_read_from_the_left(predictor, digits, paper):
    images, labels = digits
    raw = predictor.probabilities(images[..., None]).argmax(axis=1)
    rng, right, read = np.random.default_rng(0), 0, []
    for _ in range(12):
        chosen = rng.integers(0, COUNT, rng.integers(3, 7))
        lines = to_digits(as_picture(paper(page_of([row_of(images[chosen], rng)]), rng)))
        if [len(line) for line in lines] == [len(chosen)]:
            right += 1
            found = predictor.probabilities(np.array(lines[0])[..., None]).argmax(axis=1)
            read += zip(found == labels[chosen], raw[chosen] == labels[chosen], strict=True)
    assert right >= 11
    good, best = np.mean(read, axis=0)
    assert good >= best - 0.05


def marked(text, *, lines=(), dots=(), boxes=(), dark=30):
    """A typed text with other marks on the paper."""
    picture = typed(text)
    draw_on = ImageDraw.Draw(picture)
    for line in lines:
        draw_on.line(line, 120, 2)
    for x, y in dots:
        draw_on.ellipse((x, y, x + 5, y + 5), dark)
    for box in boxes:
        draw_on.rectangle(box, dark)
    return picture


def broken_five():
    """A five whose bar is apart, beside a one."""
    picture = Image.new("L", (400, 300), 240)
    draw_on = ImageDraw.Draw(picture)
    draw_on.arc((100, 120, 200, 230), -120, 130, 20, 12)
    draw_on.line([(125, 70), (122, 128)], 20, 12)
    draw_on.line([(145, 68), (205, 62)], 20, 12)
    draw_on.line([(300, 60), (290, 230)], 20, 12)
    return picture


SCRATCHES = np.random.default_rng(1).integers(10, 200, (50, 2)).tolist()
ACROSS = [(0, y, 999, y + 6) for y in range(25, 300, 40)]
DOWN = [(x, 0, x, 999) for x in range(15, 500, 40)]
# How many characters each line of the picture has.
WRITINGS = {
    "spaces": (typed("1 4 7"), [3]),
    "none": (typed("147"), [3]),
    "one": (typed("8"), [1]),
    "lines": (typed("147\n25\n3 6 9"), [3, 2, 3]),
    "light on dark": (typed("147\n25", ink=230, paper=15), [3, 2]),
    "sloping": (typed("1 2 3 4 5 6").rotate(8, expand=True, fillcolor=240), [6]),
    "a phone number": (typed("0123456789 9876543210", 60), [20]),
    "small": (typed("147", 20, margin=15), [3]),
    "large": (typed("1 4 7").resize((4000, 3000)), [3]),
    "dashes and a point": (typed("030-12.5"), [6]),
    "dust": (marked("1 4 7", dots=SCRATCHES), [3]),
    "a dot near a one": (marked("1 4", dots=[(85, 55)]), [2]),
    "the table's edge": (marked("147", boxes=[(0, 0, 20, 999), (0, 205, 999, 999)]), [3]),
    "ruled": (marked("147", lines=ACROSS), [3]),
    "squared": (marked("147", lines=ACROSS + DOWN), [3]),
    "a broken five": (broken_five(), [2]),
    "touching": (marked("147", boxes=[(100, 100, 200, 110)]), [1]),
}


@pytest.mark.parametrize("name", WRITINGS)
def test_characters_are_counted(name):
    picture, counts = WRITINGS[name]
    lines = to_digits(picture)
    assert [len(line) for line in lines] == counts
    assert {image.shape for line in lines for image in line} == {(28, 28)}
    if sum(counts) > 1:
        with pytest.raises(BadPictureError, match=f"expected one character, found {sum(counts)}:"):
            to_digit(picture, single=True)
    else:
        np.testing.assert_array_equal(to_digit(picture, single=True), to_digit(picture))


def test_a_picture_of_anything_else_is_no_writing():
    specks = np.kron(np.random.default_rng(0).random((100, 200)) < 0.1, np.ones((6, 6)))
    with pytest.raises(BadPictureError, match=r"expected writing, found 1,\d+ parts of ink"):
        to_digits(as_picture(240 - 220 * specks))
    page = Image.new("L", (400, 300), 240)
    for line in ACROSS:
        ImageDraw.Draw(page).line(line, 120, 2)
    with pytest.raises(BadPictureError, match="no ink found"):
        to_digits(page)


@pytest.mark.slow
def test_a_single_digit_is_never_taken_for_several(digits):
    """Neither MNIST's own nor drawn ones, thin strokes of a large picture among them."""
    rng = np.random.default_rng(0)
    for disguise in ("as it is", "inverted", "with a margin", "on white paper"):
        for image in digits[0][:FEW]:
            to_digit(as_picture(DISGUISES[disguise][2](image, rng)), single=True)
    for width in (2, 3, 8, 14, 30):
        for ink, paper in ((20, 240), (240, 20)):
            to_digit(drawn_seven(width=width, ink=ink, paper=paper), single=True)
    to_digit(drawn_seven(width=2, size=(2000, 1500)), single=True)


def test_predict_reads_several_digits_or_says_that_there_are(
    predict, mnist_run, tmp_path, monkeypatch, predictor
):
    several, one = tmp_path / "several.jpg", tmp_path / "one.png"
    picture = typed("257\n30")
    turned = Image.Exif()
    turned[0x0112] = 6  # The camera was held upright: a viewer turns the picture by 90 degrees.
    picture.rotate(90, expand=True).save(several, exif=turned)
    drawn_seven().save(one)

    outcome = predict(mnist_run, several, one, "--top=1")
    assert outcome.status == 2 and outcome.out.startswith(f"{one}\t7\t")
    message = "expected one character, found 5: prepare=digits reads each"
    assert outcome.err == f"error: {several}: {message}\n"
    assert predict(mnist_run, several, "--prepare=digit").status == 0  # That is what the user says.

    outcome = predict(mnist_run, several, one, "--prepare=digits", "--json", "--top=2")
    assert (outcome.status, outcome.err) == (0, "")
    first, second = json.loads(outcome.out)
    assert (first["image"], first["text"], second["text"]) == (str(several), "257\n30", "7")
    assert [each["line"] for each in first["characters"]] == [1, 1, 1, 2, 2]
    (expected,) = predictor([drawn_seven()])
    best = np.argsort(-expected)[:2]
    whole = [{"label": str(k), "probability": pytest.approx(expected[k], rel=1e-5)} for k in best]
    assert second["characters"] == [{"line": 1, "predictions": whole}]

    outcome = predict(mnist_run, several, "--prepare=digits")
    rows = [line.split("\t") for line in outcome.out.splitlines()]
    assert [(name, text) for name, text, *_ in rows] == [
        (str(several), "257"),
        (str(several), "30"),
    ]
    assert [len(row) for row in rows] == [5, 4]
    sure = [each["predictions"][0]["probability"] for each in first["characters"]]
    assert [float(p) for row in rows for p in row[2:]] == pytest.approx(sure, abs=1e-6)

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    outcome = predict(mnist_run, several, "--prepare=digits", "--top=2")
    name, text, first_digit, *rest = outcome.out.splitlines()
    assert (name, text) == (str(several), "    257") and "    30" in rest
    assert first_digit.startswith("    2 0.") and first_digit.count(".") == 2


# Photos


def test_a_photo_is_cut_as_the_data_set_cuts(colour_run):
    predictor = load_predictor(str(colour_run))
    assert predictor.prepare_as == "picture"
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (144, 200, 3), np.uint8))
    # Pillow's own: the middle 144 x 144 reduced by 2, each pixel from the triangle over 4 x 4.
    middle = photo.crop((28, 0, 172, 144)).resize((72, 72), Image.Resampling.BILINEAR)
    inner = (slice(1, -1), slice(1, -1))  # At the edges Pillow may look beyond the cut.
    stored = predictor.prepare(photo)
    np.testing.assert_allclose(stored[inner].astype(int), np.asarray(middle)[inner], atol=1)
    grey = drawn_seven(size=(100, 100))
    assert predictor.prepare(grey).shape == (72, 72, 3)
    rows = predictor([photo, grey, photo])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(rows[0], rows[2])


def test_probabilities_are_an_evaluations_of_any_number_of_pictures(predictor, mnist_run, mnist):
    """From those of all test images follow the loss and accuracy that train.py wrote."""
    images = np.rint(255 * mnist.test.images).astype(np.uint8)
    probabilities = predictor.probabilities(images).astype(np.float64)
    result = read_json(mnist_run / "result.json")
    hits = probabilities.argmax(axis=1) == mnist.test.labels
    assert hits.mean() == pytest.approx(result["test_accuracy"], abs=1e-9)
    picked = probabilities[np.arange(len(images)), mnist.test.labels]
    assert -np.log(picked).mean() == pytest.approx(result["test_loss"], rel=1e-4)
    for count in (0, 1, 3, 129):
        some = predictor.probabilities(images[:count])
        assert some.shape == (count, 10)
        np.testing.assert_allclose(some, probabilities[:count], rtol=1e-4, atol=1e-7)


# The run folder


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"image_shape": None}, ["expected image_shape as [H, W, 1 or 3]", "class_names as 2 to"]),
        ({"image_shape": [10**9, 28, 1]}, ["image_shape"]),
        ({"class_names": [1] * 10}, ["class_names"]),
        ({"class_names": ["a", "b"]}, ["expected the network that config.json"]),
        ({"hidden": [128]}, ["expected the network that config.json describes", "hidden"]),
        ({"hidden": [65536] * 3}, ["expected the network that config.json describes"]),
        ({"hidden": "64"}, ["damaged", "hidden"]),
        ({"model": "resnet"}, ["unknown model"]),
        ({"model": None}, ["expected the config of a run, found no model"]),
        ({"precision": "int4"}, ["unknown precision"]),
    ],
)
def test_a_config_of_another_run_is_one_line(predict, mnist_run, tmp_path, values, parts):
    """None takes a value out of config.json."""
    folder = shutil.copytree(mnist_run, tmp_path / "run")
    config = read_json(folder / "config.json") | values
    for name in [name for name, value in values.items() if value is None]:
        del config[name]
    (folder / "config.json").write_text(json.dumps(config))
    predict(folder, tmp_path / "any.png").assert_refused(*parts)


def test_a_folder_without_run_or_checkpoint_is_one_line(predict, mnist_run, tmp_path):
    predict(tmp_path / "no", "any.png").assert_refused("expected a run folder, found no config")
    predict(tmp_path, "any.png").assert_refused("expected a run folder, found no config")
    for text in ("", "{", "[]", "7", "[" * 100_000, "\0\xff"):
        (tmp_path / "config.json").write_text(text)
        predict(tmp_path, "any.png").assert_refused("config.json")
    shutil.copy(mnist_run / "config.json", tmp_path)
    predict(tmp_path, "any.png").assert_refused("checkpoints: no checkpoint of a trained network")
    (tmp_path / "checkpoints").mkdir()
    predict(tmp_path, "any.png").assert_refused("checkpoints: no checkpoint of a trained network")


DAMAGES = {
    "cut short": lambda content: content[: len(content) // 2],
    "one bit flipped": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "emptied": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_checkpoint_whose_files_are_damaged_is_one_line(
    predict, mnist_run, tmp_path, seven, damage
):
    """The one before a damaged one is used; where all are damaged, the error is one line."""
    folder = shutil.copytree(mnist_run, tmp_path / "run")
    (sound,) = (folder / "checkpoints").iterdir()
    damaged = sound.with_name("10000000.safetensors")
    damaged.write_bytes(damage(sound.read_bytes()))
    outcome = predict(folder, "--top=1", seven)
    assert (outcome.status, outcome.out.split("\t")[1]) == (0, "7")
    assert outcome.err.startswith(f"warning: {damaged}: cannot be restored: ")
    assert outcome.err.endswith(f"; using step {sound.stem}\n") and outcome.err.count("\n") == 1
    assert damaged.exists()  # Nothing is written: a run may be training in the folder.
    sound.unlink()
    predict(folder, seven).assert_refused(f"{damaged}: cannot be restored")


def test_an_interrupted_run_predicts_says_so_and_is_only_read(predict, mnist_run, tmp_path, seven):
    folder = shutil.copytree(mnist_run, tmp_path / "run")
    (folder / "result.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    outcome = predict(folder, seven)
    assert (outcome.status, outcome.out.split("\t")[1]) == (0, "7")
    assert outcome.err.startswith("note: the run is not finished") and "step 1719" in outcome.err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# The command line


def test_lines_and_json_have_name_label_and_probability(
    predict, mnist_run, tmp_path, predictor, seven
):
    colour, empty = tmp_path / "colour.png", tmp_path / "empty.png"
    drawn_seven("RGB").save(colour)
    empty.touch()
    (expected,) = predictor([drawn_seven()])
    best = np.argsort(-expected)[:3]

    outcome = predict(mnist_run, seven, "--top=3", colour)
    assert (outcome.status, outcome.err) == (0, "")
    rows = [line.split("\t") for line in outcome.out.splitlines()]
    assert rows == [[str(f), str(k), f"{expected[k]:.6f}"] for f in (seven, colour) for k in best]
    assert len(predict(mnist_run, seven, "--top=99").out.splitlines()) == 10
    assert len(predict(mnist_run, seven).out.splitlines()) == 5

    # JSON has whole floats, and only the good pictures.
    outcome = predict(mnist_run, "--json", "--top=3", empty, seven)
    assert (outcome.status, outcome.err) == (2, f"error: {empty}: empty file\n")
    whole = [{"label": str(k), "probability": pytest.approx(expected[k], rel=1e-6)} for k in best]
    assert json.loads(outcome.out) == [{"image": str(seven), "predictions": whole}]


def test_a_folder_gives_its_pictures_and_names_bad_ones(predict, mnist_run, tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.jpg", "a.PNG", ".hidden.png", "deeper/c.png"):
        drawn_seven().save(folder / name)
    (folder / "notes.txt").write_text("no picture, and not taken for one")
    Image.new("L", (50, 50), 99).save(folder / "blank.png")
    (folder / "cut.jpg").write_bytes((folder / "b.jpg").read_bytes()[:500])
    outcome = predict(mnist_run, folder, "--top=1")
    assert outcome.status == 2
    good = [line.split("\t")[0] for line in outcome.out.splitlines()]
    assert good == [str(folder / "a.PNG"), str(folder / "b.jpg")]
    blank, cut, note = outcome.err.splitlines()
    assert note == "note: files that are not read: 1 .txt"
    assert blank == f"error: {folder / 'blank.png'}: no ink found"
    assert cut.startswith(f"error: {folder / 'cut.jpg'}: ")
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    empty = predict(mnist_run, folder / "deeper", tmp_path / "none", tmp_path / "empty")
    assert empty.status == 2
    assert "empty: no pictures in this folder" in empty.err and "no such file" in empty.err


@pytest.mark.parametrize("root", ["", "test"])
def test_a_folder_of_class_folders_gives_the_pictures_within(predict, mnist_run, tmp_path, root):
    names = ["1/a.png", "7/b.png", "7/c.png"]
    folder = tmp_path / "pictures"
    for name in [*names, ".jaxnets/d.png", "7/deeper/e.png"]:
        (folder / root / name).parent.mkdir(parents=True, exist_ok=True)
        drawn_seven().save(folder / root / name)
    (folder / "loop").symlink_to(folder)
    (folder / root / "9").mkdir()
    outcome = predict(mnist_run, folder, "--top=1")
    assert (outcome.status, outcome.err) == (0, "")
    found = [line.split("\t")[0] for line in outcome.out.splitlines()]
    assert found == [str(folder / root / name) for name in names]
    answers = json.loads(predict(mnist_run, folder, "--json").out)
    assert [answer["image"] for answer in answers] == found


def test_a_picture_may_come_from_stdin(predict, mnist_run, monkeypatch, seven):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(seven.read_bytes())))
    outcome = predict(mnist_run, "-", "--top=1")
    assert (outcome.status, outcome.out.split("\t")[:2]) == (0, ["-", "7"])
    predict(mnist_run, "-", "-").assert_refused("- for stdin at most once")
    endless = io.BytesIO(bytes(answer.MAX_STDIN + 1_000))  # A pipe may never end, as /dev/zero.
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(endless))
    predict(mnist_run, "-").assert_refused(
        "error: -: expected at most 67,108,864 bytes, got more\n"
    )
    assert endless.tell() == answer.MAX_STDIN + 1


def test_names_are_escaped_where_they_are_printed(predict, colour_run, tmp_path, seven):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\x1b[2J\xff\n.png")
    shutil.copy(seven, name)
    outcome = predict(colour_run, name)
    assert outcome.status == 0 and len(outcome.out.splitlines()) == 3
    assert outcome.out.replace("\n", "").replace("\t", "").isprintable()
    assert r"\x1b[2J\udcff\n.png" in outcome.out and r"\x1b[31mdog\n" in outcome.out
    (found,) = json.loads(predict(colour_run, name, "--json").out)
    assert {row["label"] for row in found["predictions"]} == {"cat", "\x1b[31mdog\n", "鸟"}


def test_digits_need_a_run_on_digits(predict, colour_run, mnist_run):
    outcome = predict(colour_run, "seven.png", "--prepare=digit")
    outcome.assert_refused("digits are (28, 28, 1), the run has images (72, 72, 3)")
    cut = load_predictor(str(mnist_run), "picture").prepare(drawn_seven())
    assert np.median(cut) == 240  # Neither inverted nor cropped to the ink.


# Pictures in Python


def test_pictures_in_every_form_have_the_same_probabilities(predictor, seven):
    picture = Image.open(seven)
    one, two = predictor([picture]), predictor([picture, picture])  # A batch of each rounds alike.
    assert one.argmax() == 7 and one.sum() == pytest.approx(1, abs=1e-5)
    grey = np.asarray(picture)
    colours = np.repeat(grey[..., None], 3, axis=2)
    for given in (str(seven), seven, seven.read_bytes(), picture, grey, grey[..., None], colours):
        np.testing.assert_array_equal(predictor(given), one)
        np.testing.assert_array_equal(predictor([given, seven]), two)
    for many in (np.stack([grey, grey]), np.stack([colours, colours])):
        np.testing.assert_array_equal(predictor(many), two)
    np.testing.assert_array_equal(predictor(grey / 255), one)


def test_images_of_the_data_set_pass_unchanged(predictor, mnist, digits):
    images, _ = digits
    expected = predictor.probabilities(images[..., None])
    for given in (images, images[..., None], list(images), images.astype(int)):
        np.testing.assert_array_equal(predictor(given), expected)
    np.testing.assert_array_equal(predictor(mnist.test.images[:COUNT]), expected)
    first, second = predictor([images[0], images[0] / 255])
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(
        predictor(images[0]), predictor.probabilities(images[:1, ..., None])
    )
    assert predictor([]).shape == (0, 10)
    moved = np.roll(images[0], 5, axis=1)  # As a picture it would be centred.
    np.testing.assert_array_equal(predictor(moved), predictor.probabilities(moved[None, ..., None]))
    assert np.abs(predictor(moved) - predictor(Image.fromarray(moved))).max() > 0.01


def test_a_picture_that_cannot_be_read_is_named(predictor, seven):
    with pytest.raises(BadPictureError, match="^8.png: no such file$"):
        predictor([seven, "8.png"])
    with pytest.raises(BadPictureError, match="^picture 1 of 99 x 99: no ink found$"):
        predictor([seven, np.zeros((99, 99), np.uint8)])


ALONE = """
import sys, jax, jax.numpy as jnp
from jaxnets.predict.predict import load_predictor
load_predictor(sys.argv[1])
x = jnp.ones((1500, 1500))
print(jax.jit(lambda x: x @ x @ x @ x)(x).is_ready())
"""


@pytest.mark.slow
def test_a_process_that_predicts_computes_in_its_own_thread(mnist_run, run_python):
    outcome = run_python("-c", ALONE, mnist_run)
    assert (outcome.status, outcome.out) == (0, "True\n"), outcome.err
