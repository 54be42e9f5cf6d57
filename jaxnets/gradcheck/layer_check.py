"""Compares each pair with its plain form, and each kernel with the pair that it must equal."""

import contextlib
import inspect
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets.backprop.network import with_pairs
from jaxnets.backprop.rule import Domain, LayerRule, Params, Setting
from jaxnets.backprop.rules import rule_of
from jaxnets.base.display import one_line, paint, show
from jaxnets.base.errors import RunFailedError, UserError, first_line
from jaxnets.base.language import Text, said, speaking
from jaxnets.base.trees import LayerParams, Tree
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.causes import cause, first_wrong, same
from jaxnets.gradcheck.compare import (
    TOLERANCES,
    CheckResult,
    Inputs,
    Passes,
    Problem,
    RelativeError,
    check_problems,
    compiled,
    disagreement,
    errors_of,
    with_statistics_aside,
    with_verdicts,
)
from jaxnets.gradcheck.exact import WRONG, Claim, Draw, Question
from jaxnets.gradcheck.quick import precision, quick_options
from jaxnets.kernels.kernel import Kernel
from jaxnets.models.chain import Chain, Layer, apply_layer, chains_of, kind_of, shapes_of
from jaxnets.networks.create import create_model
from jaxnets.networks.own import Place

FEW_IMAGES = 4
MOST_NUMBERS = 1 << 24  # In an input in float64: 128 MB; a pass makes more arrays of this size.
# What the exact check takes: the numbers of the inputs, and the pixels times filters.
MOST_EXACTLY = 20_000
MOST_PRODUCTS_EXACTLY = 100_000
# The pixels times filters from which a convolution takes longer to run than to compile.
LARGE = 4_000_000

Constants = tuple[jax.Array | None, jax.Array]  # The labels, and the gradient of the output.


def check_layer(
    layer: Layer,
    shapes: Sequence[tuple[int, ...]] = (),
    draws: int | None = None,
    seed: int = 0,
) -> CheckResult:
    """Compares the pair of your own layer with autodiff of the layer and with differences.

    >>> import flax.linen as nn
    >>> check_layer(nn.Dense(3), [(4, 5), (1, 2)]).ok
    True

    Args:
      layer: A Flax layer, or a function, with a rule (`register_rule`).
      shapes: The shapes of inputs on which it is tried, each with a batch first. A rule with a
        domain needs none.
      draws: How many other inputs are drawn from the domain of its rule; None: the domain's number.
      seed: The seed of the draws.

    Raises:
      UserError: The layer has no rule, its rule fails, or it does not take such inputs.
    """
    name = kind_of(layer).__name__
    if isinstance(layer, type):
        raise UserError("{}: expected a layer, such as {}(), got its class", name, name)
    rule = rule_of(layer)
    if rule is None:
        raise UserError(
            "{}: expected a rule for it: register_rule(LayerRule(..., layer={}))", name, name
        )
    domain = rule.domain if rule.is_own else None
    none = not shapes and not domain
    if none or not all(isinstance(shape, tuple | list) and shape for shape in shapes):
        raise UserError(
            "{}: expected shapes with a batch first, such as [(4, 5)], got {}", name, shapes
        )
    failing = contextlib.nullcontext()
    if rule.is_own:
        rule, failing = rule._replace(plain=_plain_of(layer)), _in_one_line(layer, rule)
    with failing:
        settings = [setting_of(layer, rule, tuple(shape)) for shape in shapes]
        if domain:
            domain = domain._replace(setting=partial(_drawn_for, layer, rule, domain))
            settings = settings or domain.draw(1, seed)  # In every precision, by both oracles.
        return check_rule(name, rule._replace(settings=settings, domain=domain), draws, seed)


def layers_of(model: Chain, shape: tuple[int, ...]) -> Iterator[tuple[Layer, tuple[int, ...]]]:
    """The layers of a chain, and of the chains within, each with its input's shape.

    Args:
      model: The network, or a part of it.
      shape: The shape of its input, batch first.
    """
    for layer in model.layers:
        for inner in chains_of(layer).values():
            yield from layers_of(inner, shape)
        yield layer, shape
        shape = shapes_of(layer, shape)[0].shape


def own_layers(model: Chain, shape: tuple[int, ...]) -> Iterator[tuple[Layer, tuple[int, ...]]]:
    """The layers of `layers_of` that have a user's own rule."""
    for layer, its_shape in layers_of(model, shape):
        if (rule := rule_of(layer)) is not None and rule.is_own:
            yield layer, its_shape


def check_forwards(model: Chain, image_shape: Sequence[int]) -> None:
    """Compares the forward passes of the user's own rules with their layers, before training.

    Raises:
      UserError: A pass computes something else; the message names its file and line.
    """
    for layer, shape in own_layers(model, (2, *image_shape)):
        rule: Any = rule_of(layer)
        with _in_one_line(layer, rule):
            setting = setting_of(layer, rule, shape)
            inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), _draw(setting)[0])
            out, _cache = call_layer(rule, setting, rule.forward, inputs, None)
        error = disagreement(out, _plain_of(layer)(*inputs.values()))
        if not error.value <= TOLERANCES["float32"]:
            raise UserError(
                "{}expected the forward pass of {} itself, got one that differs by {} on {} "
                "numbers",
                _place_of(rule.forward),
                kind_of(layer).__name__,
                f"{error.value:.1e}",
                " x ".join(map(str, shape)),
            )


def judge_own_layers(experiment: Experiment, *, even_if_wrong: bool = False) -> None:
    """Checks the passes of the user's own layers before they train a network by hand.

    Each layer gets inputs as in the network. The forward pass is compared with the layer, the
    backward pass with autodiff in float64, on a few images and on as many as a training step takes:
    a wrong pass may be right for a few.

    Args:
      experiment: What is going to train; with gradients="auto" no pass is used, nor checked.
      even_if_wrong: Whether a wrong backward pass is allowed, and only printed.

    Raises:
      UserError: A forward pass differs from its layer.
      RunFailedError: A backward pass is wrong; the message names its file and line, and the cause.
    """
    config, image_shape = experiment.config, experiment.data.image_shape
    if config.layers is None or config.gradients == "auto":
        return
    model = create_model(config, experiment.data.num_classes)  # As written, for one device.
    check_forwards(model, image_shape)
    batch_size = experiment.loader.batch_size
    for layer, (few, *shape) in own_layers(model, (FEW_IMAGES, *image_shape)):
        rule: Any = rule_of(layer)
        with _in_one_line(layer, rule), speaking("en"):  # What an error says is translated later.
            shapes = [(few, *shape), (judged_rows(batch_size, shape), *shape)]
            settings = [setting_of(layer, rule, shape) for shape in shapes]
            own = rule._replace(plain=_plain_of(layer), settings=settings)
            row = check_by_autodiff(kind_of(layer).__name__, own)
        if row.ok:
            continue
        cause = "; ".join(row.causes[:2]) or row.worst
        why = Text("{}: {}", f"{_place_of(rule.backward)}{row.name}", cause)
        if not even_if_wrong:
            raise RunFailedError("{}; even_if_wrong trains with it anyway", why)
        show(paint(one_line(said(why)), "red"))


def judged_rows(batch_size: int, shape: Sequence[int]) -> int:
    """The number of examples of this shape on which a pass is judged: a batch, if it fits."""
    return max(1, min(batch_size, MOST_NUMBERS // math.prod(shape)))


def _place_of(function: object) -> str:
    """The file and line of a function, as "FILE:LINE: "; "" if it has none."""
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}: " if code else ""


@contextlib.contextmanager
def _in_one_line(layer: Layer, rule: LayerRule) -> Generator[None]:
    """Turns an error in the user's own rule into one line with its file and line."""
    path = Path(getattr(getattr(rule.backward, "__code__", None), "co_filename", ""))
    place = Place(path if path.is_file() else None, rule.backward)  # A notebook has no file.
    with place.in_one_line(f"{kind_of(layer).__name__}: "):
        yield


def setting_of(layer: Layer, rule: LayerRule, shape: tuple[int, ...]) -> Setting:
    """The call of a layer's pair on inputs of this shape."""
    params = _param_shapes(layer, shape)
    if params and "params" not in rule.inputs:
        raise UserError(
            'the layer has parameters ({}): expected LayerRule(..., inputs=("params", "x")), '
            "got inputs={}",
            ", ".join(params),
            rule.inputs,
        )
    return Setting(shape, params, static=rule.static(layer))


def _drawn_for(layer: Layer, rule: LayerRule, domain: Domain, **values: object) -> Setting:
    """A setting of a domain with the layer's own parameters and static arguments."""
    drawn = domain.setting(**values)
    whole = setting_of(layer, rule, drawn.x)
    return drawn._replace(params=whole.params, static=whole.static)


def _plain_of(layer: Layer) -> Callable[..., jax.Array]:
    """A user's own layer as a function of its rule's inputs, which autodiff differentiates.

    The layer computes as in an evaluation.
    """

    def plain(*inputs: LayerParams | jax.Array, **static: object) -> jax.Array:
        params, x = inputs[0], inputs[-1]
        assert isinstance(x, jax.Array)
        return apply_layer(layer, params if isinstance(params, Mapping) else {}, x)

    return plain


def _param_shapes(layer: Layer, shape: tuple[int, ...]) -> dict[str, Any]:
    """The shapes of a layer's parameters for inputs of this shape; nothing is computed."""
    if not isinstance(layer, nn.Module):
        return {}
    try:
        found = shapes_of(layer, shape)[1]
    except Exception as error:
        kind = type(layer).__name__
        raise UserError("{}: does not take {}: {}", kind, shape, first_line(error)) from error
    params: Any = next(iter(found.values()), {})
    return jax.tree.map(lambda leaf: leaf.shape, params)


def check_rule(name: str, rule: LayerRule, draws: int | None = None, seed: int = 0) -> CheckResult:
    """Shows a layer's pair right exactly, or compares it with autodiff and with differences.

    Args:
      name: The layer's name.
      rule: Its rule, whose settings are tried in every precision and with both oracles.
      draws: How many settings are drawn from its domain; None: the domain's own number. They are
        only compared with autodiff in float64, so there can be many.
      seed: The seed of the draws.
    """
    drawn = drawn_settings(rule, draws, seed)
    started = time.perf_counter()
    problems = [_decided(problem_of(rule, one), one) for one in rule.settings]
    problems += [_decided(problem_of(rule, one), one)._replace(brief=True) for one in drawn]
    tolerances = {key: x for key, x in TOLERANCES.items() if rule.bfloat16 or key != "bfloat16"}
    row = _with_causes(check_problems(name, problems, tolerances), rule, [*rule.settings, *drawn])
    return row._replace(seconds=time.perf_counter() - started)


def check_by_autodiff(name: str, rule: LayerRule) -> CheckResult:
    """Compares a layer's pair only with autodiff, in float64, in all its settings."""
    # Compiled well: a whole batch's convolutions take five times as long otherwise.
    problems = [
        problem_of(rule, setting)._replace(brief=True, large=True) for setting in rule.settings
    ]
    row = check_problems(name, problems, {"float64": TOLERANCES["float64"]})
    return _with_causes(row, rule, rule.settings)


def is_refused(rule: LayerRule) -> bool:
    """Whether the exact check alone finds a layer's pair wrong, in any of its settings."""
    verdicts = (
        _decided(problem_of(rule, setting), setting).verdict
        for setting in [*rule.settings, *drawn_settings(rule)]
    )
    return any(verdict is not None and verdict.kind == WRONG for verdict in verdicts)


def _decided(problem: Problem, setting: Setting) -> Problem:
    """The problem with the exact check's verdict, if that check is not too long."""
    shapes: Any = flatten_dict(dict(setting.params)).values()
    sizes = [math.prod(shape) for shape in (setting.x, *shapes)]
    products = [math.prod(setting.x) * shape[-1] for shape in shapes if len(shape) == 4]
    small = sum(sizes) <= MOST_EXACTLY and max(products, default=0) <= MOST_PRODUCTS_EXACTLY
    return problem.decided if small else problem


def _with_causes(row: CheckResult, rule: LayerRule, settings: Sequence[Setting]) -> CheckResult:
    """The row, with the causes in the first setting whose gradients differ from autodiff's.

    What only the exact check sees is too small for a cause; the row names its entry.
    """
    if row.within_tolerances:
        return row
    wrong = (found for setting in settings if (found := _causes(rule, setting)))
    return row._replace(causes=next(wrong, ()))


def _causes(rule: LayerRule, setting: Setting) -> tuple[str, ...]:
    """Two lines for each wrong gradient in a setting: the cause, and the first wrong number."""
    with precision("float64"), np.errstate(all="ignore"):
        passes = whole_problem_of(rule, setting).at("float64")

        def results(inputs: Inputs, constants: Constants) -> tuple[Any, ...]:
            pairs = with_pairs(setting.static)
            _out, cache = call_layer(rule, setting, rule.forward, inputs, constants[0], **pairs)
            both = passes.manual(inputs, constants), passes.automatic(inputs, constants)
            return cache, *(one["gradient"] for one in both)

        compiled = jax.jit(results, compiler_options=quick_options())
        cache, *gradients = compiled(passes.inputs, passes.constants)
    (yours, right) = ({p: np.asarray(x) for p, x in flatten_dict(g).items()} for g in gradients)
    d_out = list(inspect.signature(rule.backward).parameters)[1]
    leaves = jax.tree_util.tree_leaves_with_path(cache)
    known = {f"cache{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}
    known |= {d_out: np.asarray(passes.constants[1]), "x": np.asarray(passes.inputs["x"])}
    found = list[str]()
    for path, expected in right.items():
        if path in yours and not same(yours[path], expected):
            label = "".join(["d_params", *(f'["{n}"]' for n in path[1:])]) if path[1:] else "dx"
            found.append(cause(label, yours[path], expected, d_out, known))
            found.append(first_wrong(label, yours[path], expected))
    return tuple(dict.fromkeys(found))


def drawn_settings(rule: LayerRule, draws: int | None = None, seed: int = 0) -> list[Setting]:
    """Settings from a rule's domain, by default as many as the domain says."""
    if rule.domain is None:
        return []
    return rule.domain.draw(rule.domain.draws if draws is None else draws, seed)


def check_kernel(kernel: Kernel, draws: int | None = None, seed: int = 0) -> CheckResult:
    """Compares a kernel with its pair in its settings, and in others drawn from its domain.

    As functions over a finite field, and in float64 where that is not shown, the two must agree. In
    float32 both are compared with the pair in float64: a kernel may round more than the pair does,
    and the row says how much. The larger ones of the drawn settings are computed in several blocks,
    as a large batch is in training.
    """
    started = time.perf_counter()
    settings, drawn = kernel.rule.settings, drawn_settings(kernel.rule, draws, seed)
    problems = [
        _decided(_problem_beside_pair(kernel.rule, kernel.pair, one), one) for one in settings
    ]
    others = [
        _decided(_problem_beside_pair(kernel.checked_rule, kernel.pair, one), one) for one in drawn
    ]
    in_float64, in_float32, of_pair = RelativeError(), RelativeError(), RelativeError()
    for program in compiled([(one, "float64") for one in others if not one.is_shown]):
        error = errors_of(program)[0]
        in_float64 = max(in_float64, error._replace(problem=program.problem.label))
    programs = (compiled([(one, dtype) for one in problems]) for dtype in ("float64", "float32"))
    for wide, narrow in zip(*programs, strict=True):
        on = wide.problem.label
        in_float64 = max(in_float64, errors_of(wide)[0]._replace(problem=on))
        with precision("float32"):
            passes = narrow.problem.at("float32")
            given = passes.inputs, passes.constants
            ours, pair = narrow.both(*given)
        with precision("float64"):
            _, exact = wide.both(*jax.tree.map(_widened, given))
        in_float32 = max(in_float32, disagreement(ours, exact)._replace(problem=on))
        of_pair = max(of_pair, disagreement(pair, exact))
    tried = [one.label for one in problems] + [_label(one) for one in drawn]
    errors = {"float64": in_float64, "float32": in_float32}
    tolerances = {"float64": TOLERANCES["float64"], "float32": kernel.float32_error}
    note = f"the pair itself {of_pair.value:.1e} in float32"
    seconds = time.perf_counter() - started
    row = CheckResult(f"kernel: {kernel.name}", tried, errors, tolerances, 0, 0, seconds, note)
    return with_verdicts(row, [*problems, *others])


def _problem_beside_pair(rule: LayerRule, pair: LayerRule, setting: Setting) -> Problem:
    """A kernel's rule in one of its settings, whose oracle is the pair."""
    problem, oracle = problem_of(rule, setting), problem_of(pair, setting)

    def at(precision: str) -> Passes:
        passes, taught = problem.at(precision), oracle.at(precision).manual

        def claim(inputs: Inputs, constants: Any) -> Claim:
            return Claim(same=(passes.manual(inputs, constants), taught(inputs, constants)))

        question = passes.question and passes.question._replace(claim=claim)
        return passes._replace(automatic=taught, number=None, question=question)

    return problem._replace(at=at)


def _widened(leaf: jax.Array) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(np.float64) if array.dtype == np.float32 else array


def problem_of(rule: LayerRule, setting: Setting) -> Problem:
    """A layer's pair in one of its settings."""
    whole = whole_problem_of(rule, setting)
    return whole._replace(at=lambda precision: with_statistics_aside(whole.at(precision)))


def whole_problem_of(rule: LayerRule, setting: Setting) -> Problem:
    """The same, with running statistics among the parameters."""
    pairs = with_pairs(setting.static)
    call = partial(call_layer, rule, setting)

    @jax.jit  # JAX traces it once, for the output's shape and for the claim.
    def traced_once(inputs: Inputs, labels: jax.Array | None) -> jax.Array:
        return call(rule.plain, inputs, labels)

    def manual(inputs: Inputs, constants: Constants) -> dict[str, Any]:
        labels, d_out = constants
        out, cache = call_layer(rule, setting, rule.forward, inputs, labels, **pairs)
        gradients = rule.backward(cache, d_out, **pairs)
        if "params" not in rule.inputs:
            return {"output": out, "gradient": {"x": gradients}}
        # A network's first layer computes only the parameters' gradients.
        alone, _no_dx = _both(rule.backward(cache, d_out, **pairs, input_gradient=False))
        gradients = dict(zip(inputs, _both(gradients), strict=True))
        return {"output": [out, alone], "gradient": gradients}

    def automatic(inputs: Inputs, constants: Constants) -> dict[str, Any]:
        labels, d_out = constants
        out, pull_back = jax.vjp(lambda inputs: call(rule.plain, inputs, labels), inputs)
        gradient = pull_back(d_out)[0]
        output = [out, gradient["params"]] if "params" in inputs else out
        return {"output": output, "gradient": gradient}

    def number(inputs: Inputs, constants: Constants) -> jax.Array:
        labels, d_out = constants
        return (call(rule.plain, inputs, labels) * d_out).sum()

    def claim(inputs: Inputs, constants: Constants) -> Claim:
        labels, d_out = constants
        found, plain = manual(inputs, constants), traced_once(inputs, labels)
        out, gradient = found["output"], found["gradient"]
        ours, theirs = {"output": out}, {"output": plain}
        if "params" in rule.inputs:
            out, alone = found["output"]
            ours = {"output": out, "input_gradient=False": alone}
            theirs = {"output": plain, "input_gradient=False": gradient["params"]}
        if out.shape != plain.shape:
            return Claim(same=(ours, theirs))
        return Claim((out * d_out).sum(), gradient, (ours, theirs))

    def drawn(draw: Draw) -> Any:
        labels = _draw(setting)[1]
        d_out = draw.numbers(np.random.default_rng(3).standard_normal(out_shape()))
        return draw.shares(labels) if setting.labels == "probabilities" else labels, d_out

    @cache  # One for all precisions.
    def out_shape() -> tuple[int, ...]:
        return jax.eval_shape(traced_once, *_draw(setting)).shape

    def at(precision: str) -> Passes:
        def cast(leaf: np.ndarray) -> jax.Array:
            wide = leaf.dtype == np.float64  # Otherwise these are labels.
            # device_put compiles nothing; jnp.asarray compiles a copy for each new shape (0.10.2).
            return jax.device_put(leaf.astype(precision) if wide else leaf)

        inputs, labels = jax.tree.map(cast, _draw(setting))
        if "params" in rule.inputs:
            inputs = {"params": {}, **inputs}  # A layer norm may have none.
        d_out = cast(np.random.default_rng(3).standard_normal(out_shape()))
        question = Question(claim, drawn)
        return Passes(inputs, (labels, d_out), manual, automatic, number, question)

    shapes: Any = flatten_dict(dict(setting.params)).values()
    products = (math.prod(setting.x) * shape[-1] for shape in shapes if len(shape) == 4)
    large = max(products, default=0) > LARGE
    return Problem(_label(setting), at, large=large)


def with_backward(rule: LayerRule, backward: Callable[..., Any]) -> LayerRule:
    """The same layer with a different backward pass, which need not take input_gradient."""
    if "params" not in rule.inputs:
        return rule._replace(backward=backward)

    @wraps(backward)
    def with_input_gradient(
        *arrays: object, input_gradient: bool = True, **static: object
    ) -> tuple[Params, jax.Array | None]:
        return backward(*arrays, **static)

    return rule._replace(backward=with_input_gradient)


def _both(gradients: object) -> tuple[object, object]:
    """The (d_params, dx) that the backward pass of a layer with parameters returns."""
    if not isinstance(gradients, tuple) or len(gradients) != 2:
        got = f"{len(gradients)} values" if isinstance(gradients, tuple) else "one value"
        raise UserError("backward: expected (d_params, dx) of a layer with parameters, got {}", got)
    return gradients


def call_layer(
    rule: LayerRule,
    setting: Setting,
    function: Callable[..., Tree],
    inputs: Inputs,
    labels: jax.Array | None,
    **others: object,
) -> Tree:
    """Calls one of a rule's forward functions in a setting, or with other arguments."""
    arrays = {"params": {}, **inputs, "labels": labels}
    key = jax.random.key(0)
    if "key" in rule.inputs:
        arrays["key"] = key
    if "keys" in rule.inputs:
        layer: Any = rule.layers[0]
        network = Chain([layer(**setting.static)])
        arrays["keys"] = network.apply({}, method=Chain.dropout_keys, rngs={"dropout": key})[0]
    if "mask" in rule.inputs:
        rows = jnp.arange(len(arrays["x"]), 0, -1)
        arrays["mask"] = (rows > setting.padding).astype(arrays["x"].dtype)
    return function(*(arrays[name] for name in rule.inputs), **{**setting.static, **others})


def _draw(setting: Setting) -> tuple[dict[str, Any], np.ndarray | None]:
    """The inputs, in float64, and the labels, which have no gradient."""
    inputs: dict[str, Any] = {}
    if setting.params:
        # Whole numbers tie whatever the order of the sums.
        kind = "integers" if setting.numbers in ("integers", "equal") else "normal"
        shapes = enumerate(flatten_dict(dict(setting.params)).items(), start=1)
        drawn = {path: _numbers(kind, shape, seed) for seed, (path, shape) in shapes}
        inputs["params"] = unflatten_dict(drawn)
    inputs["x"] = setting.scale * _numbers(setting.numbers, setting.x)
    return inputs, _labels(setting.labels, *setting.x) if setting.labels else None


def _numbers(kind: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    drawn = {
        "normal": lambda: random.standard_normal(shape),
        "integers": lambda: random.integers(-2, 3, shape).astype(np.float64),
        "equal": lambda: np.full(shape, 2.0),
        "huge": lambda: random.choice([-1e4, -30.0, 0.0, 1e4], shape),
        "shares": lambda: random.uniform(0.1, 1.0, shape),
    }
    return drawn[kind]()


def _labels(kind: str, batch: int, num_classes: int) -> np.ndarray:
    if kind == "probabilities":
        shares = _numbers("shares", (batch, num_classes))
        return shares / shares.sum(axis=1, keepdims=True)
    classes = np.random.default_rng(0).integers(0, num_classes, batch, dtype=np.int32)
    return classes if kind == "classes" else np.eye(num_classes)[classes]


def _label(setting: Setting) -> str:
    """The label of a setting, such as "4x5 kernel 5x3 bias 3"."""
    sizes = {"": setting.x, **flatten_dict(dict(setting.params), sep=".")}
    parts = [f"{name} {'x'.join(map(str, shape))}".lstrip() for name, shape in sizes.items()]
    if setting.numbers != "normal":
        parts.insert(1, setting.numbers)
    parts += [setting.labels, "" if setting.scale == 1 else f"times {setting.scale:g}"]
    parts.append(f"padding {setting.padding}" if setting.padding else "")
    parts += [f"{name} {value}" for name, value in setting.static.items()]
    parts.append(f"({setting.origin})" if setting.origin else "")
    return " ".join(filter(None, parts))
