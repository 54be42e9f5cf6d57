"""What is refused: a property of whatever is typed, and one example of each kind of error.

A command answers with status 2 and one line on stderr, prints nothing and makes nothing; Python
raises a UserError or an AttributeError. More lines of refusals are tested where a test makes
something that is wrong: damaged checkpoints, pictures, archives.
"""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest
from command_flags import FLAGS
from conftest import VALIDATION, as_flags
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxnets
from benchmarks.__main__ import main as benchmarks
from jaxnets.base.display import one_line
from jaxnets.base.errors import UserError, message_and_status
from jaxnets.base.language import LANGUAGES, said, speaking
from jaxnets.cli import commands
from jaxnets.cli.flags import parse_command, parse_flags
from jaxnets.config.fields import Config
from jaxnets.config.options import options_of
from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import resolve

ODD_VALUES = [
    "", " ", "\n", "\x1b[2J", "\udc80", "\u202e", "\u0663", "-", "--", "=", "x" * 20_000,
    "9" * 5000, "inf", "-inf", "nan", "-0", "1e400", "0x10", "1_000", str(2**63), f"{2**63},1,1",
    "1,", "64,x", "cnn", "mlp_handwritten", "alexnet", "all", "full", "none", "true", "auto",
    "manual", "10minutes", "hidden=100,200", "learning_rate=0.1,x", "127.0.0.1:0", "[::1]:99999",
    "/dev/null", "/dev/zero", "/", "..", "~nobody-here/x", "gs:x", "x" * 300, "a\\b", "*",
]  # fmt: skip
VALUES = st.sampled_from(ODD_VALUES) | st.text(max_size=8) | st.integers().map(str)
VALUES |= st.floats().map(str)


@st.composite
def command_lines(draw):
    """A command and words of it: flags with a value, without one or misspelt, and lone words."""
    command = draw(st.sampled_from(sorted(FLAGS)))
    words = []
    for _ in range(draw(st.integers(1, 4))):
        flag, value = draw(st.sampled_from(FLAGS[command])), draw(VALUES)
        words += draw(
            st.sampled_from(
                [
                    [f"{flag}={value}"],
                    [flag, value],
                    [flag],
                    [value],
                    [f"{flag[:-1]}={value}"],
                    [f"{flag.replace('--', '--no_')}"],
                    [f"{flag.replace('_', '-').upper()}={value}"],
                ]
            )
        )
    return command, words


@given(command_lines(), st.sampled_from(LANGUAGES))
@settings(max_examples=200)
def test_whatever_is_typed_is_taken_or_refused_in_one_line(line, language):
    command, words = line
    with speaking(language), contextlib.redirect_stdout(io.StringIO()):
        try:
            if command == "train":
                resolve(parse_flags(words))
            else:
                parse_command(words, command, commands.COMMANDS[command])
        except SystemExit as ended:
            assert ended.code == 0  # --help, --version
        except Exception as error:
            message, status = message_and_status(error) or (None, None)
            assert message is not None, repr(error)
            assert status in (1, 2) and (status == 2 or isinstance(error, OSError))
            text = one_line(said(message))
            assert text and text.isprintable()


FIELDS = st.sampled_from([field.name for field in options_of(Config)]) | st.text(max_size=8)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
PLAIN |= st.sampled_from(ODD_VALUES)
CONTENTS = st.dictionaries(FIELDS, PLAIN | st.lists(PLAIN, max_size=3), max_size=4)


@given(CONTENTS, st.sampled_from(sorted(PRESETS)))
@settings(max_examples=150)
def test_whatever_a_config_holds_is_taken_or_refused_in_one_line(content, model):
    try:
        jaxnets.preset(**{"model": model, **content})
    except (UserError, OSError) as error:
        assert one_line(str(error)).isprintable()


# One example of each kind of error. Words of a command, `train` for train.py, and parts of the
# line on stderr. {tiny}: flags of a run on the tiny data; {run}: a finished run. FOLDERS and HERE
# say what is there.
COMMANDS = [
    ("train --model=cn", 'unknown model "cn"', 'did you mean "cnn"'),
    ("train --epoch=3", "unknown flag --epoch", "did you mean --epochs?"),
    ("train -x", "unknown flag -x", "--help_all lists all"),
    ("train cnn", "expected --name=value, got 'cnn'; did you mean --model=cnn?"),
    ("train --epochs", "epochs: expected --epochs=N (", "), got --epochs"),
    ("train --epochs=" + "9" * 400, "epochs: expected a whole number from 1 to 100000"),
    ("train --overwrite=yes", "overwrite: expected --overwrite without a value, got 'yes'"),
    ("train --workdir=~nobody-here/x", "workdir: expected a path", "~nobody-here/x"),
    ("train --input_size=64", "input_size: cnn has none (only for alexnet"),
    ("train --model=cnn --recipe=paper", "recipe: cnn has no paper (only for alexnet, "),
    ("train --model=alexnet --input_size=62", "from 63 to 1024 for alexnet, got 62"),
    ("train --optimizer=adam --momentum=0.9", "momentum and nesterov belong to sgd"),
    ("train --workdir=w --resume --overwrite", "resume and overwrite exclude each other"),
    ("train --patience=3", "patience: expected schedule plateau with it, got one_cycle; early"),
    ("train --num_processes=2", "all or none, got no coordinator and no process_id"),
    ("train --coordinator=here --num_processes=2 --process_id=0", "expected HOST:PORT"),
    (
        "train --coordinator=203.0.113.9:8476 --num_processes=2 --process_id=0",
        "coordinator: cannot listen on 203.0.113.9:8476 (",
    ),
    # What does not fit the data, the devices or the folder
    ("train {tiny} --data_dir=no", "data_dir", "no such folder"),
    ("train {tiny} --data_dir=file", "data_dir", "not a folder"),
    ("train {tiny} --data_dir=empty", "train-images-idx3-ubyte"),
    ("train {tiny} --validation_size=200", "validation_size", "200"),
    (
        "train {tiny} --batch_size=161",
        "batch_size: expected at most the 160 training images, or full for all of them, got 161",
    ),
    ("train {tiny} --devices=3", "batch_size 32 is not divisible by 3 devices"),
    ("train {tiny} --platform=gpu", "platform: expected gpu, JAX has only CPU", "JAX_PLATFORMS"),
    ("train {tiny} --devices=9", "devices: expected at most 8", "got 9"),
    ("train {tiny} --model=alexnet_small", "alexnet_small: images of (12, 12, 1) are too small"),
    ("train {tiny} --augment=flip,pca", "pca needs 3 channels", "have 1"),
    ("train {tiny} --checkpoint_every=5", "checkpoint_every: expected a number and a unit as 50"),
    ("train --config=missing.toml", "No such file or directory"),
    ("train --config=/dev/zero", "/dev/zero: more than 1,048,576 bytes"),
    # Commands
    ("evalate", 'unknown command "evalate"; did you mean jaxnets evaluate?'),
    ("--Runs", "runs: no such folder; train.py makes it"),
    ("completion tcsh", "expected a shell of bash, zsh, fish, got tcsh"),
    ("summary --image_shape=28,28", "image_shape: expected height, width and 1 or 3 channels"),
    ("summary --model=mlp --output=a.pdf", "as .svg or .png, got .pdf"),
    ("search --model=mlp", "over: expected --over=FIELD=A,B,... at least once"),
    ("search --model=mlp --over=hidden=4,0", "hidden: expected a whole number from 1"),
    ("search --model=mlp --over=seed=1,2", "over: seed cannot be searched over"),
    ("search --model=mlp --over=hidden=4 --overwrite", "overwrite: search does not take it"),
    ("search --model=mlp --over=hidden=4 --resume", "resume: no search.json in"),
    (
        "search --model=mlp --over=hidden=4 --cell=9/8",
        "expected I/N as 3/8, with I up to N, got '9/8'",
    ),
    ("predict runs/cnn", "got only runs/cnn: jaxnets predict RUN IMAGE... (--help explains)"),
    ("predict none a.png", "found no config.json; train.py prints its name at the end of a run"),
    ("predict seven.jpg {run}", "expected the run before the pictures: predict {run} "),
    ("gradcheck --mutant=relu_mask", "unknown mutant", "relu_mask_from_gradient"),
    ("gradcheck --model=cnn --mutant=nope", "expected one of", "got --model and --mutant"),
    ("gradcheck --mine=.", ".: expected a file, got a folder"),
    ("gradcheck --hint", "hint: expected it with --mine=FILE"),
    ("exercise new", "expected NAME, got none: jaxnets exercise new NAME"),
    ("exercise chek a.py", 'unknown command "chek"; did you mean jaxnets exercise check?'),
    ("exercise new dense --output=a.txt", "expected a name with .py"),
    ("exercise check nowhere.py", "nowhere.py", "No such file"),
    ("exercise grade empty", "empty: expected .py or .toml files"),
    ("trace {run}", "expected --image=FILE"),
    ("trace {run} --image=50", "a test image below 50, got 50"),
    ("trace {run} --image=1 --label=9", "one of 0, 1, 2, got '9'"),
    ("lr_find --output=no/a.svg", "output: no such folder: no"),
    ("lr_find --output=folder.svg", "output: expected a file, folder.svg is none"),
    ("export {run} --format=tflite", 'unknown format "tflite"'),
    ("report empty", "found no config.json"),
    ("page {run} -o", "output: expected --output=FILE ("),
    ("serve", "expected RUN [RUN_B], got none"),
    ("serve empty empty --split=50", "split: expected two percentages such as 50/50, got '50'"),
    ("serve empty --replicas=2", "replicas: expected --ray=local or --ray=ADDRESS with it"),
    ("serve empty --host=300.1.1.1", "host: cannot listen at 300.1.1.1"),
    ("abtest log.csv --split=inf/1", "split: expected two percentages"),
    ("abtest log.csv --alpha=0", "alpha: expected a number from 1e-06 to 0.5, got 0.0"),
    ("abtest no", "expected a log or a run folder: No such"),
    ("abtest {run}", "expected a log, or two runs: abtest {run} RUN_B"),
    ("abtest {run} {run} --dataset=mnist", "expected pictures of (12,"),
    ("benchmarks --part=rates", "rates", "rate"),
    ("benchmarks --rounds=0 --output=none.json", "rounds", "1 or more", "0"),
]
FOLDERS = ("empty", "folder.svg")
HERE = {"file": "", "log.csv": "arm,correct\n" + "A,1\nB,0\n" * 9}


# A command that reads the file in braces: what the file holds, and parts of the line.
FILES = {
    "train --config={a.toml}": [
        ("epoch = 3", "a.toml", "unknown flag epoch; did you mean epochs?"),
        ("epochs = 'many'", "a.toml", "epochs: expected a whole number, got 'many'"),
        ("epochs: 3", "expected a TOML file", "line 1"),
        ("#" * (2 << 20), "more than 1,048,576 bytes"),
    ],
    "train --config={a.json}": [
        ("{}", "no model"),
        ("[" * 100_000, "a.json: cannot be read"),
    ],
    "abtest {log.csv}": [
        ("", "expected one column arm in the first line (arm,correct,user,time), found ''"),
        ("arm,correct\n", "expected answers of users, found none"),
        ("arm,correct\nA,1\n\nA,yes\n", 'log.csv, line 4: correct: expected 1 or 0, found "yes"'),
        ("arm,correct\nA\n", "log.csv, line 2: expected 2 cells, found 1"),
        ("arm,correct,time\nA,1,noon\n", "time: expected seconds or a date as 2026-"),
        ("arm,correct\nA,\udcff\n", "expected CSV in UTF-8"),
        ("arm,correct\nA\x1b[2J,1\n", r'found "A\x1b[2J"'),
        ("arm,correct\n" + 300 * "A,1\n", "at least 2 users of each model, found 300 of A"),
        ("SQLite format 3\0" + 100 * "x", "expected a feedback log"),
    ],
    "exercise check {s.toml}": [
        ('exercise = "compute19"', "s.toml: expected a line such as", 'did you mean "compute'),
        ("a = " + "[" * 5000, "s.toml: expected"),
    ],
    "gradcheck --mine={mine.py}": [
        ("x = 1", "mine.py", "expected a function of an exercise", "got none"),
        ("def f(:", "mine.py", "line 1: "),
        ("\udcff", "mine.py", "expected a text in UTF-8"),
    ],
}

# What is written in Python, and what the error says.
PYTHON = [
    ('preset("mlp", lr=1)', 'unknown field "lr"; did you mean "learning_rate"?'),
    ('preset("mlp", zzz=1)', 'unknown field "zzz" (help(jaxnets.Config) lists them)'),
    ('preset("cnn", limit=0)', "limit: expected a whole number from 1"),
    (
        'preset("cnn", stop_at_target=True, target_accuracy=0.9, validation_size=0)',
        "stop_at_target watches the validation accuracy, but no images are held back",
    ),
    ('Experiment.create("cnn", data)', 'Config as jaxnets.preset("cnn"), got a str'),
    (
        'Experiment.create(preset("cnn_bn", reduction="sum"), data)',
        "reduction: expected mean for a network with batch norm",
    ),
    ("jaxnets.plot(jaxnets.History())", "expected the history of an epoch or more"),
    ('jaxnets.plot(history).save("curves.pdf")', "expected a figure as .svg or .png, got .pdf"),
    # After Keras's habits
    ("jaxnets.train(experiment.model, config)", '"train"; jaxnets.Network("cnn").fit() trains'),
    ('net.compile("adam")', 'are settings: jaxnets.Network("cnn", optimizer="adam")'),
    ("experiment.model.state_dict()", 'Chain has no "state_dict"; jaxnets.Network("cnn").state.'),
    *(
        (f"net.{name}", f'Network has no "{name}"; jaxnets.Network("cnn").state.params has the')
        for name in ("weights", "get_weights", "parameters", "params")
    ),
    ("net.freeze()", "init_from"),
    ("net.get_params()", 'jaxnets.Classifier("cnn") has the parameters of scikit-learn'),
    ("net.count_params()", "summary() prints their number"),
    ("net.plot()", "jaxnets.plot(history) draws the curves of the history that fit returns"),
    ("history.plot()", "jaxnets.plot(history) draws the curves of the history that fit returns"),
    ("net.to_onnx()", "`jaxnets export DIR` writes it as ONNX"),
    ("jaxnets.Dense(3)", "layers are Flax's, as flax.linen.Dense; jaxnets.Chain([...]) makes a"),
    ("jaxnets.list_models()", "`jaxnets train --help` lists the networks"),
    ("jaxnets.models()", "`jaxnets train --help` lists the networks"),
    ("jaxnets.runs()", '`jaxnets runs` lists the runs; jaxnets.load("runs/x") reads one'),
    ('net.fit("folder")', """Network("cnn", 'folder').fit()"""),
    ("net.fit(data)", 'Network("cnn", DATASET).fit()'),
    (
        "net.predict(np.zeros((5, 3)))",
        "pictures of 12 x 12 x 1, or rows of 144 numbers, got (5, 3)",
    ),
    ("Network('softmax').fit(x, y / 2)", "got float64 (5,); jaxnets.Regressor predicts numbers"),
    (
        'Network("cnn", (np.random.rand(40, 5), np.arange(40) % 2))',  # Classifier's default, too.
        'bytes or floats from 0 to 1, got rows of 5 numbers; model "mlp" takes rows',
    ),
    ("net.grads", 'Network has no "grads"; did you mean gradients?'),
    ("net.learning_rate", "net.config.learning_rate has it"),
    # A network and its methods
    ('net.gradients(x, y, by="torch")', """by: expected "manual" or "auto", got 'torch'"""),
    (
        "net.gradients(x[:, :5], y)",
        "expected images of (12, 12, 1), as in training, got (5, 12, 1)",
    ),
    ('Network("softmax", data, loss=my_loss).gradients(x, y)', "gradients: expected auto"),
    ("jaxnets.gradcheck(experiment)", "expected a jaxnets.Network, such as Network("),
    (
        "net.fit(np.zeros((9, 4)), np.arange(9) % 2)",
        "x and y: expected those of the first fit, because the network is trained",
    ),
    ("net.fit(validation_split=0.1)", 'Network("cnn", validation_size=...) holds images back'),
    ("net.fit(shuffle=False)", "every epoch has its own order"),
    ("net.fit(x, y, class_weight={0: 2})", "class_weight: a loss of your own weights classes: "),
    ("net.fit(callbacks=[3])", "a jaxnets.Callback or a function (epoch, logs), got 3"),
    ("net.evaluate(x, y, batch_size=0)", "batch_size: expected a whole number from 1, got 0"),
    ("net.save(folder)", "net.save(DIR, overwrite=True) replaces it"),
    ("jaxnets.load(folder.parent)", "found no config.json"),
    ('Network("cnn", workdir="runs/x")', "net.save(DIR) writes the run folder"),
    # Images and labels
    (
        "trained_on(np.zeros((9, 9)))",
        "expected a name, a folder, a Dataset or (images, labels), got ndarray",
    ),
    ("trained_on((np.full((9, 4), np.nan), np.zeros(9, int)))", "finite numbers below 3.4e38"),
    (
        "trained_on((np.zeros((9, 3, 8, 8)), np.zeros(9, int)))",
        "got (9, 3, 8, 8); the channels come last: x.transpose(0, 2, 3, 1)",
    ),
    ("trained_on(([[0.5], [0.5, 1]], [0, 1]))", "got rows that do not form one"),
    ("trained_on((np.zeros((2, 8, 8)), [0, 10**9]))", "expected 2 to 1000 classes, found 1001"),
    (
        "trained_on((np.zeros((9, 8, 8)), np.zeros(8, int)))",
        "as labels for 9 images, got int64 (8,)",
    ),
    (
        "trained_on((np.full((9, 8, 8), 255.0), np.zeros(9, int)))",
        "floats from 0 to 1, got float64 from 255",
    ),
    # Functions of the user's own
    (
        'trained_on(data, loss=my_loss, gradients="manual")',
        "gradients: expected auto, for a loss of your own",
    ),
    ("trained_on(data, optimizer=lambda rate: rate)", "expected an optax transformation, got "),
    # Pictures to predict
    (
        "predictor(np.full((28, 28), 256))",
        "bytes from 0 to 255 or as floats from 0 to 1, got int64 from 256",
    ),
    ("predictor(np.zeros((2, 9, 9, 2)))", "got shape (9, 9, 2)"),
    ("predictor([None])", "got object"),
]


@pytest.fixture
def refuse(run_main, run_command, run_in_process, tiny_folder, tmp_path, monkeypatch, request):
    """Runs a command in a folder of HERE and of `files`; demands its refusal, and nothing new."""
    tiny = as_flags(data_dir=tiny_folder, validation_size=VALIDATION, batch_size=32, epochs=2)
    tiny = " ".join([*tiny, "--devices=1", "--model=softmax", "--workdir=run"])
    ways = {"train": run_main, "benchmarks": lambda *words: run_in_process(benchmarks, "b", *words)}

    def check(words: str, *parts: str, **files: str) -> None:
        run = str(request.getfixturevalue("finished_run").folder) if "{run}" in words else ""
        monkeypatch.chdir(tmp_path)
        for name in FOLDERS:
            Path(name).mkdir()
        for name, content in (HERE | files).items():
            Path(name).write_bytes(content.encode(errors="surrogateescape"))
        before = sorted(tmp_path.rglob("*"))
        command, *flags = words.replace("{tiny}", tiny).replace("{run}", run).split(" ")
        outcome = ways[command](*flags) if command in ways else run_command(command, *flags)
        outcome.assert_refused(*(part.replace("{run}", run) for part in parts))
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row[0][:60])
def test_a_wrong_request_is_refused_in_one_line(row, refuse):
    refuse(*row)


@pytest.mark.parametrize(
    ("words", "content", "parts"),
    [(words, content, parts) for words, rows in FILES.items() for content, *parts in rows],
    ids=lambda value: repr(value)[:40],
)
def test_a_file_of_another_content_is_refused_in_one_line(words, content, parts, refuse):
    (name,) = re.findall("{(.*)}", words)
    refuse(words.replace("{", "").replace("}", ""), *parts, **{name: content})


@pytest.fixture(scope="module")
def names(tiny, tiny_preset, tmp_path_factory) -> dict[str, Any]:
    """What the expressions of PYTHON name: a trained network, its parts, its folder."""
    net = jaxnets.Network(tiny_preset("softmax"))
    net.fit(verbose=0)
    experiment, folder = net.experiment, net.save(tmp_path_factory.mktemp("saved") / "run")

    def my_loss(logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def trained_on(data, **settings):
        settings.setdefault("batch_size", 2)
        return Network("softmax", data, **settings)

    Network, preset = jaxnets.Network, jaxnets.preset
    known = dict(jaxnets=jaxnets, np=np, optax=optax, Network=Network, preset=preset, net=net)
    known |= dict(Experiment=jaxnets.Experiment, experiment=experiment, config=experiment.config)
    known |= dict(x=tiny.train.images[:5], y=tiny.train.labels[:5])
    known |= dict(data=tiny, state=net.state, history=net.history, predictor=net.predictor)
    return known | dict(folder=folder, my_loss=my_loss, trained_on=trained_on)


@pytest.mark.parametrize(("expression", "said"), PYTHON)
def test_a_wrong_expression_is_answered_in_a_sentence(expression, said, names):
    with pytest.raises((UserError, AttributeError, TypeError)) as answered:
        eval(expression, names)
    assert said in str(answered.value) and "\n" not in str(answered.value)
