"""deploy/: what each recipe starts has flags that exist, and continues what it finds."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import HANGS, ROOT, free_port, read_json

from jaxnets.cli.commands import COMMANDS
from jaxnets.cli.flags import parse_command, parse_flags
from jaxnets.config.resolve import preset

yaml = pytest.importorskip("yaml", reason="Flax brings it")

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
# What stands in for Python: it notes its arguments, one a line, in a file of its own.
NOTES = '#!/bin/sh\nprintf "%s\\n" "$@" > "$NOTES/$$"\nexit ${STATUS:-0}\n'


def pods_of(name: str) -> Any:
    """The pods of a JobSet's only job."""
    (job,) = yaml.safe_load((DEPLOY / name).read_text())["spec"]["replicatedJobs"]
    return job["template"]["spec"]


def script_of(recipe: str) -> str:
    """The script that a recipe starts on each machine."""
    text = (DEPLOY / recipe).read_text()
    if recipe.endswith(".sbatch"):
        return text
    if recipe == "skypilot.yaml":
        return yaml.safe_load(text)["run"]
    if yaml.safe_load(text)["kind"] == "RayJob":
        return yaml.safe_load(text)["spec"]["entrypoint"]
    (container,) = pods_of(recipe)["template"]["spec"]["containers"]
    (script,) = container["args"]
    return script


def command_in(recipe: str) -> tuple[str, list[str]]:
    """The command that a recipe's script gives deploy/start.sh, and its flags.

    Variables that the cluster sets are small whole numbers here.
    """
    script = script_of(recipe).replace("\\\n", " ")
    (line,) = re.findall(r"sh \S*deploy/start\.sh (.*)", script)
    line = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", line)  # ${RUN:-runs/cnn}
    line = re.sub(r"(--process_id=)\$\w+", r"\g<1>0", line)
    command, _folder, *flags = shlex.split(re.sub(r"\$\w+", "2", line))
    return command, flags


@pytest.fixture
def place(monkeypatch, tmp_path):
    """An empty folder where `python` notes its arguments, and every host is known."""
    for folder in ("bin", "notes"):
        (tmp_path / folder).mkdir()
    for name, text in (("python", NOTES), ("getent", "#!/bin/sh\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "deploy").symlink_to(DEPLOY)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return tmp_path


def noted(place: Path) -> list[list[str]]:
    """The arguments of every `python` that start.sh started, in order."""
    return sorted(path.read_text().splitlines() for path in (place / "notes").iterdir())


@pytest.mark.parametrize(
    ("there", "then"),
    [((), []), (("config.json",), ["--resume"]), (("config.json", "result.json"), None)],
)
def test_start_begins_continues_or_is_done(place, there, then):
    (place / "run").mkdir()
    for name in there:
        (place / "run" / name).touch()
    command = ["sh", DEPLOY / "start.sh", "train", place / "run", "--model=my net.py"]
    done = subprocess.run(command, env=os.environ | {"STATUS": "143"})
    expected = ["-m", "jaxnets", "train", f"--workdir={place / 'run'}"]
    assert done.returncode == (0 if then is None else 143)
    assert noted(place) == ([] if then is None else [[*expected, *then, "--model=my net.py"]])


@pytest.mark.parametrize("begun", ["search.json", "cells"])
def test_start_continues_a_search(place, begun):
    (place / begun).touch()
    command = ["sh", DEPLOY / "start.sh", "search", place, "--over=hidden=1"]
    assert subprocess.run(command).returncode == 0
    assert noted(place)[0][4:] == ["--resume", "--over=hidden=1"]


RECIPES = ["slurm/train.sbatch", "slurm/search.sbatch", "skypilot.yaml"]
RECIPES += [f"kubernetes/{name}.yaml" for name in ("train-gpu", "train-tpu", "search")]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_command_of_a_recipe_has_flags_that_exist(recipe):
    subprocess.run(["bash", "-n"], input=script_of(recipe), text=True, check=True)
    command, flags = command_in(recipe)
    if command == "train":
        given = parse_flags(flags)
    else:
        _searched, given = parse_command(flags, command, COMMANDS[command])
    config = preset(**given)
    of_processes = {"coordinator", "num_processes", "process_id"} & given.keys()
    assert len(of_processes) == (0 if command == "search" or config.distributed else 3)


def test_the_first_pod_has_the_name_of_the_coordinator():
    """JobSet's rule: JOBSET-JOB-0-INDEX.SUBDOMAIN, and the subdomain is the JobSet's name."""
    text = (DEPLOY / "kubernetes/train-gpu.yaml").read_text()
    jobset = yaml.safe_load(text)
    name, (job,) = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"]
    assert f"--coordinator={name}-{job['name']}-0-0.{name}:" in text
    assert f"getent hosts {name}-{job['name']}-0-$number.{name} " in text


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_parts_of_a_manifest_fit(path):
    claimed = yaml.safe_load((DEPLOY / "kubernetes/volume.yaml").read_text())["metadata"]["name"]

    def check(pod):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for container in pod["containers"]:
            mounts = [mount["name"] for mount in container.get("volumeMounts", ())]
            assert sorted(mounts) == sorted(volumes)
            assert container["image"] == "REGISTRY/jaxnets"
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {"claimName": claimed}) == {
                "claimName": claimed
            }

    def walk(value):
        if isinstance(value, dict):
            if "containers" in value:
                check(value)
            value = list(value.values())
        if isinstance(value, list):
            for part in value:
                walk(part)

    for document in yaml.safe_load_all(path.read_text()):
        walk(document)
        for cluster in ("rayClusterSpec", "rayClusterConfig"):
            if cluster in document["spec"]:
                version = document["spec"][cluster]["rayVersion"]
                assert f"ARG RAY={version}\n" in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize("name", ["train-gpu", "train-tpu"])
def test_a_wrong_request_is_not_tried_again(name):
    job = pods_of(f"kubernetes/{name}.yaml")
    (container,) = job["template"]["spec"]["containers"]
    assert job["completions"] == job["parallelism"] and job["backoffLimit"] == 0
    assert job["podFailurePolicy"]["rules"] == [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": container["name"], "operator": "In", "values": [2]},
        }
    ]


def test_slurm_starts_a_process_for_each_gpu():
    """JAX gives a process under SLURM one GPU; more processes or fewer would waste some."""
    flags = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script_of(RECIPES[0]), re.M))
    assert flags["ntasks-per-node"] == flags["gpus-per-node"]


def test_the_image_has_what_pip_builds():
    """The files of tests/test_wheel.py, which builds them, and what the recipes start."""
    copied = re.findall(r"^COPY (.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M)
    files = "pyproject.toml hatch_build.py README.md LICENSE train.py jaxnets deploy/start.sh"
    files += " deploy/kubernetes/ray_app.py"
    assert " ".join(copied) == files
    (extras,) = re.findall(r'"\.\[(.*)\]"', (DEPLOY / "Dockerfile").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


@pytest.fixture
def real_python(place, tiny_folder):
    """Makes `python` this one, with a small run on the CPU: later flags win."""

    def use(*flags):
        given = " ".join(["--model=softmax", "--platform=cpu", f"--data_dir={tiny_folder}", *flags])
        text = f'#!/bin/sh\ncd "{ROOT}"\nexec "{sys.executable}" "$@" {given}\n'
        (place / "bin/python").write_text(text)

    return use


@pytest.mark.slow
def test_two_machines_of_a_recipe_train_one_run(place, real_python):
    real_python("--batch_size=4", "--epochs=1", "--validation_size=40")
    script = script_of("kubernetes/train-gpu.yaml").replace("/app/", "")
    script = script.replace(" /runs/", f" {place}/runs/")
    script = script.replace("cnn-train-0-0.cnn:8476", f"127.0.0.1:{free_port()}")
    for _ in range(2):  # The second time, the run is there and finished.
        pods = [
            subprocess.Popen(
                ["bash", "-c", script],
                cwd=place,
                env=os.environ | {"PROCESSES": "2", "JOB_COMPLETION_INDEX": str(number)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(2)
        ]
        printed = [pod.communicate(timeout=HANGS)[0] for pod in pods]
        assert [pod.returncode for pod in pods] == [0, 0], printed
    assert read_json(place / "runs/cnn/result.json")["num_devices"] == 2


def notebook_cells(**changes: str) -> list[str]:
    """The notebook's code, with some texts changed."""
    cells = read_json(DEPLOY / "notebook/train.ipynb")["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for old, new in changes.items():
        assert any(old in text for text in code), old
        code = [text.replace(old, new) for text in code]
    return code


@pytest.mark.oracle
def test_the_notebook_is_one_that_kaggle_takes():
    nbformat = pytest.importorskip("nbformat", reason="Jupyter's")
    nbformat.validate(nbformat.read(DEPLOY / "notebook/train.ipynb", as_version=4))
    metadata = read_json(DEPLOY / "notebook/kernel-metadata.json")
    assert (DEPLOY / "notebook" / metadata["code_file"]).exists()
    assert metadata["id"] == f"YOUR_NAME/{metadata['title']}"
    assert len(metadata["dataset_sources"]) == 1


@pytest.mark.slow
def test_kaggle_continues_what_an_earlier_version_kept(tmp_path, tiny_folder, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)
    small = ["--model=softmax", "--epochs=2", f"--data_dir={tiny_folder}", "--validation_size=40"]
    code = notebook_cells(
        **{'["--model=cnn", "--epochs=20"]': json.dumps(small), "/kaggle": str(tmp_path)}
    )
    (tmp_path / "working").mkdir()
    for _ in range(2):
        names: dict[str, Any] = {}
        for cell in code:
            exec(cell, names)
    out = capfd.readouterr().out
    assert out.count("epoch 2/2") == 1 and out.endswith("holds a finished run\n")
    earlier = tmp_path / "input/jaxnets-train"
    earlier.mkdir(parents=True)
    (tmp_path / "working/cnn").rename(earlier / "cnn")
    (earlier / "cnn/result.json").unlink()
    names = {}
    for cell in code:
        exec(cell, names)
    assert "--resume" in names["command"] and (tmp_path / "working/cnn/result.json").exists()


def test_the_notebook_ends_with_an_error_where_training_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = notebook_cells(**{"--model=cnn": "--modle=cnn"})
    names: dict[str, Any] = {}
    with pytest.raises(SystemExit, match="ended with status 2"):
        for cell in code:
            exec(cell, names)


@pytest.mark.oracle
def test_ray_serve_reads_kuberays_application():
    schema = pytest.importorskip("ray.serve.schema", reason="Ray is not installed")
    served = yaml.safe_load((DEPLOY / "kubernetes/serve.yaml").read_text())["spec"]
    config = schema.ServeDeploySchema(**yaml.safe_load(served["serveConfigV2"]))
    (application,) = config.applications
    module, function = application.import_path.split(":")
    assert f"\ndef {function}(" in (DEPLOY / f"kubernetes/{module}.py").read_text()
