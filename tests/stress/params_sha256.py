"""The digest of every network's parameters after an epoch, to hold two states of the code together.

    python tests/stress/params_sha256.py > before.txt     in one checkout
    python tests/stress/params_sha256.py > after.txt      in another, on the same machine; then diff

A change that only rearranges the code changes no line. The AlexNets get the first 1,280 images of
MNIST, for time; `--checkout=DIR` trains with the train.py of another folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = (
    "softmax", "mlp_sequential", "mlp_functional", "mlp", "mlp_handwritten", "cnn", "cnn_bn",
    "cnn_tiny", "alexnet", "alexnet_paper", "alexnet_small", "alexnet_small_bn",
    "resnet20",
)  # fmt: skip
RUNS = [f"--model={model} --gradients={way}" for model in MODELS for way in ("auto", "manual")]
RUNS += [
    f"--model={model} --cpu_devices=4 --parallel={way}"
    for model in ("cnn", "mlp")
    for way in ("pmap", "shard_map", "jit")
]


def main() -> None:
    """Prints a line a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[2])
    checkout = parser.parse_args().checkout
    for flags in RUNS:
        few = "--limit=1280 --learning_rate=0.001" if "alexnet" in flags else ""
        with tempfile.TemporaryDirectory() as work:
            words = [*flags.split(), *few.split(), "--epochs=1", f"--workdir={work}/run"]
            train = [sys.executable, "train.py", *words]
            subprocess.run(train, cwd=checkout, check=True, capture_output=True)
            result = json.loads(Path(work, "run", "result.json").read_text())
        print(f"{flags}: {result['params_sha256']}", flush=True)


if __name__ == "__main__":
    main()
