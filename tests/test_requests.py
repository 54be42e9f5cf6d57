"""Wrong requests of summary, search, compare, predict and the slides' procedure: all one line."""

import pytest


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("summary --model=mlq", 'unknown model "mlq"; did you mean "mlp"?'),
        ("summary --image_shape=28,28", "image_shape: expected height, width and 1 or 3 channels"),
        ("summary --model=alexnet --image_shape=28,28,5", "1 or 3 channels, as 28,28,1, got (28,"),
        (
            "summary --num_classes=0",
            "num_classes: expected a whole number from 1 to 1000000, got 0",
        ),
        (f"summary --image_shape={10**20},1,1", "image_shape: expected a whole number from 1 to"),
        ("summary --model=cnn --image_shape=4,4,1", "images of (4, 4, 1) are too small"),
        ("summary --jsom", "unknown flag --jsom; did you mean --json?"),
        ("search --model=mlp", "over: expected --over=FIELD=A,B,... at least once"),
        ("search --model=mlp --over=hidden", "over: expected FIELD=A,B,..., got 'hidden'"),
        ("search --model=mlp --over=hiden=4", "unknown flag --hiden; did you mean --hidden?"),
        ("search --model=mlp --over=hidden=4,0", "hidden: expected a whole number from 1"),
        ("search --model=mlp --over=hidden=4,x", "hidden: expected numbers"),
        ("search --model=mlp --over=seed=1,2", "over: seed cannot be searched over"),
        ("search --model=mlp --over=hidden=4 --hidden=5", "over: hidden cannot be searched over"),
        (
            "search --model=mlp --over=hidden=4 --seeds=0",
            "seeds: expected a whole number from 1 to",
        ),
        ("search --model=mlp --over=hidden=4 --overwrite", "overwrite: search has none"),
        ("search --model=mlp --over=early_stopping=1,2", "early_stopping: search has none"),
        ("search --model=cnn --over=limit=100,200", "over: limit cannot be searched over"),
        ("search --model=mlp --over=hidden=4 --resume", "resume: no search.json in"),
        ("search --model=mlp --over=hidden=4 --sedes=3", "unknown flag --sedes"),
        (
            "search --model=softmax --over=learning_rate=0.1,0.2 --schedule=plateau",
            "schedule: plateau watches the images on which a search judges",
        ),
        ("compare --models=softmax,knm", 'unknown model "knm"; did you mean "knn"'),
        ("compare --models=", "unknown model"),
        ("compare --datasets=minst", 'did you mean "mnist"'),
        ("compare --task=regresion", 'did you mean "regression"'),
        ("compare --task=regression --models=cnn", "(known: linear, mlp, linear_regression"),
        ("compare --task=regression --data_dir=x", "data_dir: a folder of images"),
        ("compare --datasets=mnist --data_dir=x", "exclude each other"),
        ("compare --data_dir=nowhere", "no such folder"),
        ("compare --gradients=numeric", 'unknown gradients "numeric"'),
        ("compare --train_size=0", "train_size: expected a whole number from 1"),
        ("compare --train_size=many", "train_size: expected a whole number"),
        ("compare --epochs=0", "epochs: expected a whole number from 1"),
        ("compare --seed=-1", "seed: expected a whole number from 0"),
        ("compare --curve=4,x", "curve: expected numbers as 4,16,64,256"),
        ("compare --curve=0", "expected a whole number from 1"),
        ("compare --epoch=3", "did you mean --epochs?"),
        ("predict", "RUN IMAGE"),
        ("predict run", "IMAGE"),
        ("predict run a.png --tpo=3", "unknown flag --tpo; did you mean --top?"),
        ("predict run a.png --top=0", "top: expected a whole number from 1 to 1000000, got 0"),
        ("predict run a.png --top=all", "top: expected a whole number"),
        ("predict run a.png --prepare=digt", 'unknown prepare "digt"; did you mean "digit"'),
        ("predict run a.png --show --json", "show and json exclude each other"),
        ("train.py --model=mlp_handwritten --hidden=6 --latent_dims=5,6", "exclude each other"),
        ("train.py --model=mlp --latent_dims=5,6", "latent_dims: mlp has none"),
        ("train.py --model=cnn --replay_seeds=3", "replay_seeds: cnn has no search to repeat"),
        (
            "train.py --model=mlp_handwritten --latent_dims=0",
            "latent_dims: expected a whole number",
        ),
        ("train.py --log_format=keras", 'unknown log_format "keras"'),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    run_main, run_command, tmp_path, monkeypatch, words, complaint
):
    monkeypatch.chdir(tmp_path)
    command, *flags = words.split()
    outcome = run_main(*flags) if command == "train.py" else run_command(command, *flags)
    outcome.assert_refused(complaint)
    assert list(tmp_path.iterdir()) == []
