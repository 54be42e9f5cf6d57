"""The table of docs/read-the-code.md: `python docs/_ext/reading_path.py` renews it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "read-the-code.md"
LINES_A_MINUTE = 20
TABLE = re.compile(r"(?<=<!-- the path -->\n).*?(?=<!-- its end -->)", re.DOTALL)

# Each stop's files in the order of reading, each with what to look for.
PATH: dict[str, dict[str, str]] = {
    "The whole idea in one file": {
        "examples/minimal.py": "this CNN by both gradients, compared and trained, in plain JAX",
    },
    "A network is a list of layers": {
        "jaxnets/models/layers.py": "the layers that are functions: flatten, the pools",
        "jaxnets/models/chain.py": "`Chain`: the forward pass is a loop over the list",
        "jaxnets/models/cnn.py": "the CNN: the list of its layers",
        "jaxnets/losses.py": "one loss an example, from logits and labels",
        "jaxnets/metrics.py": "the metrics: sums, which add up over batches and devices",
    },
    "A step, by autodiff": {
        "jaxnets/data/datasets.py": "images and labels in three parts",
        "jaxnets/data/batches.py": "a batch: images, labels, and a mask for the last, ragged one",
        "jaxnets/training/step.py": "`make_train_step`: the one step; where the division by B is",
        "jaxnets/training/optimizer.py": "the update rule, from optax",
    },
    "The same gradient by hand": {
        "jaxnets/backprop/rule.py": "`LayerRule`: what a pair declares",
        "jaxnets/backprop/dense.py": "the first pair: z = xW + b, and its three gradients",
        "jaxnets/backprop/relu.py": "a mask",
        "jaxnets/backprop/dropout.py": "a mask with a factor",
        "jaxnets/backprop/losses.py": "softmax and cross-entropy together: p - y",
        "jaxnets/backprop/windows.py": "the windows of convolution and pooling",
        "jaxnets/backprop/convolution.py": "two convolutions backward",
        "jaxnets/backprop/pooling.py": "the gradient goes where the maximum was",
        "jaxnets/backprop/rules.py": "the table of layers: which pair belongs to which",
        "jaxnets/backprop/network.py": "`manual_loss_and_grad`: the pairs, there and back",
    },
    "Epochs": {
        "jaxnets/training/observer.py": "what may watch a training run",
        "jaxnets/training/parallel.py": "several devices, by jit, shard_map or pmap",
        "jaxnets/training/loader.py": "the training data in batches",
        "jaxnets/training/loop.py": "`train_epochs`, `stepped_epoch`",
        "jaxnets/training/evaluation.py": "`evaluate`",
        "jaxnets/parts.py": "`Parts.create`: every part is built once, here",
        "jaxnets/experiment.py": "`Experiment` trains and evaluates with them",
    },
    "A run in its folder": {
        "jaxnets/config/recipes.py": "the recipe of each network of the lecture",
        "jaxnets/config/resolve.py": "`resolve`: the one maker of a Config",
        "jaxnets/runs/request.py": "flags, folders and data come together",
        "jaxnets/runs/run.py": "`Run.open`, `train`, `finish`",
        "jaxnets/cli/training.py": "`train_run`: opens a run, trains it, tests it",
        "train.py": "the script: it reads like its docstring",
    },
}


def lines_of(path: str) -> int:
    """The lines of a file."""
    return len((ROOT / path).read_text("utf-8").splitlines())


def minutes(lines: int) -> str:
    """The time that so many lines take, as h:mm."""
    return "{}:{:02d}".format(*divmod(round(lines / LINES_A_MINUTE), 60))


def table() -> str:
    """The path in Markdown: a heading for each stop, a row for each file, sums so far."""
    rows, files, lines = ["| file | what to look for | lines | h:mm so far |\n"], 0, 0
    rows.append("| --- | --- | ---: | ---: |\n")
    for stop, found in PATH.items():
        rows.append(f"| **{stop}** | | | |\n")
        for path, what in found.items():
            count = lines_of(path)
            files, lines = files + 1, lines + count
            rows.append(f"| `{path}` | {what} | {count} | |\n")
        noun = "file" if files == 1 else "files"
        rows.append(f"| | *{files} {noun} so far* | *{lines:,}* | *{minutes(lines)}* |\n")
    return "\n" + "".join(rows) + "\n"


def renewed(page: str) -> str:
    """The page with the table of today."""
    return TABLE.sub(lambda _: table(), page)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
