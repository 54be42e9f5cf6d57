"""The digest of every network's parameters after an epoch, to hold two states of the code together.

    python benchmarks/params_sha256.py > before.txt     in one checkout
    python benchmarks/params_sha256.py > after.txt      in another, on the same machine; then diff

A change that only rearranges the code changes no line. The AlexNets get the first 1,280 images of
MNIST, for time; `--checkout=DIR` trains with the train.py of another folder.
"""

import argparse
import gzip
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from idx_files import idx_bytes

MODELS = (
    "softmax", "mlp_sequential", "mlp_functional", "mlp", "mlp_handwritten", "cnn", "cnn_bn",
    "cnn_tiny", "alexnet", "alexnet_paper", "alexnet_small",
    "alexnet_small_bn",
)  # fmt: skip
PMAP = (["--cpu_devices=4", "--parallel=pmap"], ["--cpu_devices=4", "--parallel=jit"])


def small_mnist(folder: Path) -> Path:
    """MNIST's first images, as four IDX files."""
    from jaxnets.data import idx

    source = Path(idx.__file__).parent / "mnist"
    for path in source.glob("*.gz"):
        rank = 3 if "images" in path.name else 1
        count = 1280 if path.name.startswith("train") else 256
        array = idx.read_idx(path, rank)[:count]
        (folder / path.name).write_bytes(gzip.compress(idx_bytes(array)))
    return folder


def digest(checkout: Path, flags: list[str]) -> str:
    """The params_sha256 of one run."""
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "train.py", *flags, f"--workdir={work}/run"]
        subprocess.run(command, cwd=checkout, check=True, capture_output=True)
        return json.loads(Path(work, "run", "result.json").read_text())["params_sha256"]


def main() -> None:
    """Prints a line a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1])
    checkout = parser.parse_args().checkout
    with tempfile.TemporaryDirectory() as data:
        small = [f"--data_dir={small_mnist(Path(data))}"]
        runs = [
            [f"--model={model}", f"--gradients={gradients}", "--epochs=1"]
            for model, gradients in itertools.product(MODELS, ("auto", "manual"))
        ]
        runs += [["--model=cnn", "--epochs=1", *several] for several in PMAP]
        runs += [["--model=mlp", "--epochs=1", *several] for several in PMAP]
        for flags in runs:
            shown = " ".join(flags)
            data_flags = small if "alexnet" in shown else []
            if "alexnet_small" in shown:  # Its own rate is too large for ten steps.
                data_flags = [*small, "--learning_rate=0.001"]
            print(f"{shown}: {digest(checkout, [*flags, *data_flags])}", flush=True)


if __name__ == "__main__":
    main()
