"""The right flag or command for a name from other programs. Loaded only after a mistake."""

import os
from collections.abc import Collection

from jaxnets.config.fields import NAMES, TRACKERS
from jaxnets.config.recipes import PRESETS
from jaxnets.errors import did_you_mean, same_name

DATASETS = ("mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100")

# Those that have no counterpart.
SENTENCES = dict(
    device="--platform=gpu names a kind of device, --devices=2 their number",
    verbose="a run always shows its progress",
    force="expected an empty folder or none: --workdir=FOLDER",
    shuffle="every epoch has its own order, which --seed determines",
    amp="did you mean --precision=mixed?",
    float64="did you mean --precision=float64?",
    cuda="did you mean --platform=gpu?",
)
SENTENCES |= {kind: f"did you mean --platform={kind}?" for kind in ("cpu", "gpu", "tpu")}
SENTENCES |= dict.fromkeys(("fp16", "bf16"), "did you mean --precision=bfloat16?")
SENTENCES |= dict.fromkeys(("quiet", "silent"), "> /dev/null hides what a run prints")
SENTENCES |= dict.fromkeys(
    ("save", "save_model"), "every run is saved, --workdir=FOLDER says where"
)
SENTENCES |= dict.fromkeys(("workers", "num_workers"), "pictures are decoded on all cores")
SENTENCES |= dict.fromkeys(
    ("evaluate", "test"), "every run ends with a test, jaxnets evaluate RUN repeats it"
)
SENTENCES |= {name: f"did you mean --track={name}?" for name in TRACKERS[1:]}
SENTENCES |= dict.fromkeys(("plot", "curves"), "jaxnets report RUN draws the curves")
SENTENCES |= dict.fromkeys(("draw", "page"), "jaxnets page RUN writes a page to draw digits on")
SENTENCES |= dict.fromkeys(("list", "runs"), "jaxnets runs lists them")
SENTENCES |= dict.fromkeys(
    ("list_models", "models"), "did you mean --model=NAME (--help lists them)?"
)
SENTENCES |= dict.fromkeys(("list_datasets", "datasets"), "did you mean --dataset=NAME?")

COMMANDS = dict(
    fit="did you mean train?",
    info="did you mean summary or devices?",
    show="did you mean summary?",
    resume="did you mean train --resume?",
    gpu="did you mean devices?",
    check="did you mean gradcheck?",
    help="did you mean --help?",
    version="did you mean --version?",
)
COMMANDS |= dict.fromkeys(("eval", "test", "score", "accuracy"), "did you mean evaluate?")
COMMANDS |= dict.fromkeys(("plot", "curves"), "did you mean report?")
COMMANDS |= dict.fromkeys(("list", "ls", "history"), "did you mean runs?")
COMMANDS |= dict.fromkeys(
    ("models", "networks"), f"summary --model=NAME shows one of {', '.join(PRESETS)}"
)
COMMANDS |= dict.fromkeys(
    ("datasets", "data"),
    f"train --dataset=NAME takes {', '.join(DATASETS)}, or a folder of pictures",
)
COMMANDS["draw"] = "did you mean page (to draw digits) or summary --output=FILE (the network)?"
COMMANDS |= {name: f"did you mean train --track={name}?" for name in TRACKERS[1:]}
COMMANDS |= dict.fromkeys(("infer", "inference", "classify"), "did you mean predict?")
COMMANDS |= dict.fromkeys(("tune", "sweep", "grid"), "did you mean search?")

# Networks that every course has, without their number.
MODELS: dict[str, str] = dict.fromkeys(("lenet", "convnet", "conv"), "did you mean --model=cnn?")
MODELS |= dict.fromkeys(
    ("resnet", "vgg", "densenet", "inception", "mobilenet", "efficientnet"),
    "--model=resnet20 is the deepest",
)
MODELS |= dict.fromkeys(
    ("lstm", "gru", "rnn", "gpt", "bert", "transformer", "vit"),
    "every network takes pictures, --model=cnn above all",
)


def for_flag(flag: str, known: Collection[str]) -> str:
    """Suggests a flag for an unknown one, or ""; never one that removes something."""
    name = flag.lstrip("-").lower()
    if (right := f"--{NAMES.get(name, '')}") in known:
        return f"; did you mean {right}?"
    if name in SENTENCES:
        return f"; {SENTENCES[name]}"
    negated = flag.startswith("--no_")
    near = [other for other in known if other.startswith("--no_") == negated]
    return did_you_mean(flag, [other for other in near if other != "--overwrite"])


def for_command(name: str, known: Collection[str]) -> str:
    """Suggests a command for an unknown one, or ""."""
    if (sentence := COMMANDS.get(name.lower().lstrip("-"))) is not None:
        return f"; {sentence}"
    if model := same_name(name, PRESETS):
        return f"; did you mean summary --model={model}?"
    if name.startswith("-"):
        return did_you_mean(name, ("--help", "--version"))
    return did_you_mean(name, known, quote='"')


def for_word(word: str, flags: Collection[str]) -> str:
    """Suggests a flag for a word without dashes, or ""."""
    name, equals, value = word.partition("=")
    if equals and (right := same_name(name, [flag[2:] for flag in flags])):
        return f"; did you mean --{right}={value}?"
    for field, names in (("model", PRESETS), ("dataset", DATASETS)):
        if f"--{field}" in flags and (right := same_name(word, names)):
            return f"; did you mean --{field}={right}?"
    return ""


def for_model(name: str) -> str:
    """Suggests a file of this name, or a network for one that other courses have, or ""."""
    if os.path.exists(f"{name}.py"):
        return f"; did you mean --model={name}.py?"
    sentence = MODELS.get(name.lower().rstrip("0123456789-_"))
    return f"; {sentence}" if sentence else ""


def for_value(name: str, text: str) -> str:
    """Suggests a flag for a value that is not a number, or ""."""
    if name != "devices":
        return ""
    if (kind := text.lower()) in ("cpu", "gpu", "tpu"):
        return f"; did you mean --platform={kind}?"
    return f"; did you mean --devices={text.count(',') + 1}?" if "," in text else ""
