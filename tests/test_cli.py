"""train.py from the outside: exit statuses, one-line errors, and runs that are cut short."""

import dataclasses
import json
import os
import re
import signal
import webbrowser
from pathlib import Path

import jax.numpy as jnp
import pytest
from conftest import assert_resume_hint, params_sha256, records, saved_params, slow

from jaxnets.backprop.losses import SOFTMAX_CROSS_ENTROPY
from jaxnets.cli import commands
from jaxnets.cli.commands import COMMANDS
from jaxnets.cli.flags import parse_flags
from jaxnets.cli.help import BEGINNERS
from jaxnets.config.adapt import learning_rate_note
from jaxnets.config.fields import Config
from jaxnets.config.options import options_of
from jaxnets.config.resolve import preset, recipe_of
from jaxnets.losses import cross_entropy

NUMERIC = [f.name for f in dataclasses.fields(Config) if re.search("int|float", str(f.type))]
MAY_BE_ZERO = {"dropout", "label_smoothing", "momentum", "process_id", "seed"}
MAY_BE_ZERO |= {"clean_epochs", "target_accuracy", "validation_size", "weight_decay"}
NO_NUMBERS = ["", "ten", "nan", "inf", "-inf", "1e999", "1,,2", "0x10", "--seed=1"]
ABSURD = ["-1", "-0.5", "1e99", "99999999999999999999"]


def assert_failed(outcome, message):
    """Demands status 1 and one line on stderr."""
    assert outcome.status == 1
    assert re.fullmatch(f"error: {message}\n", outcome.err), outcome.err


# Requests that are wrong


@pytest.mark.parametrize("field", NUMERIC)
def test_every_numeric_flag_refuses_what_is_no_sound_number(run_main, tmp_path, field):
    for value in NO_NUMBERS + ABSURD + ([] if field in MAY_BE_ZERO else ["0"]):
        outcome = run_main(f"--{field}={value}", f"--workdir={tmp_path / 'run'}")
        outcome.assert_refused(f"{field}: expected ")
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_of_other_files_is_refused_and_kept(run_main, tiny_flags, tmp_path):
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "thesis.tex"
    file.write_text("years of work")
    for workdir in (file, file / "run"):
        outcome = run_main("--model=softmax", *tiny_flags, f"--workdir={workdir}")
        outcome.assert_refused("workdir: cannot write to", str(workdir))
    for more in ([], ["--overwrite"]):
        outcome = run_main("--model=softmax", *tiny_flags, *more)
        outcome.assert_refused("workdir: expected an empty folder", "thesis.tex")
    assert [*tmp_path.rglob("*")] == [file.parent, file] and file.read_text() == "years of work"


# Runs that fall short


def test_a_missed_target_is_status_1_after_the_run(run_main, tiny_flags, tmp_path):
    flags = ["--model=softmax", *tiny_flags, "--learning_rate=1e-9"]
    outcome = run_main(*flags, "--target_accuracy=1.0")
    assert_failed(outcome, r"--target_accuracy: expected a test accuracy of 1.0, got 0\.\d+")
    assert (tmp_path / "run" / "result.json").exists()
    assert run_main(*flags, "--target_accuracy=0", "--overwrite").status == 0


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_loss_not_finite_is_status_1_and_one_line(run_main, tiny_flags, tmp_path, devices):
    flags = ["--learning_rate=1e4", "--weight_decay=1", "--batch_size=8", f"--devices={devices}"]
    flags += ["--checkpoint_every=1000steps"]  # By default a busy machine may have saved by then.
    assert_failed(
        run_main("--model=mlp", *tiny_flags, *flags),
        r"the loss of step \d+ is (nan|inf), beginning with the output of \w+; "
        "nothing was saved before; try a --learning_rate below 10000",
    )
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.usefixtures("quick_steps")
def test_gradients_that_disagree_are_status_1_and_one_line(break_rule, run_main, tiny_flags):
    right = SOFTMAX_CROSS_ENTROPY.backward
    break_rule(cross_entropy, backward=lambda cache, dy: 2 * right(cache, dy))
    outcome = run_main("--model=softmax", *tiny_flags, "--gradients=both")
    assert_failed(outcome, "gradients disagree at step 0: .*")


# --help and output


def shown_help(run, capsys, *flags):
    """What a command prints with --help or --help_all, its lines joined."""
    with pytest.raises(SystemExit) as exit_:
        run(*flags)
    out, err = capsys.readouterr()
    assert (exit_.value.code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines[lines.index("") :])) <= 80
    return " ".join(out.split())


def test_help_needs_no_jax_and_answers_at_once(run_python):
    code = (
        "import sys, train; from jaxnets.base.errors import run_main\n"
        "try: run_main(train.main)\n"
        "finally: print(sys.modules.keys() & {'jax', 'flax', 'numpy', 'optax', 'jaxnets.models'})"
    )
    times = []
    for _ in range(3):
        before = sum(os.times()[2:4])  # Processor time of ended processes: others may be busy.
        outcome = run_python("-c", code, "--help")
        times.append(sum(os.times()[2:4]) - before)
        assert (outcome.status, outcome.err) == (0, "")
        assert outcome.out.endswith("\nset()\n")
    assert 0 < min(times) < 0.3


def test_help_shows_a_beginners_flags_and_help_all_the_rest(run_main, capsys):
    some, all_of_them = (shown_help(run_main, capsys, flag) for flag in ("--help", "--help_all"))
    shown = re.findall(r"--\w+", all_of_them.replace("[no_]", ""))
    for field in options_of(Config):
        assert f"--{field.name}" in shown and field.metadata["help"] in all_of_them
        assert (f"--{field.name}" in re.findall(r"--\w+", some)) == (field.name in BEGINNERS)
    assert len(BEGINNERS) == 13


def test_help_shows_the_defaults_of_the_model_that_is_named(run_main, capsys):
    for model, size in (("mlp", "512"), ("mlp_handwritten", "full")):
        text = shown_help(run_main, capsys, f"--model={model}", "--help")
        assert "passes over the training images [default: 50]" in text
        assert f"or full for all [default: {size}]" in text
    assert "as 64,64 [not for softmax]" in shown_help(run_main, capsys, "-h", "--model=softmax")


TALKS = ("completion", "demo", "exercise train", "replay")  # It prints a program, or a run's lines.


@pytest.mark.slow
def test_the_demo_trains_and_opens_its_page_on_a_display(
    run_command, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data = dict(data_dir=str(tiny_folder), validation_size=40, batch_size=32, devices=1)
    monkeypatch.setattr(commands, "DEMO", dict(model="softmax", epochs=1, **data))
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for display, flags in ((":0", ["--no_browser"]), ("", []), (":0", [])):
        monkeypatch.setenv("DISPLAY", display)
        outcome = run_command("demo", *flags)
        said = "" if display else "note: no display was found, so no browser is opened\n"
        assert (outcome.status, outcome.err) == (0, said)
        assert re.search(r"^(runs/\S+/page\.html): .*; open it in a browser$", outcome.out, re.M)
    (page,) = opened  # With a display, and not forbidden.
    assert page.startswith("file://") and Path(page.removeprefix("file://")).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_its_flags_and_those_of_train(run_command, capsys, command):
    text = shown_help(run_command, capsys, *command.split(), "--help")
    assert ("--json print JSON" in text) == (command not in TALKS)
    assert all(field.metadata["help"] for field in options_of(COMMANDS[command].kinds[0]))
    text = shown_help(run_command, capsys, *command.split(), "--help-all")
    trains = ("exercise train", "replay", "summary", "search", "lr_find", "trace")
    assert ("--momentum" in text) == (command in trains)


@pytest.mark.parametrize(
    ("model", "optimizer", "note"),
    [
        ("cnn", "adam", "adam starts with Keras's default learning rate 0.001 and no momentum"),
        ("mlp_functional", "sgd", "recipe's 0.001 is for rmsprop"),
        ("mlp_functional", "adam", ""),
        ("cnn", "sgd", ""),
    ],
)
def test_a_learning_rate_that_another_optimizer_brings_is_noted(model, optimizer, note):
    found = learning_rate_note(preset(model, optimizer=optimizer), recipe_of(model))
    assert note in found and bool(found) == bool(note)
    own = preset(model, optimizer=optimizer, learning_rate=0.4)
    assert not learning_rate_note(own, recipe_of(model))


@pytest.mark.slow
def test_that_note_is_in_the_headline(run_main, tiny_flags):
    outcome = run_main("--model=softmax", *tiny_flags, "--optimizer=adam")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines()[1].startswith("note: adam starts with")


def test_dashes_in_the_name_of_a_flag_are_underscores(run_command):
    given = parse_flags(["--learning-rate", "0.5", "--no-nesterov", "--data-dir=a-b", "--ten-crop"])
    assert given == dict(learning_rate=0.5, nesterov=False, data_dir="a-b", ten_crop=True)
    outcome = run_command("summary", "--model=mlp", "--num-classes=3", "--json")
    assert json.loads(outcome.out)["layers"][-1]["shape"] == [3]


def test_a_config_of_another_version_is_refused(run_command, finished_run, tmp_path):
    written = json.loads((finished_run.folder / "config.json").read_text())
    written["image_size"] = written.pop("input_size")
    del written["loss"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    outcome = run_command("predict", tmp_path, "a.png")
    outcome.assert_refused("config.json: no input_size, loss: another version of jaxnets wrote it")


def test_output_into_a_pipe_is_a_few_plain_lines(finished_run):
    status, out, err = finished_run.outcome
    assert (status, err) == (0, "")
    assert out.isascii() and out.replace("\n", "").isprintable()
    lines = [line for line in out.splitlines() if not line.startswith("note: ")]
    head, *epochs, test, ending, folder, report, command = lines
    assert "cnn: 36,227 parameters | tiny: 160 train, 40 validation, 50 test images" in head
    assert "CPU" in head and "no accelerator" in head and "float32" in head
    assert [int(line.split()[1].split("/")[0]) for line in epochs] == list(range(1, 21))
    assert re.fullmatch(r"test loss \d\.\d{4}  accuracy \d\.\d{4}", test)
    result = json.loads((finished_run.folder / "result.json").read_text())
    wrong = round(50 * (1 - result["test_accuracy"]))
    times = r"trained in \d+\.\d s, validated in \d+\.\d s"
    assert re.fullmatch(f"{wrong} of 50 test images are wrong; {times}", ending)
    assert folder == f"run folder: {finished_run.folder}"
    assert re.fullmatch(rf"its report: \S+( -m jaxnets)? report {finished_run.folder}", report)
    assert re.fullmatch(
        rf"your own pictures: \S+( -m jaxnets)? predict {finished_run.folder} PICTURE", command
    )


@pytest.mark.slow
def test_a_run_whose_reader_has_read_enough_is_saved(run_python, tiny_flags, tmp_path):
    code = """if True:
        import os, sys, train
        from jaxnets.base.errors import run_main
        from jaxnets.runs.progress import Progress
        epoch = Progress.on_epoch_end
        def last_epoch_read(progress, record, state):
            if record["epoch"] == 2:
                reader, writer = os.pipe()
                os.close(reader)
                os.dup2(writer, 1)
            epoch(progress, record, state)
        Progress.on_epoch_end = last_epoch_read
        sys.argv[0] = "train.py"
        sys.exit(run_main(train.main))
    """
    run, flags = tmp_path / "run", [*tiny_flags, "--epochs=9", "--checkpoint_every=9epochs"]
    outcome = run_python("-c", code, "--model=softmax", *flags)
    assert_resume_hint(outcome.err, "stdout has no reader any more", run)
    assert outcome.status == 1 and "epoch 1/9" in outcome.out
    assert saved_params(run)[0] == 10 and len(records(run)) == 2


# Signals


@pytest.mark.parametrize(
    "signals",
    [
        slow((signal.SIGTERM,)),
        slow((signal.SIGINT, signal.SIGINT)),
    ],
    ids=["SIGTERM", "SIGINT twice"],
)
def test_stopped_and_resumed_a_process_ends_the_same(run_python, finished_run, tmp_path, signals):
    """A signal comes in epoch 4 of 20, a second one before the next step, which takes an hour.

    The process sends them itself: a slow machine might be too late. SIGKILL: test_resume.py.
    """
    run, twice = tmp_path / "run", len(signals) > 1
    # On a slow machine step 120 is still being written when the second one ends the process.
    last = [80, 120] if twice else range(121, 160)
    code = f"""if True:
        import signal, sys, time, train
        from jaxnets.cli.start import run_main
        from jaxnets.runs.stopping import SAME_REQUEST
        from jaxnets.training import loop
        def interrupted(total, metrics, where):
            if where == "step 130":
                for number in {[*map(int, signals)]}:
                    print("signal", flush=True)
                    signal.raise_signal(number)
                    time.sleep(1.1 * SAME_REQUEST)
                time.sleep({3600 if twice else 0})
            return accumulate_metrics(total, metrics, where)
        accumulate_metrics, loop.accumulate_metrics = loop.accumulate_metrics, interrupted
        sys.argv[0] = "train.py"
        sys.exit(run_main(train.main))
    """
    flags = [*finished_run.flags, f"--workdir={run}", "--checkpoint_every=1epoch", "--keep=1"]
    stopped = run_python("-c", code, *flags)
    assert stopped.status == 128 + signals[0]
    assert stopped.out.splitlines()[3].startswith("epoch  3/20")
    assert stopped.out.endswith("signal\n" * len(signals))
    assert_resume_hint(stopped.err, "interrupted", run)
    assert twice or "saved after step 1" in stopped.err and "(epoch 4 of 20)" in stopped.err
    assert max(int(path.stem) for path in (run / "checkpoints").iterdir()) in last
    assert not (run / "result.json").exists()

    outcome = run_python("train.py", *flags, "--resume")
    assert outcome.status == 0 and "Traceback" not in outcome.err
    assert "epoch 20/20" in outcome.out and "epoch  1/20" not in outcome.out
    assert params_sha256(run) == params_sha256(finished_run.folder)


def test_ctrl_c_is_one_line_and_status_130(run_in_process):
    outcome = run_in_process(lambda _: signal.raise_signal(signal.SIGINT), "train.py")
    assert outcome == (130, "", "error: interrupted\n")


def test_jaxs_own_lack_of_memory_is_one_line(run_in_process):
    outcome = run_in_process(lambda _: jnp.zeros(2**50, jnp.uint8).block_until_ready(), "train.py")
    assert (outcome.status, outcome.out) == (1, "")
    assert re.fullmatch("error: not enough memory: .*1125899906842624 bytes.*\n", outcome.err)
