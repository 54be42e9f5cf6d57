"""Several digits in one picture: how many pictures does `predict --prepare=digits` read right?

    python benchmarks/digits.py runs/quick [--pictures=300]

RUN is a run on MNIST. Each picture has 1 or 3 lines of 3 to 6 of MNIST's test digits, of random
sizes, gaps and heights, dark on white paper, light on dark, or as a photo with uneven light and
noise. Their labels say what is right. Then come all 10,000 test digits, each by itself on paper:
how many are taken for several?
"""

import argparse
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from jaxnets.data.load import load_dataset
from jaxnets.data.pictures.decode import BadPictureError
from jaxnets.predict.digit import to_digit, to_digits
from jaxnets.predict.predict import Predictor, load_predictor

Paper = Callable[[np.ndarray, np.random.Generator], np.ndarray]
MARGIN = 50  # Pixels around the digits.


def on_photo(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paper with half as much light at one side, and with noise."""
    return np.linspace(0.5, 1, ink.shape[1]) * (217 - 0.6 * ink) + rng.normal(0, 8, ink.shape)


PAPERS: Mapping[str, Paper] = {
    "white paper": lambda ink, rng: 255 - ink,
    "light on dark": lambda ink, rng: ink,
    "a photo": on_photo,
}


def row_of(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ink [H, W], 0 to 255, of digits [N, 28, 28] from left to right with gaps of 10 to 70."""
    tiles = []
    for image in images:
        rows, columns = (np.flatnonzero((image > 60).any(axis)) for axis in (1, 0))
        tile = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        times = rng.uniform(2.5, 4.5)
        width, height = (max(1, round(side * times)) for side in tile.size)
        tile = np.asarray(tile.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        above = int(rng.integers(10, 30))
        tiles.append(np.pad(tile, [(above, 130 - above - height), (int(rng.integers(10, 70)), 0)]))
    return np.pad(np.hstack(tiles), [(0, 0), (MARGIN, MARGIN)])


def page_of(rows: list[np.ndarray]) -> np.ndarray:
    """The rows, one below the other, with a margin."""
    width = max(row.shape[1] for row in rows)
    return np.pad(
        np.vstack([np.pad(row, [(0, 0), (0, width - row.shape[1])]) for row in rows]),
        [(MARGIN, MARGIN), (0, 0)],
    )


def as_picture(levels: np.ndarray) -> Image.Image:
    """Levels of any range as a picture."""
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def read(predictor: Predictor, picture: Image.Image) -> str:
    """The digits in the picture, one string for each line."""
    try:
        lines = to_digits(picture)
    except BadPictureError:
        return ""
    images = np.array([image for line in lines for image in line])[..., None]
    labels = iter(predictor.probabilities(images).argmax(axis=1))
    return "\n".join("".join(str(next(labels)) for _ in line) for line in lines)


def is_several(picture: Image.Image) -> bool:
    """Whether the picture of one digit is taken for one of several."""
    try:
        to_digit(picture, single=True)
    except BadPictureError as error:
        return "expected one character" in str(error)
    return False


def main() -> None:
    """Prints a line for each kind of paper."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--pictures", type=int, default=300)
    request = parser.parse_args()
    test, predictor = load_dataset("mnist").test, load_predictor(request.run)
    images = np.rint(255 * np.asarray(test.images)[..., 0]).astype(np.uint8)
    for name, paper in PAPERS.items():
        for lines in (1, 3):
            rng = np.random.default_rng(0)
            texts = []
            for _ in range(request.pictures):
                chosen = [rng.integers(0, len(images), rng.integers(3, 7)) for _ in range(lines)]
                ink = page_of([row_of(images[indices], rng) for indices in chosen])
                right = "\n".join("".join(map(str, test.labels[indices])) for indices in chosen)
                texts.append((right, read(predictor, as_picture(paper(ink, rng)))))
            shape = [(right, got) for right, got in texts if _lengths(right) == _lengths(got)]
            digits = [a == b for pair in shape for a, b in zip(*pair, strict=True) if a != "\n"]
            print(
                f"{name}, {lines} lines: of {len(texts)} pictures {len(shape)} right in count, "
                f"{sum(right == got for right, got in texts)} in value; of the digits in those "
                f"right in count {np.mean(digits):.4f}",
                flush=True,
            )
    for name, paper in PAPERS.items():
        rng = np.random.default_rng(0)
        wrong = [
            number
            for number, image in enumerate(images)
            if is_several(as_picture(paper(page_of([row_of(image[None], rng)]), rng)))
        ]
        print(f"{name}: {len(wrong)} of {len(images):,} single digits taken for several: {wrong}")


def _lengths(text: str) -> list[int]:
    return [len(line) for line in text.split("\n")]


if __name__ == "__main__":
    main()
