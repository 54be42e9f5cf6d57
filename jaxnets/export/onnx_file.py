"""An ONNX model of a run's network, written from its layers.

ONNX computes in NCHW: the pictures are transposed once, and back before they are flattened, so
that the first dense layer's kernel stays as it is. The channels are axis 1 of pictures and rows.
"""

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jaxnets.export.archive import Archive
from jaxnets.models.alexnet_layers import averaging_matrices

# Read by ONNX Runtime since 1.14, Triton's and KServe's since early 2023.
OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT = "images", "logits"
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


def to_bytes(archive: Archive) -> bytes:
    """The content of the file: images [batch, H, W, C] float32 from 0 to 1 -> logits [batch, K]."""
    graph = _Graph()
    image_shape, layers = archive.metadata["image_shape"], archive.metadata["layers"]
    x = graph.add("Transpose", INPUT, perm=TO_NCHW) if len(image_shape) == 3 else INPUT
    graph.add("Identity", graph.chain(x, image_shape, layers, archive.arrays))
    graph.nodes[-1].output[0] = OUTPUT
    num_classes = len(archive.metadata["class_names"])
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
    texts = {name: json.dumps(value) for name, value in archive.metadata.items()}
    helper.set_model_props(model, texts)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Graph:
    """The nodes so far. Each method adds a layer's and returns the name of its output."""

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

    def center_crop(self, x, shape, layer, arrays):
        size = np.array(layer["shape"][:2])
        corner = (np.array(shape[:2]) - size) // 2
        return self.add("Slice", x, corner, corner + size, np.array([2, 3]))

    def enlarge(self, x, shape, layer, arrays):
        if shape[:2] != layer["shape"][:2]:
            scales = [1, 1, *np.divide(layer["shape"][:2], shape[:2])]
            x = self.add("Resize", x, "", np.array(scales, np.float32), mode="linear")
        return x if shape[2] == 3 else self.add("Concat", x, x, x, axis=1)

    def normalize(self, x, shape, layer, arrays):
        form = (-1, *[1] * (len(shape) - 1))  # Channels, or columns, stand first.
        mean, std = (np.reshape(layer[name], form) for name in ("mean", "std"))
        x = self.add("Sub", x, mean.astype(np.float32))
        return self.add("Div", x, std.astype(np.float32))

    def chain(self, x, shape, layers, arrays):
        for layer in layers:
            x = getattr(self, layer["kind"])(x, shape, layer, arrays)
            shape = layer["shape"]
        return x

    def residual(self, x, shape, layer, arrays):
        parts = [self.chain(x, shape, layer[part], arrays) for part in ("chain", "shortcut")]
        return self.add("Add", *parts)

    def conv(self, x, shape, layer, arrays):
        kernel, *bias = self.of(layer, arrays, "kernel", "bias")
        (top, bottom), (left, right) = layer["padding"]
        return self.add(
            "Conv", x, np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), *bias,
            strides=layer["stride"], pads=[top, left, bottom, right], group=layer["groups"],
        )  # fmt: skip

    def of(self, layer, arrays, *parts):
        """The arrays of a layer that it has."""
        names = [f"{layer['name']}.{part}" for part in parts]
        return [arrays[name] for name in names if name in arrays]

    def max_pool(self, x, shape, layer, arrays):
        window, stride = [layer["window"]] * 2, [layer["stride"]] * 2
        return self.add("MaxPool", x, kernel_shape=window, strides=stride)

    def average_pool(self, x, shape, layer, arrays):
        window, stride = [layer["window"]] * 2, [layer["stride"]] * 2
        return self.add("AveragePool", x, kernel_shape=window, strides=stride)

    def global_average_pool(self, x, shape, layer, arrays):
        return self.add("Flatten", self.add("GlobalAveragePool", x), axis=1)

    def adaptive_average_pool(self, x, shape, layer, arrays):
        matrices = averaging_matrices([layer["size"]] * 2, shape[:2], np.float32)
        rows, columns = map(np.asarray, matrices)
        x = self.add("MatMul", rows, x)
        return self.add("MatMul", x, np.ascontiguousarray(columns.T))

    def local_response_norm(self, x, shape, layer, arrays):
        n, places = layer["n"], np.array([2, 3])
        y = x if len(shape) == 3 else self.add("Unsqueeze", x, places)
        if n % 2:  # ONNX divides alpha by n.
            numbers = {"bias": layer["k"], "alpha": n * layer["alpha"], "beta": layer["beta"]}
            y = self.add("LRN", y, size=n, **numbers)
        else:  # ONNX Runtime has no LRN of an even n: a convolution adds the neighbours.
            away = np.subtract.outer(*[-np.arange(shape[-1])] * 2)  # [out, in]: in - out.
            near = (away >= -(n // 2)) & (away <= (n - 1) // 2)
            kernel = np.float32(layer["alpha"]) * near[:, :, None, None]
            k = np.full(shape[-1], layer["k"], np.float32)
            sums = self.add("Conv", self.add("Mul", y, y), kernel, k)
            y = self.add("Mul", y, self.add("Pow", sums, np.float32(-layer["beta"])))
        return y if len(shape) == 3 else self.add("Squeeze", y, places)

    def flatten(self, x, shape, layer, arrays):
        x = self.add("Transpose", x, perm=TO_NHWC) if len(shape) == 3 else x
        return self.add("Flatten", x, axis=1)

    def dense(self, x, shape, layer, arrays):
        return self.add("Gemm", x, *self.of(layer, arrays, "kernel", "bias"))

    def batch_norm(self, x, shape, layer, arrays):
        params = self.of(layer, arrays, "scale", "bias", "mean", "var")
        return self.add("BatchNormalization", x, *params, epsilon=layer["epsilon"])

    def layer_norm(self, x, shape, layer, arrays):
        params, is_image = self.of(layer, arrays, "scale", "bias"), len(shape) == 3
        x = self.add("Transpose", x, perm=TO_NHWC) if is_image else x
        x = self.add("LayerNormalization", x, *params, epsilon=layer["epsilon"])
        return self.add("Transpose", x, perm=TO_NCHW) if is_image else x

    def relu(self, x, shape, layer, arrays):
        return self.add("Relu", x)

    def leaky_relu(self, x, shape, layer, arrays):
        return self.add("LeakyRelu", x, alpha=layer["slope"])

    def sigmoid(self, x, shape, layer, arrays):
        return self.add("Sigmoid", x)

    def tanh(self, x, shape, layer, arrays):
        return self.add("Tanh", x)

    def gelu(self, x, shape, layer, arrays):
        """Half of x (1 + tanh u), u = sqrt(2 / pi) (x + 0.044715 x³); opset 20 has it."""
        cubed = self.add("Mul", self.add("Mul", x, x), self.add("Mul", x, np.float32(0.044715)))
        u = self.add("Mul", self.add("Add", x, cubed), np.float32((2 / np.pi) ** 0.5))
        share = self.add("Add", self.add("Tanh", u), np.float32(1))
        return self.add("Mul", self.add("Mul", x, share), np.float32(0.5))

    def softmax(self, x, shape, layer, arrays):
        return self.add("Softmax", x, axis=1)
