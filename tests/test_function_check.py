"""jaxnets.check of anybody's gradient: wrong ones are found, right ones are not refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, slow
from derivatives import LINE, NOT_IN_TORCH, RIGHT, TIES, WRONG, pool, vjp
from jax.custom_batching import custom_vmap

import jaxnets
from jaxnets.base.errors import UserError

FEW = (
    "a factor",
    "both winners of a tie",
    "NaN at 0 by a where",
    "half of 1,000 outputs",
    "a batch",
)
FEW += ("chance", "float32 inside", "a clipped cotangent", "the second tangent", "sin", "trees")
FEW += ("relu at 0", "max at ties", "softmax of huge numbers", "dropout by a key", "labels")


def cases(table):
    return [name if name in FEW else slow(name) for name in table]


@pytest.mark.parametrize("name", cases(WRONG))
def test_a_wrong_gradient_is_found(name):
    function, *args = WRONG[name]
    assert not jaxnets.check(function, *args)


def test_a_wrong_winner_is_found_by_a_plain_formulation():
    def last(args, dy):
        pairs = args[0].reshape(-1, 2)
        second = pairs[:, 1] >= pairs[:, 0]
        return (jnp.stack([jnp.where(second, 0, dy), jnp.where(second, dy, 0)], 1).ravel(),)

    assert jaxnets.check(vjp(pool, last), TIES)  # Each winner of a tie is one.
    found = jaxnets.check(vjp(pool, last), TIES, plain=pool)
    assert not found and "args[0][0]: 0, expected 0.5" in repr(found)


def test_a_wrong_second_derivative_is_found():
    @jax.custom_jvp
    def slope(x):
        return jnp.cos(x)

    slope.defjvp(lambda x, t: (slope(*x), 2 * t[0]))
    function = vjp(jnp.sin, lambda a, dy: (slope(a[0]) * dy,))
    assert jaxnets.check(function, LINE)
    assert not jaxnets.check(function, LINE, order=2)


@pytest.mark.parametrize("name", cases(RIGHT))
def test_a_right_gradient_is_not_refused(name):
    function, *args = RIGHT[name]
    found = jaxnets.check(function, *args)
    assert found, found


@pytest.mark.slow
def test_of_a_million_parameters_a_sample_is_compared():
    w, x = np.sin(np.arange(1e6)).reshape(1000, 1000), np.cos(np.arange(1000.0))
    found = jaxnets.check(lambda w: jnp.tanh(w @ x / 1000).sum(), w)
    assert found and found.rows[0].sampled_from == 1e6 and " of 1,000,000" in repr(found)


def test_what_it_is_not_made_for_is_one_line():
    for call in (
        lambda: jaxnets.check(jnp.sin, 3),
        lambda: jaxnets.check(lambda x: x > 0, LINE),
        lambda: jaxnets.check(jnp.sin, LINE, order=3),
    ):
        with pytest.raises(UserError, match="expected"):
            call()


# The other checkers, by their defaults


def by_jax(function, *args):
    """Whether JAX's check takes a gradient for right, in both modes if there are two."""
    from jax.test_util import check_grads

    places = [n for n, arg in enumerate(args) if isinstance(arg, dict) or is_floating(arg)]

    def of(*given):
        every = list(args)
        for place, arg in zip(places, given, strict=True):
            every[place] = arg
        return function(*every)

    for mode in ("fwd", "rev"):
        try:
            check_grads(of, [args[place] for place in places], order=1, modes=[mode])
        except Exception as error:  # An AssertionError, or what the function itself raises.
            if "to a custom_vjp function" not in str(error):
                return False
    return True


def by_torch(function, *args):
    """Whether PyTorch's check takes a gradient for right; both passes are JAX's."""
    torch = pytest.importorskip("torch", reason="an oracle")
    leaves, tree = jax.tree.flatten(args)
    places = [n for n, leaf in enumerate(leaves) if is_floating(leaf)]

    def of(*given):
        every = list(leaves)
        for place, array in zip(places, given, strict=True):
            every[place] = array
        outputs = jax.tree.leaves(function(*jax.tree.unflatten(tree, every)))
        return [out for out in outputs if is_floating(out)]

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *given):
            ctx.arrays = [jnp.asarray(one.detach().numpy()) for one in given]
            return tuple(torch.tensor(np.asarray(out, np.float64)) for out in of(*ctx.arrays))

        @staticmethod
        def backward(ctx, *d_out):
            outputs, pull_back = jax.vjp(of, *ctx.arrays)
            pairs = zip(d_out, outputs, strict=True)
            found = pull_back([jnp.asarray(d.numpy(), out.dtype) for d, out in pairs])
            return tuple(torch.tensor(np.asarray(one)) for one in found)

    given = [np.asarray(leaves[place], np.float64) for place in places]
    try:
        inputs = [torch.tensor(one, requires_grad=True) for one in given]
        return torch.autograd.gradcheck(Function.apply, inputs)
    except Exception:  # GradcheckError, or what the function itself raises.
        return False


def is_floating(leaf):
    number = isinstance(leaf, float | np.ndarray | jax.Array)
    return number and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def by_jaxnets(function, *args):
    """Whether jaxnets.check takes a gradient for right."""
    try:
        return jaxnets.check(function, *args).ok
    except Exception:  # What the function itself, or its rule, raises.
        return False


def counted(takes, table, left_out=()):
    """The names of a list that a checker takes for right, and those that it refuses."""
    taken = {name: takes(*table[name]) for name in table if name not in left_out}
    return [[name for name, took in taken.items() if took is kind] for kind in (True, False)]


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "takes", "left_out"),
    [
        ("jaxnets.check", by_jaxnets, ()),
        ("jax.test_util.check_grads", by_jax, ()),
        ("torch.autograd.gradcheck", by_torch, NOT_IN_TORCH),
    ],
)
def test_the_page_has_what_each_checker_misses_and_refuses(name, takes, left_out, float64):
    missed, found = counted(takes, WRONG, left_out)
    right, refused = counted(takes, RIGHT, left_out)
    print(f"{name}: missed {missed}; refused {refused}")
    page = (ROOT / "docs" / "check.md").read_text()
    wrong, right = len(missed + found), len(right + refused)
    assert f"| `{name}` | {len(missed)} of {wrong} | {len(refused)} of {right} |" in page


def test_a_function_of_another_number_of_outputs_than_its_plain_form_is_wrong():
    found = jaxnets.check(lambda x: x[:2] ** 2, LINE, plain=lambda x: x**2)
    assert not found.ok
    assert "2 outputs, 4 of the plain formulation" in str(found)


def test_a_function_that_refuses_vmap_is_right_and_the_table_says_so():
    square = custom_vmap(lambda x: x**2)

    @square.def_vmap
    def refuse(axis_size, in_batched, x):
        raise ValueError("one at a time")

    found = jaxnets.check(vjp(square, lambda args, dy: (2 * args[0] * dy,)), LINE)
    assert found.ok and "refused: one at a time" in str(found)


def test_an_output_that_overflows_in_few_digits_is_passed_over():
    found = jaxnets.check(lambda x: x * np.exp2(200.0), LINE)
    assert found.ok, found
    assert "not finite in these digits" in str(found)
