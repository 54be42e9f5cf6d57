"""Hostile run folders: what a run writes, written by somebody else."""

import contextlib
import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from hostile.damage import Rng, damage, damage_json, half, status_of, value_of
from hostile.data import idx_samples


def run_samples(folder: Path) -> dict[str, Any]:
    """The files of a run of softmax regression on 4 x 4 pixels, and its parameters' form."""
    import jax

    from jaxnets.config.fields import preset
    from jaxnets.data.load import load_dataset
    from jaxnets.experiment import create_model, create_state, optimizer_of
    from jaxnets.runs import run
    from jaxnets.training.loop import Checkpoint

    data_dir = folder / "data"
    data_dir.mkdir()
    for name, content in idx_samples(folder).items():
        (data_dir / name).write_bytes(content)
    config = preset("softmax", batch_size=2, epochs=2, devices=1, data_dir=str(data_dir),
                    workdir=str(folder / "run"), validation_size=1)  # fmt: skip
    data = load_dataset(data_dir=str(data_dir), validation_size=1)
    model = create_model(config, data)
    state = create_state(config, model, data)
    opened = run.open_run(config, data)
    record = {"epoch": 1, "step": 3, "train_loss": 1.0, "train_accuracy": 0.5,
              "validation_loss": 1.0,
              "validation_accuracy": 0.5, "learning_rate": 0.1, "seconds": 1.0, "data_seconds": 0.5,
              "images_per_second": 2.0}  # fmt: skip
    with opened:
        opened.log(record)
        opened.save(3, run._tree(Checkpoint(state), data))
    del optimizer_of
    return {
        "folder": opened.path,
        "config": json.loads((opened.path / "config.json").read_text()),
        "record": record,
        "like": jax.device_get(run._tree(Checkpoint(state), data)),
    }


def config_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """config.json, read by --resume and by predict."""
    from jaxnets.runs import run
    from jaxnets.runs.run_folder import RunFolder
    from jaxnets.serving import predict

    (folder / "config.json").write_bytes(damage_json(rng, sample["config"]))

    def resume() -> None:
        config = run.config_of({"resume": True, "workdir": str(folder)})
        if config.dataset == "mnist" and config.data_dir is not None:
            run.load_data(config)

    def read() -> None:
        opened = RunFolder.open(str(folder))
        config = run.read_config(opened)
        shape, names = predict._form(opened)
        if config.model == "softmax":
            predict._params_like(opened, config, predict.build_model(config, len(names)), shape)

    status_of(resume)
    status_of(read)


def metrics_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """metrics.jsonl, read by --resume, which writes it anew, and by every save."""
    from jaxnets.runs.checkpoints import RetentionPolicy
    from jaxnets.runs.run_folder import RunFolder

    (folder / "config.json").write_text(json.dumps(sample["config"]))
    lines = [
        json.dumps({**sample["record"], "epoch": e, "step": 3 * e}).encode() for e in (1, 2, 3)
    ]
    lines[rng.randint(0, 2)] = damage_json(rng, sample["record"])
    content = b"\n".join(lines) + rng.choice([b"", b"\n", b'\n{"ep'])
    if rng.randint(0, 4) == 0:
        content = damage(rng, content, content)
    (folder / "metrics.jsonl").write_bytes(content)
    steps = [mock.Mock(step=3), mock.Mock(step=6)]

    def go_on() -> None:
        opened = RunFolder.open(str(folder))
        opened.drop_records_after(6)
        RetentionPolicy(opened.keep, opened.records).should_preserve(steps, context=None)
        for record in opened.records():
            f"{record['seconds'] + record['epoch']:.1f} {record['train_loss']:.4f}"

    status_of(go_on)


SEARCH = {
    "flags": {"model": "softmax"},
    "over": {"learning_rate": [0.1, 0.5]},
    "runs": [
        {"point": [rate], "seed": seed, "train_loss": 1.0, "train_accuracy": 0.5, "loss": 1.0,
         "accuracy": 0.5}
        for rate in (0.1, 0.5) for seed in (0, 1)
    ],
}  # fmt: skip


def search_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """search.json, of a search that goes on and of the slides' network, and result.json."""
    from jaxnets.lecture import ranking, replay
    from jaxnets.lecture.search import Search, open_folder, write
    from jaxnets.metrics import Metrics
    from jaxnets.runs import run
    from jaxnets.runs.run_folder import RunFolder

    test = dataclasses.replace(Metrics.zero(10), count=np.int64(1))
    search = Search(SEARCH["flags"], SEARCH["over"], folder)
    (folder / "config.json").write_text(json.dumps(sample["config"]))
    (folder / "metrics.jsonl").write_text(json.dumps(sample["record"]) + "\n")
    slides = half(rng)
    outcome = {"train_loss": 1.0, "train_accuracy": 0.5, "loss": 1.0, "accuracy": 0.5}
    kept = {"100": outcome, "200": outcome} if slides else SEARCH
    (folder / "search.json").write_bytes(damage_json(rng, kept))
    (folder / "result.json").write_bytes(rng.randbytes(rng.randint(0, 20)))

    def go_on() -> None:
        open_folder(search, resume=True)
        write(search)
        if not search.missing([0, 1]):
            print(ranking.to_text(search, 2))

    def close() -> None:
        opened = RunFolder.open(str(folder))
        print(replay.closing_table(run.read_config(opened), opened, None, test))  # type: ignore[arg-type]

    status_of(close if slides else go_on)


# Checkpoints


def checkpoint_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """A checkpoint's files are damaged, exchanged, linked; its arrays declare what they are not."""
    import jax

    from jaxnets.runs.run_folder import RunFolder

    shutil.copytree(sample["folder"], folder / "run")
    run, outside = folder / "run", folder.parent / "outside"
    step = run / "checkpoints" / "3"
    kind = ""
    for _ in range(rng.randint(1, 2)):
        if kind in ("link", "pipe"):  # Which this function would follow, and wait for.
            break
        kind = rng.choice(
            ["bytes", "bytes", "json", "array", "array", "remove", "swap", "link", "pipe", "rename",
             "unpack"]
        )  # fmt: skip
        files = sorted(path for path in step.rglob("*") if path.is_file())
        if not files:
            break
        path, other = rng.choice(files), rng.choice(files)
        with contextlib.suppress(OSError, ValueError):  # Damaged before.
            if kind == "bytes":
                path.write_bytes(damage(rng, path.read_bytes(), other.read_bytes()))
            elif kind == "json":
                path = rng.choice([step / "_CHECKPOINT_METADATA", step / "default/_METADATA"])
                path.write_bytes(damage_json(rng, json.loads(path.read_text())))
            elif kind == "array":
                _change_array(rng, step / "default")
            elif kind == "remove":
                path.unlink()
            elif kind == "swap":
                path.write_bytes(other.read_bytes())
            elif kind == "link":
                path.unlink()
                path.symlink_to(rng.choice([outside / "victim", other, Path("/dev/zero")]))
            elif kind == "pipe":
                path.unlink()
                os.mkfifo(path)
            elif kind == "unpack":
                unpack(step / "default")
            else:
                name = rng.choice(["-1", "x", "3.orbax-checkpoint-tmp", "007", "\u0663"])
                step.rename(step.with_name(name))
                step = step.with_name(name)
    like = sample["like"]
    forms = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like["params"])

    def predict() -> None:
        _, params = RunFolder.open(str(run)).read_params(forms)
        assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, like["params"])

    def go_on() -> None:
        with RunFolder.open(str(run)) as opened:
            tree = opened.restore(like)
        if tree is not None:
            assert jax.tree.map(np.shape, tree) == jax.tree.map(np.shape, like)

    status_of(predict)
    status_of(go_on)


def database(folder: Path) -> Any:
    """The key-value store that holds a checkpoint's arrays."""
    import tensorstore

    return tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/"}).result()


def _change_array(rng: Rng, folder: Path) -> None:
    """An array's own description, or one of its pieces."""
    try:
        store = database(folder)
        keys = sorted(store.list().result())
        key = rng.choice(keys)
        content = bytes(store.read(key).result().value)
        if key.endswith(b".zarray"):
            form = json.loads(content)
            field = rng.choice(sorted(form))
            form[field] = rng.choice(
                [[2**40], [2**31, 2**31], [1], [], [0, 0], [-1], "<f8", "|O", "<i1", "|V8", None, 3,
                 "F",
                 {"id": "blosc"}, {"id": "zlib", "level": 1}, {"id": "pickle"}, [{"id": "delta"}],
                 [2**20, 2**20], value_of(rng)]
            )  # fmt: skip
            content = json.dumps(form).encode()
        else:
            content = damage(rng, content)
        if rng.randint(0, 5) == 0:
            store.delete_range(type(store).KeyRange(key, key + b"\0")).result()
        else:
            store.write(key, content).result()
    except (ValueError, IndexError):  # It was damaged before.
        pass


def unpack(folder: Path) -> None:
    """The arrays as files of their own, which may be links."""
    try:
        store = database(folder)
        for key in store.list().result():
            path = folder / key.decode()
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(bytes(store.read(key).result().value))
    except ValueError:
        pass
