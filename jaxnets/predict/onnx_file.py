"""An ONNX model of a run's network, written from its layers.

ONNX computes in NCHW: the pictures are transposed once, and back before they are flattened, so
that the first dense layer's kernel stays as it is. The channels are axis 1 of pictures and rows.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jaxnets.backprop.rules import rule_named
from jaxnets.models.alexnet_layers import averaging_matrices
from jaxnets.predict.portable import PortableNetwork, check_kinds

# Read by ONNX Runtime since 1.14, Triton's and KServe's since early 2023.
OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT = "images", "logits"
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


def to_bytes(network: PortableNetwork, metadata: dict[str, Any]) -> bytes:
    """The content of the file: images [batch, H, W, C] float32 from 0 to 1 -> logits [batch, K].

    Raises:
      UserError: ONNX cannot hold a layer.
    """
    graph = Graph()
    image_shape, layers, arrays = network
    check_kinds(layers, "onnx", node_of)
    x = graph.add("Transpose", INPUT, perm=TO_NCHW) if len(image_shape) == 3 else INPUT
    graph.add("Identity", graph.chain(x, image_shape, layers, arrays))
    graph.nodes[-1].output[0] = OUTPUT
    (num_classes,) = layers[-1]["shape"]
    made = helper.make_graph(
        graph.nodes,
        "jaxnets",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *image_shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", num_classes])],
        graph.constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        made, producer_name="jaxnets", opset_imports=opset, ir_version=IR_VERSION
    )
    texts = {name: json.dumps(value) for name, value in metadata.items()}
    helper.set_model_props(model, texts)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class Graph:
    """The nodes so far."""

    def __init__(self):
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: Any, **attributes: Any) -> str:
        """Adds a node; an input is a value's name or a constant array."""
        names = []
        for value in inputs:
            if not isinstance(value, str):
                self.constants.append(
                    numpy_helper.from_array(np.asarray(value), f"c{len(self.constants)}")
                )
                value = self.constants[-1].name
            names.append(value)
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def of(self, layer, arrays, *parts):
        """The arrays that a layer has."""
        names = [f"{layer['name']}.{part}" for part in parts]
        return [arrays[name] for name in names if name in arrays]

    def chain(self, x, shape, layers, arrays):
        for layer in layers:
            add_nodes: Any = node_of(layer["kind"])
            x = add_nodes(self, x, shape, layer, arrays)
            shape = layer["shape"]
        return x


# Each adds the nodes of a layer and returns the name of its output. The arguments are the graph,
# the name of the input, the input's shape for one picture, the layer's row and all arrays.


def _center_crop(graph, x, shape, layer, arrays):
    size = np.array(layer["shape"][:2])
    corner = (np.array(shape[:2]) - size) // 2
    return graph.add("Slice", x, corner, corner + size, np.array([2, 3]))


def _enlarge(graph, x, shape, layer, arrays):
    if shape[:2] != layer["shape"][:2]:
        scales = [1, 1, *np.divide(layer["shape"][:2], shape[:2])]
        x = graph.add("Resize", x, "", np.array(scales, np.float32), mode="linear")
    return x if shape[2] == 3 else graph.add("Concat", x, x, x, axis=1)


def _normalize(graph, x, shape, layer, arrays):
    form = (-1, *[1] * (len(shape) - 1))  # Channels, or columns, come first.
    mean, std = (np.reshape(layer[name], form) for name in ("mean", "std"))
    x = graph.add("Sub", x, mean.astype(np.float32))
    return graph.add("Div", x, std.astype(np.float32))


def _residual(graph, x, shape, layer, arrays):
    parts = [graph.chain(x, shape, layer[part], arrays) for part in ("chain", "shortcut")]
    return graph.add("Add", *parts)


def _conv(graph, x, shape, layer, arrays):
    kernel, *bias = graph.of(layer, arrays, "kernel", "bias")
    (top, bottom), (left, right) = layer["padding"]
    return graph.add(
        "Conv",
        x,
        np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)),
        *bias,
        strides=layer["strides"],
        pads=[top, left, bottom, right],
        group=layer["feature_group_count"],
    )


def _max_pool(graph, x, shape, layer, arrays):
    window, stride = [layer["window"]] * 2, [layer["stride"]] * 2
    return graph.add("MaxPool", x, kernel_shape=window, strides=stride)


def _average_pool(graph, x, shape, layer, arrays):
    window, stride = [layer["window"]] * 2, [layer["stride"]] * 2
    return graph.add("AveragePool", x, kernel_shape=window, strides=stride)


def _global_average_pool(graph, x, shape, layer, arrays):
    return graph.add("Flatten", graph.add("GlobalAveragePool", x), axis=1)


def _adaptive_average_pool(graph, x, shape, layer, arrays):
    matrices = averaging_matrices([layer["size"]] * 2, shape[:2], np.float32)
    rows, columns = map(np.asarray, matrices)
    x = graph.add("MatMul", rows, x)
    return graph.add("MatMul", x, np.ascontiguousarray(columns.T))


def _local_response_norm(graph, x, shape, layer, arrays):
    n, places = layer["n"], np.array([2, 3])
    y = x if len(shape) == 3 else graph.add("Unsqueeze", x, places)
    if n % 2:  # ONNX divides alpha by n.
        numbers = {"bias": layer["k"], "alpha": n * layer["alpha"], "beta": layer["beta"]}
        y = graph.add("LRN", y, size=n, **numbers)
    else:  # ONNX Runtime has no LRN of an even n: a convolution adds the neighbours.
        away = np.subtract.outer(*[-np.arange(shape[-1])] * 2)  # [out, in]: in - out.
        near = (away >= -(n // 2)) & (away <= (n - 1) // 2)
        kernel = np.float32(layer["alpha"]) * near[:, :, None, None]
        k = np.full(shape[-1], layer["k"], np.float32)
        sums = graph.add("Conv", graph.add("Mul", y, y), kernel, k)
        y = graph.add("Mul", y, graph.add("Pow", sums, np.float32(-layer["beta"])))
    return y if len(shape) == 3 else graph.add("Squeeze", y, places)


def _flatten(graph, x, shape, layer, arrays):
    x = graph.add("Transpose", x, perm=TO_NHWC) if len(shape) == 3 else x
    return graph.add("Flatten", x, axis=1)


def _dense(graph, x, shape, layer, arrays):
    return graph.add("Gemm", x, *graph.of(layer, arrays, "kernel", "bias"))


def _batch_norm(graph, x, shape, layer, arrays):
    params = graph.of(layer, arrays, "scale", "bias", "mean", "var")
    return graph.add("BatchNormalization", x, *params, epsilon=layer["epsilon"])


def _layer_norm(graph, x, shape, layer, arrays):
    params, is_image = graph.of(layer, arrays, "scale", "bias"), len(shape) == 3
    x = graph.add("Transpose", x, perm=TO_NHWC) if is_image else x
    x = graph.add("LayerNormalization", x, *params, epsilon=layer["epsilon"])
    return graph.add("Transpose", x, perm=TO_NCHW) if is_image else x


def _relu(graph, x, shape, layer, arrays):
    return graph.add("Relu", x)


def _leaky_relu(graph, x, shape, layer, arrays):
    return graph.add("LeakyRelu", x, alpha=layer["slope"])


def _sigmoid(graph, x, shape, layer, arrays):
    return graph.add("Sigmoid", x)


def _tanh(graph, x, shape, layer, arrays):
    return graph.add("Tanh", x)


def _gelu(graph, x, shape, layer, arrays):
    """Half of x (1 + tanh u), u = sqrt(2 / pi) (x + 0.044715 x³); opset 20 has it."""
    cubed = graph.add("Mul", graph.add("Mul", x, x), graph.add("Mul", x, np.float32(0.044715)))
    u = graph.add("Mul", graph.add("Add", x, cubed), np.float32((2 / np.pi) ** 0.5))
    share = graph.add("Add", graph.add("Tanh", u), np.float32(1))
    return graph.add("Mul", graph.add("Mul", x, share), np.float32(0.5))


def _softmax(graph, x, shape, layer, arrays):
    return graph.add("Softmax", x, axis=1)


NODES = {
    "center_crop": _center_crop,
    "enlarge": _enlarge,
    "normalize": _normalize,
    "residual": _residual,
    "conv": _conv,
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "global_average_pool": _global_average_pool,
    "adaptive_average_pool": _adaptive_average_pool,
    "local_response_norm": _local_response_norm,
    "flatten": _flatten,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "gelu": _gelu,
    "softmax": _softmax,
}


def node_of(kind: str) -> Callable[..., str] | None:
    """The function that adds a layer's nodes: ours, or that of the user's own rule."""
    if kind in NODES:
        return NODES[kind]
    rule = rule_named(kind)
    return rule.onnx if rule else None
