"""What a newcomer types first: each guess is done, or answered by a line with the right word."""

import contextlib
import re

import pytest

from jaxnets.base.display import width_of
from jaxnets.base.words import ALIASES, WORDS
from jaxnets.cli.commands import COMMANDS
from jaxnets.cli.flags import parse_flags
from jaxnets.config.fields import Config
from jaxnets.config.file import read_flags
from jaxnets.tune.commands import _values

# A line as it is typed after `jaxnets`, and what its answer must contain.
GUESSES = [
    # The field's words for our commands
    ("fit", "jaxnets train"),
    ("test", "jaxnets evaluate RUN"),
    ("test runs/cnn", "jaxnets evaluate RUN"),
    ("validate", "jaxnets evaluate RUN"),
    ("score", "jaxnets evaluate RUN"),
    ("models", "jaxnets help train"),
    ("networks", "jaxnets help train"),
    ("datasets", "jaxnets help train"),
    ("list", "jaxnets runs"),
    ("ls", "jaxnets runs"),
    ("log", "jaxnets runs"),
    ("status", "jaxnets runs"),
    ("draw", "jaxnets page RUN"),
    ("plot", "jaxnets report RUN"),
    ("show", "jaxnets summary"),
    ("info", "jaxnets summary"),
    ("solution", "jaxnets exercise answers"),
    ("solutions", "jaxnets exercise answers"),
    ("teach", "jaxnets exercise grade FOLDER"),
    ("teacher", "jaxnets exercise grade FOLDER"),
    ("check f.py", "jaxnets gradcheck", "exercise check FILE", "jaxnets.check"),
    ("resume", "jaxnets train --resume"),
    ("infer", "jaxnets predict RUN PICTURE"),
    ("classify a.png", "jaxnets predict RUN PICTURE"),
    ("tune", "jaxnets search"),
    ("sweep", "jaxnets search"),
    ("deploy", "jaxnets serve RUN"),
    ("onnx", "jaxnets export RUN"),
    # Our own words, misspelt or in another place
    ("evalaute", "jaxnets evaluate"),
    ("Trian", "jaxnets train"),
    ("exercises", "jaxnets exercise"),
    ("new dense", "jaxnets exercise new"),
    ("exercise solution", "jaxnets exercise answers"),
    ("exercise anwsers", "jaxnets exercise answers"),
    ("exercise list", "jaxnets help exercise"),
    ("cnn", "jaxnets train --model=cnn"),
    ("resnet", "jaxnets train --model=resnet20"),
    ("mnist", "jaxnets train --dataset=mnist"),
    ("adam", "jaxnets train --optimizer=adam"),
    ("epochs", "jaxnets train --epochs"),
    ("gpu", "jaxnets train --platform=gpu"),
    ("-e 3", "jaxnets train --epochs"),
    ("--epochs=3", "jaxnets train --epochs=3"),
    ("hlep", "jaxnets help"),
    ("xyzzy", "jaxnets help lists the commands"),
    # Flags
    ("train -e 3", "did you mean --epochs?"),
    ("train --num_epochs=3", "did you mean --epochs?"),
    ("train --n-epochs=3", "did you mean --epochs?"),
    ("train --lrr=3", "did you mean --learning_rate?"),
    ("train --data=x", "did you mean --dataset?"),
    ("train --layers=3", "did you mean --hidden?"),
    ("train --gpu", "did you mean --platform=gpu?"),
    ("train --cuda", "did you mean --platform=gpu?"),
    ("train --gpus=2", "did you mean --devices?"),
    ("train --adam", "did you mean --optimizer=adam?"),
    ("train --amp", "did you mean --precision=mixed?"),
    ("train --output_dir=x", "did you mean --workdir?"),
    ("train --random_state=3", "did you mean --seed?"),
    ("train --network=cnn", "did you mean --model?"),
    ("train --val_split=0.1", "did you mean --validation_size?"),
    ("train --wandb", "did you mean --track?"),
    ("train --models", "did you mean jaxnets help train?"),
    ("train --helb", "did you mean --help?"),
    ("predict run a.png --gpu", "unknown flag --gpu"),
    # Words and values
    ("train cnn", "expected --name=value, got 'cnn'; did you mean --model=cnn?"),
    ("train net.py", "did you mean --model=net.py?"),
    ("gradcheck net.py", "did you mean --model=net.py?"),
    ("train epochs=3", "did you mean --epochs=3?"),
    ("train lr=0.1", "did you mean --learning_rate=0.1?"),
    ("train help", "did you mean --help?"),
    ("summary mlp", "did you mean --model=mlp?"),
    ("train --model=cnnn", 'did you mean "cnn"?'),
    ("train --model=LeNet-5", 'did you mean "cnn"?'),
    ("train --model=lstm", "(known: softmax, mlp_sequential,"),
    ("train --Batch-Size=0", "error: --Batch-Size: expected a whole number from 1"),
    ("train --batch_size=all", "error: --batch_size: expected a whole number or full, got 'all'"),
    (
        "train --early_stopping=no",
        "error: --early_stopping: expected a whole number or none, ",
    ),
    ("train --dataset=t.csv", 'got t.csv; in Python, jaxnets.Classifier("mlp") takes tables'),
    ("train --patience=3", "error: --patience: expected schedule plateau", "early_stopping=3"),
    ("search --over=zzz=1,2", "over: unknown flag zzz"),
    ("search --over=hidden=4 --over=hidden=8", "over: expected each field once, got hidden twice"),
    ("search --over=epoch=1,2", "over: unknown flag epoch; did you mean epochs?"),
]


@pytest.mark.parametrize(("typed", "parts"), [(first, rest) for first, *rest in GUESSES])
def test_a_guess_is_answered_by_the_right_word(run_command, tmp_path, monkeypatch, typed, parts):
    monkeypatch.chdir(tmp_path)
    outcome = run_command(*typed.split())
    outcome.assert_refused(*parts)
    assert not list(tmp_path.iterdir())
    # Of the three answers to `check` none is clearer than the others.
    assert len(outcome.err) <= 80 or "did you mean" not in outcome.err or "check" in typed


@pytest.mark.parametrize(
    ("far", "wrong"),
    [
        ("contest", "abtest"),
        ("preach", "search"),
        ("pollution", "completion"),
        ("train --zoom", "did you mean"),
        ("train --replace", "overwrite"),
        ("train --overwrit", "overwrite"),
        ("predict run a.png --gpu", "did you mean"),
        ("exercise list", "jaxnets runs"),
    ],
)
def test_a_far_word_is_no_answer(run_command, far, wrong):
    outcome = run_command(*far.split())
    outcome.assert_refused("unknown ")
    assert wrong not in outcome.err


@pytest.fixture
def printed(run_command, capsys):
    """What a command line prints, whose help and version end the process."""

    def run(line):
        with contextlib.suppress(SystemExit):
            return run_command(*line.split()).out
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("typed", "same"),
    [
        ("help", "--help"),
        ("-h", "--help"),
        ("help train", "train --help"),
        ("--help train", "train --help"),
        ("help train --help_all", "train --help_all"),
        ("help search", "search --help"),
        ("help exercise", "exercise --help"),
        ("help exercise new", "exercise new --help"),
        ("help --language=zh", "--help --language=zh"),
        ("help runs --language=zh", "runs --help --language=zh"),
        ("version", "--version"),
        ("-V", "--version"),
    ],
)
def test_help_and_version_are_commands_too(printed, typed, same):
    wanted = printed(same)
    assert wanted and printed(typed) == wanted
    assert max(map(width_of, wanted.splitlines())) <= 80


def test_help_of_an_unknown_command_is_refused(run_command):
    run_command("help", "tarin").assert_refused('unknown command "tarin"; did you mean jaxnets tr')


def test_every_answer_is_a_command_or_a_flag_that_exists():
    names = {"train", "help train", *COMMANDS}
    for answer in WORDS:
        if answer.startswith("--"):
            name, equals, value = answer.removeprefix("--").partition("=")
            assert name in Config.__dataclass_fields__
            assert not equals or parse_flags([answer]) == {name: value}
            continue
        for command in re.findall(r"jaxnets ([a-z ]*[a-z])", answer):
            assert command in names
    words = [word for line in WORDS.values() for word in line.split()]
    assert len(words) == len(set(words)) and not set(words) & {*ALIASES, *names}


def test_a_wrong_word_needs_no_jax(run_python):
    """So its answer comes at once."""
    code = (
        "import sys; from jaxnets.__main__ import main; from jaxnets.base.errors import run_main; "
    )
    code += "sys.argv[1:] = {}; assert run_main(main) == 2; assert 'jax' not in sys.modules"
    for words in (["fit"], ["train", "--gpu"], ["train", "cnn"], ["search", "--over=epoch=1"]):
        status, _, err = run_python("-c", code.format(words))
        assert status == 0 and err.count("\n") == 1, err


# The names of other programs that are taken


@pytest.mark.parametrize("name", ["lr", "LR", "learning-rate", "learningRate"])
def test_a_search_and_a_file_take_the_names_that_train_takes(tmp_path, name):
    assert _values(f"{name}=0.1,0.2") == ("learning_rate", [0.1, 0.2])
    file = tmp_path / "a.toml"
    file.write_text(f"{name} = 0.5\nepochs = 2")
    assert read_flags(str(file)) == {"learning_rate": 0.5, "epochs": 2}
    assert read_flags(str(file), [f"{name}=0.1"]) == {"epochs": 2}
