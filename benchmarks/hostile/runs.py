"""Hostile run folders: what a run writes, written by somebody else."""

import contextlib
import dataclasses
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from hostile.damage import Rng, damage, damage_json, deep_folder, half, status_of, value_of
from hostile.data import idx_samples


def run_samples(folder: Path) -> dict[str, Any]:
    """The files of a run of softmax regression on 4 x 4 pixels, and its parameters' form."""
    import jax

    from jaxnets.runs.resume import tree_of
    from jaxnets.runs.run import Run

    data_dir = folder / "data"
    data_dir.mkdir()
    for name, content in idx_samples(folder).items():
        (data_dir / name).write_bytes(content)
    flags = {
        **{"model": "softmax", "batch_size": 2, "epochs": 2, "devices": 1, "validation_size": 1},
        **{"data_dir": str(data_dir), "workdir": str(folder / "run")},
    }
    record = {"epoch": 1, "step": 3, "train_loss": 1.0, "train_accuracy": 0.5,
              "validation_loss": 1.0,
              "validation_accuracy": 0.5, "learning_rate": 0.1, "seconds": 1.0, "data_seconds": 0.5,
              "images_per_second": 2.0}  # fmt: skip
    with Run.open(flags) as run:
        opened = run.folder
        opened.log(record)
        like = jax.device_get(tree_of(run.checkpoint, 3))
        opened.save(3, like)
    return {
        "folder": opened.path,
        "config": json.loads((opened.path / "config.json").read_text()),
        "record": record,
        "like": like,
    }


def config_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """config.json, read by --resume and by predict."""
    from jaxnets.config.resolve import resolve
    from jaxnets.predict import trained
    from jaxnets.runs import request
    from jaxnets.runs.run_folder import RunFolder

    (folder / "config.json").write_bytes(damage_json(rng, sample["config"]))
    if rng.randint(0, 49) == 0:
        enlarge(rng, folder / "config.json")

    def resume() -> None:
        given = {"resume": True, "workdir": str(folder)}
        config = resolve(given, resumed=request.run_to_resume(given)).config
        if config.dataset == "mnist" and config.data_dir is not None:
            request.load_data(config)

    def read() -> None:
        opened = RunFolder.open(str(folder))
        config = request.read_config(opened)
        shape, names = trained._form(opened)
        if config.model == "softmax":
            trained._params_like(opened, config, trained.create_model(config, len(names)), shape)

    status_of(resume)
    status_of(read)


def enlarge(rng: Rng, path: Path) -> None:
    """A hole at the end of a file, or in place of it all, costs who sends it nothing."""
    if half(rng):
        path.write_bytes(b"")
    os.truncate(path, rng.choice([1 << 20, (16 << 20) - 1, 64 << 20, 1 << 32, 1 << 40]))


def metrics_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """metrics.jsonl, read by --resume, which writes it anew, and by every save."""
    from jaxnets.runs.checkpoints import kept_steps
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
    if rng.randint(0, 49) == 0:
        enlarge(rng, folder / "metrics.jsonl")

    def resume() -> None:
        opened = RunFolder.open(str(folder))
        opened.drop_records_after(6, epochs=2)
        kept_steps([3, 6], opened.keep, opened.records())
        for record in opened.records():
            f"{record['seconds'] + record['epoch']:.1f} {record['train_loss']:.4f}"

    status_of(resume)


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
    """search.json of a resumed search or of the slides' network, and result.json."""
    from jaxnets.course import replay
    from jaxnets.metrics import Metrics
    from jaxnets.runs.request import read_config
    from jaxnets.runs.run_folder import RunFolder
    from jaxnets.tune import ranking
    from jaxnets.tune.search import Search

    test = dataclasses.replace(Metrics.zero(10), count=np.int64(1))
    search = Search(SEARCH["flags"], SEARCH["over"])
    (folder / "config.json").write_text(json.dumps(sample["config"]))
    (folder / "metrics.jsonl").write_text(json.dumps(sample["record"]) + "\n")
    slides = half(rng)
    outcome = {"train_loss": 1.0, "train_accuracy": 0.5, "loss": 1.0, "accuracy": 0.5}
    kept = {"100": outcome, "200": outcome} if slides else SEARCH
    (folder / "search.json").write_bytes(damage_json(rng, kept))
    (folder / "result.json").write_bytes(rng.randbytes(rng.randint(0, 20)))
    if rng.randint(0, 49) == 0:
        enlarge(rng, folder / "search.json")

    def resume() -> None:
        with search.open(str(folder), resume=True):
            search.write()
            if search.seeds:
                print(ranking.to_text(search))

    def close() -> None:
        opened = RunFolder.open(str(folder))
        run: Any = SimpleNamespace(folder=opened, config=read_config(opened), experiment=None)
        replay.ClosingTable(run).on_finish(test)

    with deep_folder(folder / "d", 3000) if rng.randint(0, 49) == 0 else contextlib.nullcontext():
        status_of(close if slides else resume)


# Checkpoints


def checkpoint_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """A checkpoint is damaged, exchanged, linked; its header declares what the file is not.

    What is read all the same must be what was saved.
    """
    import jax

    from jaxnets.runs.run_folder import RunFolder

    shutil.copytree(sample["folder"], folder / "run")
    run, outside = folder / "run", folder.parent / "outside"
    file = run / "checkpoints" / "3.safetensors"
    content = file.read_bytes()
    for _ in range(rng.randint(1, 2)):
        kind = rng.choice(["bytes", "length", "json", "entry", "entry", "data"])
        header, data = _split(content)
        if kind == "bytes" or not header:
            content = damage(rng, content, content[::-1])
        elif kind == "length":
            length = rng.choice([0, 2, len(content), 1 << 20, 2**31, 2**63, 2**64 - 1])
            content = length.to_bytes(8, "little") + content[8:]
        elif kind == "json":
            content = _join(damage_json(rng, header), data)
        elif kind == "entry":
            content = _join(_change_entry(rng, header), data)
        else:
            content = _join(json.dumps(header).encode(), damage(rng, data, data[::-1]))
    file.write_bytes(content)
    place = rng.choice(["here"] * 12 + ["link", "pipe", "folder", "name", "deep", "many"])
    if place == "link":
        file.unlink()
        file.symlink_to(rng.choice([outside / "victim", run / "config.json", Path("/dev/zero")]))
    elif place == "pipe":
        file.unlink()
        os.mkfifo(file)
    elif place == "folder":
        file.rename(file.with_suffix(""))
        (file / "3").mkdir(parents=True)
    elif place == "name":
        names = ["-1", "3", "x.safetensors", "007.safetensors", "\u0663.safetensors",
                 "9" * 200 + ".safetensors", "4.safetensors", "5.safetensors.partial"]  # fmt: skip
        shutil.copy(file, file.with_name(rng.choice(names)))
    elif place == "many":
        for number in range(10, 2000):
            file.with_name(f"{number}{rng.choice(['', '.x'])}").mkdir()
        if half(rng):
            file.with_name("7.safetensors").mkdir()
    like = sample["like"]
    forms = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like["params"])

    def predict() -> None:
        _, params = RunFolder.open(str(run)).read_params(forms)
        jax.tree.map(np.testing.assert_array_equal, params, like["params"])

    def resume() -> None:
        with RunFolder.open(str(run)) as opened:
            tree = opened.restore(like)
        if tree is not None:
            jax.tree.map(np.testing.assert_array_equal, tree, like)

    with deep_folder(file.with_name("d"), 3000) if place == "deep" else contextlib.nullcontext():
        status_of(predict)
        status_of(resume)


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header, empty if there is none any more, and the arrays' bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    with contextlib.suppress(ValueError, RecursionError):
        header = json.loads(content[8:end])
        if isinstance(header, dict):
            return header, content[end:]
    return {}, content


def _join(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _change_entry(rng: Rng, header: dict[str, Any]) -> bytes:
    """One array's dtype, shape or place, or one of the checksums."""
    entry = header[rng.choice(sorted(header))]
    if isinstance(entry, dict) and entry:
        values = [[2**40], [2**31, 2**31], [2**63, 2], [1], [], [0, 0], [-1], [0, 4], [4, 0],
                  "F64", "I64", "F8_E4M3", "BOOL", None, 3, "1", value_of(rng)]  # fmt: skip
        entry[rng.choice(sorted(entry))] = rng.choice(values)
    return json.dumps(header).encode("utf-8", "surrogatepass")
