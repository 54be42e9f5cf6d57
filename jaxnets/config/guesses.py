"""The right name for a field's name from other programs."""

from collections.abc import Iterable

from jaxnets.config.recipes import ALIASES
from jaxnets.errors import UserError, did_you_mean

# Fields of other programs that are ours under another name.
NAMES = ALIASES | dict(
    arch="model", architecture="model", net="model", network="model", m="model", data="dataset",
    d="dataset", num_epochs="epochs", n_epochs="epochs", max_epochs="epochs", e="epochs",
    batch="batch_size", b="batch_size", minibatch="batch_size", eta="learning_rate",
    alpha="learning_rate", step_size="learning_rate", optim="optimizer", opt="optimizer",
    solver="optimizer", scheduler="schedule", lr_schedule="schedule", lr_scheduler="schedule",
    l2="weight_decay", layers="hidden", units="hidden", hidden_units="hidden",
    hidden_size="hidden", hidden_sizes="hidden", drop="dropout", criterion="loss",
    objective="loss", augmentation="augment", aug="augment", no_aug_epochs="clean_epochs",
    image_size="input_size", img_size="input_size", dtype="precision", random_state="seed",
    random_seed="seed", manual_seed="seed", weights="init_from", pretrained="init_from",
    checkpoint="init_from", finetune="init_from",
    output="workdir", out="workdir", o="workdir", output_dir="workdir",
    out_dir="workdir", save_dir="workdir", logdir="workdir", log_dir="workdir", run_dir="workdir",
    folder="workdir", restart="resume", load="resume", num_gpus="devices", gpus="devices",
    num_devices="devices", n_gpus="devices", world_size="num_processes", rank="process_id",
    validation_split="validation_size", val_size="validation_size", k="top", topk="top",
    top_k="top", topn="top", v="version",
)  # fmt: skip


def unknown_field(name: str, known: Iterable[str]) -> UserError:
    """The error for a field that does not exist.

    >>> print(unknown_field("lr", ["learning_rate"]))
    unknown field "lr"; did you mean "learning_rate"?
    """
    known = list(known)
    if (right := NAMES.get(name.lower())) in known:
        hint = f'; did you mean "{right}"?'
    else:
        hint = did_you_mean(name, known, quote='"') or " (help(jaxnets.Config) lists them)"
    return UserError(f'unknown field "{name}"{hint}')
