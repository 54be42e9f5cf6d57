"""What is refused, in three tables: what is typed, what is in a file, what is written in Python.

A command answers with status 2 and one line on stderr, prints nothing and makes nothing; Python
raises a UserError or an AttributeError. More lines of refusals stand where a test makes something
that is wrong: damaged checkpoints, pictures, archives.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest
from conftest import VALIDATION, as_flags

import jaxnets
from benchmarks.__main__ import main as benchmarks
from jaxnets.errors import UserError

# Words of a command, `train` for train.py, and parts of the line on stderr. {tiny}: flags of a run
# on the tiny data; {run}: a finished run. FOLDERS and HERE say what lies there.
COMMANDS = [
    # train.py: flags and their values
    ("train --model=cn", 'unknown model "cn"', 'did you mean "cnn"'),
    ("train --model=", "unknown model"),
    ("train --model=--", 'unknown model "--"'),
    ("train --model=\x1b[2Jcnn", r'unknown model "\x1b[2Jcnn"; did you mean "cnn"?'),
    (
        "train --model --epochs=3",
        "model: expected --model=NAME (network to train, or ",
        "got --model",
    ),
    ("train --dataset=mnits", 'unknown dataset "mnits"', 'did you mean "mnist"'),
    ("train --optimizer=adm", 'unknown optimizer "adm"', 'did you mean "adam"'),
    ("train --schedule=onecicle", 'did you mean "one_cycle"'),
    ("train --parallel=pmpa", 'unknown parallel "pmpa"', 'did you mean "pmap"'),
    ("train --platform=gpus", 'unknown platform "gpus"', 'did you mean "gpu"'),
    ("train --precision=float16", 'unknown precision "float16"', "bfloat16"),
    ("train --activation=tanh", 'unknown activation "tanh"', "relu, sigmoid, softmax"),
    ("train --log_format=keras", 'unknown log_format "keras"'),
    ("train --epoch=3", "unknown flag --epoch", "did you mean --epochs?"),
    ("train --zzzz", "unknown flag --zzzz", "--help_all lists all"),
    ("train -x", "unknown flag -x"),
    ("train cnn", "expected flags as --name=value, got 'cnn'"),
    ("train --epochs", "epochs: expected --epochs=N (", "), got --epochs"),
    ("train --epochs=" + "9" * 400, "epochs: expected a whole number from 1 to 100000"),
    ("train --overwrite=yes", "overwrite: expected --overwrite without a value, got 'yes'"),
    ("train --input_size=64", "input_size: cnn has none (only for alexnet"),
    ("train --workdir=~nobody-here/x", "workdir: expected a path", "~nobody-here/x"),
    ("train --model=mlp --hidden=1" + ",1" * 100, "hidden: expected at most 100"),
    ("train --hidden=64,64", "hidden: cnn has one hidden layer, got (64, 64)"),
    ("train --optimizer=adam --momentum=0.9", "momentum and nesterov belong to sgd"),
    ("train --momentum=0 --nesterov", "nesterov: expected a momentum above 0"),
    ("train --workdir=w --resume --overwrite", "resume and overwrite exclude each other"),
    (
        "train --early_stopping",
        "early_stopping: expected --early_stopping=N (epochs without a lower validation loss until "
        "training ends), got --early_stopping",
    ),
    ("train --patience=3", "patience: expected schedule plateau with it, got one_cycle; early"),
    ("train --early_stopping=2 --patience=5", "patience: expected schedule plateau with it"),
    # train.py: what a network or a recipe has none of
    ("train --model=cnn --recipe=paper", "recipe: cnn has no paper (only for alexnet, "),
    ("train --model=alexnet_small --recipe=paper", "recipe: alexnet_small has no paper"),
    ("train --model=alexnet --recipe=papr", 'unknown recipe "papr"; did you mean "paper"'),
    ("train --model=cnn --init=paper", "init: cnn has none", "alexnet_small"),
    ("train --model=cnn --normalize=none", "only for alexnet, alexnet_paper, alexnet_small"),
    ("train --model=alexnet --init=xavier", 'unknown init "xavier"'),
    ("train --model=alexnet --input_size=62", "from 63 to 1024 for alexnet, got 62"),
    ("train --model=alexnet --validation_size=0 --schedule=plateau", "no images are held"),
    ("train --model=mlp_handwritten --hidden=6 --latent_dims=5,6", "exclude each other"),
    ("train --model=mlp --latent_dims=5,6", "latent_dims: mlp has none"),
    ("train --model=cnn --replay_seeds=3", "replay_seeds: cnn has no search to repeat"),
    ("train --model=mlp_handwritten --latent_dims=0", "latent_dims: expected a whole number"),
    # train.py: several processes
    ("train --platform=gpu --cpu_devices=2", "cpu_devices: expected platform cpu, got gpu"),
    (
        "train --coordinator=10.0.0.1:8476",
        "coordinator, num_processes, process_id: expected all or none, got no num_processes and no "
        "process_id",
    ),
    ("train --num_processes=2", "all or none, got no coordinator and no process_id"),
    ("train --coordinator=here --num_processes=2 --process_id=0", "expected HOST:PORT"),
    ("train --coordinator=here:65536 --num_processes=2 --process_id=0", "expected HOST:PORT"),
    (f"train --coordinator={'h' * 64}:7 --num_processes=2 --process_id=0", "expected HOST:PORT"),
    (
        "train --coordinator=[::1]:7 --num_processes=2 --process_id=2",
        "process_id: expected a whole number from 0 to 1 for num_processes 2, got 2",
    ),
    ("train --coordinator=here:1234 --distributed", "exclude each other"),
    *(
        (
            f"train --coordinator={host}:8476 --num_processes=2 --process_id=0",
            f"coordinator: cannot listen on {host}:8476 (",
            "expected an",
        )
        for host in ("203.0.113.9", "0.0.0.0", "[::]", "no.such.host.invalid")
    ),
    ("devices --coordinator=here:1234 --num_processes=2 --process_id=0", "only train.py supports"),
    # train.py: what does not fit the data, the devices or the folder
    ("train {tiny} --data_dir=no", "data_dir", "no such folder"),
    ("train {tiny} --data_dir=file", "data_dir", "not a folder"),
    ("train {tiny} --data_dir=empty", "train-images-idx3-ubyte"),
    ("train {tiny} --validation_size=200", "validation_size", "200"),
    (
        "train {tiny} --batch_size=161",
        "batch_size: expected at most the 160 training images, or full for all of them, got 161",
    ),
    ("train {tiny} --devices=3", "batch_size 32 is not divisible by 3 devices"),
    ("train {tiny} --parallel=jit --devices=5", "batch_size 32 is not divisible by 5 devices"),
    ("train {tiny} --batch_size=full --devices=3", "batch_size 160 is not divisible by 3 devices"),
    ("train {tiny} --platform=gpu", "platform: expected gpu, JAX has only CPU", "JAX_PLATFORMS"),
    ("train {tiny} --platform=tpu", "platform: expected tpu, JAX has only CPU", "JAX_PLATFORMS"),
    (
        "train {tiny} --cpu_devices=4 --devices=5",
        "devices: expected at most 4 (CPU",
        "as 4 devices), got",
    ),
    ("train {tiny} --devices=9", "devices: expected at most 8", "got 9"),
    ("train {tiny} --cpu_devices=300", "cpu_devices", "from 1 to 256", "got 300"),
    (
        "train {tiny} --cpu_devices=9",
        "cpu_devices: expected 9, but this Python has started JAX with 8",
    ),
    ("train {tiny} --model=alexnet_small", "alexnet_small: images of (12, 12, 1) are too small"),
    (
        "train {tiny} --steps_per_epoch=6",
        "steps_per_epoch: expected at most the 5 steps of a pass over the 160",
    ),
    ("train {tiny} --loss=custom:my_loss", "expected my_loss"),
    ("train {tiny} --augment=flop", 'did you mean "flip"'),
    ("train {tiny} --augment=crop,mixpu", 'unknown augment "mixpu"; did you mean "mixup"'),
    ("train {tiny} --augment=crop,", 'unknown augment ""'),
    ("train {tiny} --augment=none,flip", "none alone, got none,flip"),
    ("train {tiny} --augment=flip,flip", "each name once", "got flip,flip"),
    ("train {tiny} --augment=flip,pca", "pca needs 3 channels", "have 1"),
    ("train {tiny} --model=cnn --ten_crop", "ten_crop: cnn has no"),
    ("train {tiny} --model=alexnet --ten_crop", "larger than input_size 64", "12x12"),
    ("train {tiny} --track=tensorbord", 'did you mean "tensorboard"?'),
    ("train {tiny} --track=none,none", "track: expected each name once"),
    *(
        (
            f"train {{tiny}} --checkpoint_every={wrong}",
            "checkpoint_every: expected a number and a unit as 500steps",
            repr(wrong),
        )
        for wrong in ("5", "steps", "0steps", "-1epochs", "1.5minutes", "2hours", "")
    ),
    ("train --config=missing.toml", "No such file or directory"),
    ("train --config=empty", "config.json: No such file or directory"),
    ("train --config=", "config: expected a file, got an empty name"),
    ("train --config=/dev/zero", "/dev/zero: neither a file nor a pipe"),
    ("train --config=/dev/null", "/dev/null: neither a file nor a pipe"),
    # Commands
    ("evalate", 'unknown command "evalate"; did you mean "evaluate"? (known: train, summary, '),
    ("gradchek", 'unknown command "gradchek"', 'did you mean "gradcheck"?'),
    ("--Runs", "runs: no such folder; train.py makes it"),
    ("completion tcsh", "expected a shell of bash, zsh, fish, got tcsh"),
    ("devices --platform=gpu", "platform: expected gpu, JAX has only"),
    ("summary --image_shape=28,28", "image_shape: expected height, width and 1 or 3 channels"),
    ("summary --model=alexnet --image_shape=28,28,5", "1 or 3 channels, as 28,28,1, got (28,"),
    ("summary --num_classes=0", "num_classes: expected a whole number from 1 to 1000000, got 0"),
    (f"summary --image_shape={10**20},1,1", "image_shape: expected a whole number from 1 to"),
    ("summary --model=cnn --image_shape=4,4,1", "images of (4, 4, 1) are too small"),
    ("summary --model=mlp --output=a.pdf", "as .svg or .png, got .pdf"),
    ("search", "at least once, as --over=hidden=100,200, got none"),
    ("search --over=hidden:1,2", "over: expected FIELD=A,B,..., got 'hidden:1,2'"),
    ("search --model=mlp", "over: expected --over=FIELD=A,B,... at least once"),
    ("search --model=mlp --over=hidden", "over: expected FIELD=A,B,..., got 'hidden'"),
    ("search --model=mlp --over=hiden=4", "unknown flag --hiden; did you mean --hidden?"),
    ("search --model=mlp --over=hidden=4,0", "hidden: expected a whole number from 1"),
    ("search --model=mlp --over=hidden=4,x", "hidden: expected numbers"),
    ("search --model=mlp --over=seed=1,2", "over: seed cannot be searched over"),
    ("search --model=mlp --over=hidden=4 --hidden=5", "over: hidden cannot be searched over"),
    ("search --model=mlp --over=hidden=4 --seeds=0", "seeds: expected a whole number from 1 to"),
    ("search --model=mlp --over=hidden=4 --overwrite", "overwrite: search has none"),
    ("search --model=mlp --over=hidden=8,16 --early_stopping=2", "early_stopping: search has none"),
    (
        "search --model=mlp --over=hidden=8,16 --target_accuracy=0.9",
        "target_accuracy: search has none",
    ),
    ("search --model=mlp --over=early_stopping=1,2", "early_stopping: search has none"),
    ("search --model=cnn --over=limit=100,200", "over: limit cannot be searched over"),
    ("search --model=mlp --over=hidden=4 --resume", "resume: no search.json in"),
    ("search --model=mlp --over=hidden=4 --sedes=3", "unknown flag --sedes"),
    (
        "search --model=mlp --over=hidden=4 --cell=9/8",
        "expected I/N as 3/8, with I up to N, got '9/8'",
    ),
    (
        "search --model=mlp --over=hidden=4 --cell=3",
        "cell: expected I/N as 3/8, with I up to N, got '3'",
    ),
    ("search --model=mlp --over=hidden=4 --cell=1/2", "cell: expected --workdir=FOLDER too"),
    ("search --model=mlp --over=hidden=4 --ray=local --processes=2", "ray exclude each other"),
    (
        "search --model=softmax --over=learning_rate=0.1,0.2 --schedule=plateau",
        "schedule: plateau watches the images on which a search judges",
    ),
    ("predict", "RUN IMAGE"),
    ("predict run", "IMAGE"),
    ("predict runs/cnn", "got only runs/cnn: jaxnets predict RUN IMAGE... (--help explains)"),
    ("predict none a.png", "found no config.json; train.py prints its name at the end of a run"),
    ("predict ~nobody-here/x a.png", "expected a run folder"),
    ("predict seven.jpg {run}", "expected the run before the pictures: predict {run} "),
    ("predict run a.png --tpo=3", "unknown flag --tpo; did you mean --top?"),
    ("predict run a.png --top=0", "top: expected a whole number from 1 to 1000000, got 0"),
    ("predict run a.png --top=all", "top: expected a whole number"),
    ("predict run a.png --prepare=digt", 'unknown prepare "digt"; did you mean "digit"'),
    ("gradcheck --modle=cnn", "unknown flag --modle", "did you mean --model?"),
    ("gradcheck cnn", "expected flags as --name=value, got 'cnn'"),
    ("gradcheck --model=cn", 'unknown model "cn"', 'did you mean "cnn"?'),
    ("gradcheck --model", "--model"),
    ("gradcheck --json=yes", "--json"),
    ("gradcheck --mutant=relu_mask", "unknown mutant", "relu_mask_from_gradient"),
    ("gradcheck --model=cnn --mutant=nope", "expected one of", "got --model and --mutant"),
    ("gradcheck --mine=my_compute1.toml", "exercise check my_compute1.toml"),
    ("gradcheck --mine=. --model=cnn", "got --model and --mine"),
    ("gradcheck --mine=.", ".: expected a file, got a folder"),
    ("gradcheck --hint", "hint: expected it with --mine=FILE"),
    ("gradcheck --language=en", "expected it with --mine=FILE"),
    (
        "exercise new",
        "expected exercise, exercise new NAME, exercise check FILE or exercise answers",
    ),
    ("exercise new dens", 'unknown exercise "dens"', 'did you mean "dense"?'),
    ("exercise new bug99", "unknown exercise"),
    ("exercise new nope", 'unknown exercise "nope" (jaxnets exercise lists all)'),
    ("exercise new dense --output=a.txt", "expected a name with .py"),
    ("exercise new dense --output=nowhere/a.py", "no such folder: nowhere"),
    ("exercise check nowhere.py", "nowhere.py", "No such file"),
    ("exercise check nowhere.toml", "nowhere.toml", "No such file"),
    ("grade", "expected SUBMISSIONS"),
    ("grade nowhere", "nowhere: expected a folder of submissions"),
    ("grade empty", "empty: expected files .py or .toml"),
    ("grade empty --seconds=0", "seconds: expected"),
    ("grade empty --sandbox=chroot", 'unknown sandbox "chroot"'),
    ("trace {run}", "expected --image=FILE"),
    ("trace {run} {run} --image=1", "expected one run"),
    ("trace {run} --model=mlp --image=1", "got --model too"),
    ("trace empty --image=1", "found no config.json"),
    ("trace {run} --image=50", "a test image below 50, got 50"),
    ("trace {run} --image=1 --label=9", "one of 0, 1, 2, got '9'"),
    ("trace {run} --image=no.png", "image: no.png"),
    ("trace {run} --image=1 --output=a.gif", ".svg or .png"),
    ("trace {run} --image=1 -o a.gif", ".svg or .png"),
    ("trace {run} --image=1 --output=no/a.svg", "no such folder"),
    ("lr_find --output=a.xyz", "output: expected a figure as .svg or .png, got .xyz"),
    ("lr_find --output=a", "output: expected a figure as .svg or .png, got a"),
    ("lr_find --output=no/a.svg", "output: no such folder: no"),
    ("lr_find --output=folder.svg", "output: expected a file, folder.svg is none"),
    ("export none", "expected a run folder"),
    ("export {run} --format=tflite", 'unknown format "tflite"'),
    ("export {run} --output=empty", "output: expected a file"),
    ("export {run} --output=none/x.safetensors", "output: no such folder: "),
    ("report", "expected RUN..."),
    ("report empty", "found no config.json"),
    ("report none", "expected a run folder"),
    ("report {run} -o no/a.html", "output: no such folder: "),
    ("report {run} --language=fr", "language"),
    ("page none", "none: expected a run folder, found no config.json; "),
    ("page empty", "expected a run folder, found no config.json in "),
    ("page {run} -o", "output: expected --output=FILE ("),
    ("page {run} -o empty", "output: expected a file, empty is none"),
    ("page {run} --output=no/x.html", "output: no such folder: no"),
    ("serve", "expected RUN [RUN_B], got none"),
    ("serve empty b c", "expected one run or two, got 3"),
    ("serve nowhere", "expected a run folder, found no config.json"),
    ("serve empty empty --split=50", "split: expected two percentages as 50/50, got '50'"),
    ("serve empty --split=90/10", "split: expected two runs with it, got one"),
    ("serve empty --replicas=2", "replicas: expected --ray=local or --ray=ADDRESS with it"),
    ("serve empty --port=70000", "port: expected a whole number from 0 to 65535"),
    ("serve empty --host=300.1.1.1", "host: cannot listen at 300.1.1.1"),
    ("serve empty --prot=1", "did you mean --port?"),
    ("abtest log.csv --split=1", "split: expected two percentages as 50/50, got '1'"),
    ("abtest log.csv --split=0/100", "split: expected two percentages"),
    ("abtest log.csv --split=inf/1", "split: expected two percentages"),
    ("abtest log.csv --split=nan/1", "split: expected two percentages"),
    ("abtest log.csv --alpha=0", "alpha: expected a number from 1e-06 to 0.5, got 0.0"),
    ("abtest log.csv --dataset=mnist", "expected two runs with it, got a log"),
    ("abtest log.csv --output=a.xyz", "output: expected a figure as .svg or .png, got .xyz"),
    ("abtest no", "expected a log or a run folder: No such"),
    ("abtest empty", "expected a log or a run folder"),
    ("abtest /dev/zero", "expected a log or a run folder"),
    ("abtest ~nobody-here/x", "expected a log or a run folder"),
    ("abtest a\0b", "expected a log or a run folder"),
    ("abtest {run}", "expected a log, or two runs: abtest {run} RUN_B"),
    ("abtest {run} {run} c", "expected a log, or two runs, got 3"),
    ("abtest {run} no", "expected a run folder, found no"),
    ("abtest {run} empty", "expected a run folder, found no"),
    ("abtest {run} {run} --output=a.png", "expected a log with them"),
    ("abtest {run} {run} --dataset=mnist", "expected pictures of (12,"),
    ("benchmarks --part=rates", "rates", "rate"),
    ("benchmarks --network=cnm", "cnm", "cnn"),
    ("benchmarks --draw --output=none.json", "draw", "expected numbers"),
    ("benchmarks --rounds=0 --output=none.json", "rounds", "1 or more", "0"),
]
FOLDERS = ("empty", "folder.svg")
HERE = {"file": "", "log.csv": "arm,correct\n" + "A,1\nB,0\n" * 9}


# A command that reads the file in braces: what the file holds, and parts of the line.
FILES = {
    "train --config={a.toml}": [
        ("epoch = 3", "a.toml", "unknown flag epoch; did you mean epochs?"),
        ("epochs = 'many'", "a.toml", "epochs: expected a whole number, got 'many'"),
        ("epochs = 0", "epochs: expected a whole number from 1 to"),
        ("epochs = true", "epochs: expected a whole number, got True"),
        ("hidden = [1.5]\nmodel='mlp'", "hidden: expected a whole number, got 1.5"),
        ("[train]\nepochs = 3", "unknown flag train"),
        ("epochs: 3", "expected a TOML file", "line 1"),
        ("\udcff", "expected a TOML file"),
        ("#" * (2 << 20), "more than 1,048,576 bytes"),
    ],
    "train --config={a.json}": [
        ("[1, 2]", "expected names and values"),
        ("{}", "no model"),
        ('{"model": "cnn", "epochs": -1}', "epochs: expected a whole number from 1"),
        ("[" * 100_000, "expected the config.json of a run"),
    ],
    "abtest {log.csv}": [
        ("", "expected one column arm in the first line (arm,correct,user,time), found ''"),
        ("arm,arm,correct\nA,A,1\n", "expected one column arm"),
        ("arm,right\nA,1\n", "expected one column correct"),
        ("arm,correct,user,User\nA,1,a,b\n", "expected one column user"),
        ("arm,correct\n", "expected answers of users, found none"),
        ("arm,correct\n" + 9 * "A,\n", "found none"),
        ("arm,correct\nC,1\n", 'log.csv, line 2: arm: expected A or B, found "C"'),
        ("arm,correct\nA,1\n\nA,yes\n", 'log.csv, line 4: correct: expected 1 or 0, found "yes"'),
        ("arm,correct\nA\n", "log.csv, line 2: expected 2 cells, found 1"),
        ("arm,correct,time\nA,1,noon\n", "time: expected seconds or a date as 2026-"),
        ("arm,correct,time\nA,1,nan\n", 'found "nan"'),
        ("arm,correct,time\nA,1,\n", "time: expected seconds or a date as"),
        ('arm,correct\n"A,1\n', "expected CSV in UTF-8"),
        ("arm,correct\nA,\udcff\n", "expected CSV in UTF-8"),
        ("arm,correct\nA,1\x00\n", "expected 1 or 0"),
        ("arm,correct\n" + "A" * 200_000, "log.csv"),
        ("arm,correct\nA\x1b[2J,1\n", r'found "A\x1b[2J"'),
        ("arm,correct\n" + 300 * "A,1\n", "at least 2 users of each model, found 300 of A"),
        ("SQLite format 3\0" + 100 * "x", "expected a feedback log"),
    ],
    "exercise check {s.toml}": [
        (text, "s.toml: expected")
        for text in (
            "",
            "exercise = 1",
            'exercise = "compute99"',
            "a = [",
            "a = " + "[" * 5000,
            "\0",
        )
    ],
    "gradcheck --mine={mine.py}": [
        ("x = 1", "mine.py", "expected a function of an exercise", "got none"),
        ("def dense_backwards(): pass", "mine.py", "did you mean dense_backward?"),
        ("def f(:", "mine.py", "line 1: "),
        ("\udcff", "mine.py", "expected a text in UTF-8"),
    ],
    **{
        f"benchmarks {flag} --output={{n.json}}": [
            (text, "expected the numbers of a benchmark")
            for text in ("{", "[]", '{"measurements": []}')
        ]
        for flag in ("--draw", "--part=machine")
    },
}

# What is written in Python, and what the error says.
PYTHON = [
    ('preset("mlp", lr=1)', 'unknown field "lr"; did you mean "learning_rate"?'),
    ('preset("mlp", epoch=1)', 'unknown field "epoch"; did you mean "epochs"?'),
    ('preset("mlp", zzz=1)', 'unknown field "zzz" (help(jaxnets.Config) lists them)'),
    ('preset("cnn", limit=0)', "limit: expected a whole number from 1"),
    ('preset("cnn", batch_size=0)', "from 1 to 10000000 or full, got 0"),
    (
        'preset("cnn", early_stopping=2, validation_size=0)',
        "early_stopping watches the validation loss",
    ),
    (
        'preset("cnn", schedule="plateau", validation_size=0)',
        "plateau watches the validation error",
    ),
    (
        'preset("cnn", stop_at_target=True)',
        "stop_at_target: expected with target_accuracy, got none",
    ),
    (
        'preset("cnn", stop_at_target=True, target_accuracy=0.9, validation_size=0)',
        "stop_at_target watches the validation accuracy, but no images are held back",
    ),
    ('preset("cnn", steps_per_epoch=0)', "steps_per_epoch: expected"),
    (
        'preset("cnn", label_smoothing=0.1, loss="squared_error")',
        "label_smoothing: squared_error has no",
    ),
    ('preset("alexnet", recipe="fast")', "recipe: alexnet has no fast"),
    ('Experiment.create("cnn", data)', 'Config as jaxnets.preset("cnn"), got a str'),
    ('Experiment.create(config, "cnn")', 'Dataset as jaxnets.load_dataset("mnist"), '),
    ("Experiment.create(data, config)", "got a Dataset"),
    (
        'Experiment.create(preset("cnn_bn", reduction="sum"), data)',
        "reduction: expected mean for a network with batch norm",
    ),
    ("experiment.evaluate(state, data)", "expected a Split as data.test, got a Dataset"),
    ("jaxnets.plot(jaxnets.History())", "expected the history of an epoch or more"),
    ("jaxnets.plot(state)", "expected the history of an epoch or more"),
    ('jaxnets.plot(history).save("curves.pdf")', "expected a figure as .svg or .png, got .pdf"),
    ('jaxnets.plot(history).save("none/curves.svg")', "no such folder"),
    # After Keras' habits
    ("jaxnets.train(experiment.model, config)", '"train"; jaxnets.Network("cnn").fit() trains'),
    ('net.compile("adam")', 'are settings: jaxnets.Network("cnn", optimizer="adam")'),
    ("experiment.model.state_dict()", 'Chain has no "state_dict"; jaxnets.Network("cnn").state.'),
    ("net.layers", 'no "layers"; jaxnets.Network("cnn").summary() prints the layers'),
    ("net.grads", 'Network has no "grads"; did you mean gradients?'),
    ("net.learning_rate", "net.config.learning_rate has it"),
    ('net.gradients(x, y, by="torch")', """by: expected "manual" or "auto", got 'torch'"""),
    ("net.gradients(data.train[:0])", "expected images, got none"),
    (
        "net.gradients(x[:, :5], y)",
        "expected images of (12, 12, 1), as in training, got (5, 12, 1)",
    ),
    ("net.gradients(3)", "expected a Split as data.train, got a int"),
    ('Network("softmax", data, loss=my_loss).gradients(x, y)', "gradients: expected auto"),
    ("jaxnets.gradcheck(experiment)", "expected a jaxnets.Network, as Network("),
    # A network and its methods
    ("net.fit(np.zeros(3))", "got ndarray"),
    (
        "net.fit(np.zeros((9, 4)), np.arange(9) % 2)",
        "x and y: expected those of the first fit, as the network is trained",
    ),
    ("net.fit(validation_data=())", "validation_data: expected with x and y"),
    ("net.fit(batch_size=3)", "batch_size: expected those of the first fit"),
    ("net.fit(validation_split=0.1)", 'Network("cnn", validation_size=...) holds images back'),
    ("net.fit(0, 0, validation_split=1.5)", "validation_split: expected from 0 to"),
    ("net.fit(0, 0, validation_split=0.5, validation_data=0)", "without validation_d"),
    ("net.fit(epoch=3)", 'did you mean "epochs"?'),
    ("net.fit(shuffle=False)", "every epoch has its own order"),
    ("net.fit(x, y, class_weight={0: 2})", "class_weight: a loss of your own weighs classes: "),
    ("net.fit(x, y, sample_weight=y)", "sample_weight: drawn rows weigh examples: rows = "),
    ("net.fit(epochs=0)", "expected a whole number from 1 to 100000, got 0"),
    ("net.fit(callbacks=[3])", "a jaxnets.Callback or a function (epoch, logs), got 3"),
    ("net.fit(callbacks=jaxnets.Callback)", "got <class"),
    ("net.evaluate(np.zeros((3, 5, 5)), [0, 1, 2])", "got (5, 5, 1)"),
    ("net.evaluate(x, y, batch_size=0)", "batch_size: expected a whole number from 1, got 0"),
    ("net.predict(x, batch_size=2.5)", "batch_size: expected a whole number from 1, got 2.5"),
    ("net.evaluate(data)", "expected a Split as data.test, got a Dataset"),
    ("net.save(folder)", "net.save(DIR, overwrite=True) replaces it"),
    ("jaxnets.load(folder.parent)", "found no config.json"),
    ('Network("cmn")', 'did you mean "cnn"?'),
    ("Network(net)", "expected a name as"),
    ('Network("cnn", lr=0.1)', 'did you mean "learning_rate"?'),
    ('Network("cnn", workdir="runs/x")', "net.save(DIR) writes the run folder"),
    ('Network("cnn", resume=True)', "jaxnets.load(DIR) continues a run"),
    # Images and labels
    (
        "trained_on(np.zeros((9, 9)))",
        "expected a name, a folder, a Dataset or (images, labels), got ndarray",
    ),
    ("trained_on((np.zeros(9), np.zeros(9, int)))", "got (9,)"),
    ("trained_on((np.full((9, 4), np.nan), np.zeros(9, int)))", "finite numbers below 3.4e38"),
    (
        "trained_on((np.zeros((9, 3, 8, 8)), np.zeros(9, int)))",
        "got (9, 3, 8, 8); the channels come last: x.transpose(0, 2, 3, 1)",
    ),
    ("trained_on((np.zeros((9, 8, 8, 4)), np.zeros(9, int)))", "with C = 1 or 3"),
    ("trained_on(iter([np.zeros((9, 8, 8))]))", "(images, labels) of list_iterator, got an array"),
    ("trained_on(([[0.5], [0.5, 1]], [0, 1]))", "pixels in an array, got rows that make none"),
    ('trained_on((np.full((9, 4), "ink"), np.zeros(9, int)))', "numbers in rows, got <U3"),
    (
        "trained_on((np.zeros((2, 8, 8)), [0, None]))",
        "whole numbers or texts as labels, got object",
    ),
    ("trained_on((np.zeros((2, 8, 8)), [[0], [0, 1]]))", "expected a label for each image"),
    ("trained_on((np.zeros((2, 8, 8)), [0, 10**9]))", "expected 2 to 1000 classes, found 1001"),
    (
        "trained_on((np.zeros((9, 8, 8)), np.zeros(8, int)))",
        "as labels for 9 images, got int64 (8,)",
    ),
    (
        "trained_on((np.zeros((9, 8, 8)), np.zeros(9)))",
        "whole numbers or texts as labels for 9 images, got float64",
    ),
    (
        "trained_on((np.full((9, 8, 8), 255.0), np.zeros(9, int)))",
        "floats from 0 to 1, got float64 from 255",
    ),
    ("trained_on((np.zeros((9, 8, 8)), np.zeros(9, int)))", "expected 2 to 1000 classes, found 1"),
    ("trained_on((np.zeros((9, 8, 8)), np.arange(9) - 1))", "labels from 0 to 7"),
    ('trained_on("minst")', 'unknown dataset "minst"; did you mean "mnist"'),
    # Functions of the user's own
    (
        'trained_on(data, loss=my_loss, gradients="manual")',
        "gradients: expected auto, for a loss of your own",
    ),
    ('Network("mlp_handwritten", data, loss=my_loss)', "gradients: expected auto"),
    (
        "trained_on(data, optimizer=optax.adam, weight_decay=0.1)",
        "weight_decay: expected none beside",
    ),
    ("trained_on(data, optimizer=lambda rate: rate)", "a transformation of optax's, got "),
    ("trained_on(data, optimizer=3)", 'unknown optimizer "3"'),
    ('trained_on(data, loss="my_loss")', 'unknown loss "my_loss"'),
    ("trained_on(data, schedule=my_loss)", "unknown schedule"),
    # Pictures to predict
    ("predictor(np.full((28, 28), 255.0))", "floats from 0 to 1, got float64 from 255.0 to 255.0"),
    (
        "predictor(np.full((28, 28), 256))",
        "bytes from 0 to 255 or as floats from 0 to 1, got int64 from 256",
    ),
    ("predictor(np.full((28, 28), np.nan))", "got float64 from nan"),
    ("predictor(np.zeros(784))", "expected pictures [N, H, W, C], "),
    ("predictor([np.zeros(783)])", "got shape (783,)"),
    ("predictor(np.zeros((2, 9, 9, 2)))", "got shape (9, 9, 2)"),
    ("predictor(7)", "got shape ()"),
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
        return Network("softmax", data, **{"batch_size": 2, **settings})

    Network, preset = jaxnets.Network, jaxnets.preset
    known = dict(jaxnets=jaxnets, np=np, optax=optax, Network=Network, preset=preset, net=net)
    known |= dict(Experiment=jaxnets.Experiment, experiment=experiment, config=experiment.config)
    known |= dict(x=tiny.train.images[:5], y=tiny.train.labels[:5])
    known |= dict(data=tiny, state=net.state, history=net.history, predictor=net.predictor)
    return known | dict(folder=folder, my_loss=my_loss, trained_on=trained_on)


@pytest.mark.parametrize(("expression", "said"), PYTHON)
def test_a_wrong_expression_is_answered_in_a_sentence(expression, said, names):
    with pytest.raises((UserError, AttributeError)) as answered:
        eval(expression, names)
    assert said in str(answered.value) and "\n" not in str(answered.value)
