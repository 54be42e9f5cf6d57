"""The plateau: the learning rate falls when the validation error stops falling."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import slow

from jaxnets.experiment import Experiment
from jaxnets.training.optimizer import create_optimizer, update_plateau, with_plateau


def drops_of(errors, patience):
    """How often the rate has fallen after each of the epochs."""
    opt_state, drops = with_plateau(optax.sgd(1.0)).init({"w": jnp.zeros(2)}), []
    for error in errors:
        opt_state = update_plateau(opt_state, error, patience)
        drops.append(int(opt_state[-1].drops))
    return drops


@pytest.mark.parametrize(
    ("errors", "patience", "drops"),
    [
        ([0.5, 0.4, 0.4, 0.4, 0.3], 2, [0, 0, 0, 1, 1]),  # As low as the best is no better.
        ([0.5, 0.6, 0.4, 0.5, 0.3], 2, [0, 0, 0, 0, 0]),
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 1, [0, 1, 2, 3, 3, 3]),  # Three times, as in the paper.
        ([0.5, 0.6, 0.6, 0.4, 0.5, 0.5], 2, [0, 0, 1, 1, 1, 2]),  # The best outlives a drop.
    ],
)
def test_the_rate_falls_after_patience_epochs_without_a_lower_error(errors, patience, drops):
    assert drops_of(errors, patience) == drops


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("patience", [1, 2, 5])
def test_the_rate_falls_when_pytorchs_does(seed, patience):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle; not installed")
    rng = np.random.default_rng(seed)
    errors = 0.2 + 0.8 ** np.arange(60) + 0.05 * rng.integers(0, 5, 60) / 5
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.1, patience=patience - 1, threshold=0.0, min_lr=1e-5
    )
    theirs = []
    for error in np.asarray(errors, np.float32):
        scheduler.step(float(error))
        theirs.append(optimizer.param_groups[0]["lr"])
    ours = [0.01 * 0.1**drops for drops in drops_of(errors, patience)]
    assert theirs[-1] < 0.01
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("rmsprop", {}),
        ("adam", {"weight_decay": 0.01}),
    ],
)
def test_a_drop_is_a_tenth_in_every_rule(name, arguments):
    """Two steps at 0.05 and two at a tenth, against the rule with that schedule of optax."""
    rng = np.random.default_rng(0)
    params, *gradients = ({"w": jnp.asarray(rng.standard_normal(7), jnp.float32)} for _ in range(5))
    ours = with_plateau(create_optimizer(name, 0.05, **arguments))
    schedule = optax.piecewise_constant_schedule(0.05, {2: 0.1})
    theirs = create_optimizer(name, schedule, **arguments)
    ends = []
    for rule in (ours, theirs):
        now, state = params, rule.init(params)
        for number, gradient in enumerate(gradients):
            if rule is ours and number in (1, 2):
                state = update_plateau(state, 0.5, patience=1)
                assert int(state[-1].drops) == number - 1
            updates, state = jax.jit(rule.update)(gradient, state, now)
            now = optax.apply_updates(now, updates)
        ends.append(now)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=2e-6), *ends)


SLOW = dict(schedule="plateau", learning_rate=0.5, patience=1, epochs=8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "gradients"),
    [
        ({}, "manual"),
        ({"devices": 8, "parallel": "jit"}, "auto"),
        ({"devices": 8, "parallel": "pmap"}, "manual"),
        slow({}, "auto"),
        slow({"devices": 8, "parallel": "jit"}, "manual"),
        slow({"devices": 8, "parallel": "pmap"}, "auto"),
    ],
    ids=str,
)
def test_a_record_has_the_rate_of_its_epoch(tiny, tiny_preset, gradients, way):
    config = tiny_preset("softmax", gradients=gradients, **SLOW, **way)
    _, records = Experiment.create(config, tiny).train()
    errors = [1 - record["validation_accuracy"] for record in records]
    # The first epoch's rate is the peak; a later one's follows from the errors before it.
    drops = [0, *drops_of(errors, patience=1)[:-1]]
    expected = [0.5 * 0.1**n for n in drops]
    assert [record["learning_rate"] for record in records] == pytest.approx(expected, rel=1e-12)
    assert drops[-1] == 3  # It learns the tiny set at once.


@pytest.mark.slow
def test_before_its_first_drop_a_plateau_is_a_constant(tiny, tiny_preset):
    configs = [
        tiny_preset("softmax", schedule="plateau", patience=100),
        tiny_preset("softmax", schedule="constant"),
    ]
    params = [Experiment.create(config, tiny).train()[0].params for config in configs]
    jax.tree.map(np.testing.assert_array_equal, *params)
