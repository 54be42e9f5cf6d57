"""An ONNX model of a run's network, written from its layers.

ONNX computes in NCHW: the pictures are transposed once, and back before they are flattened, so
that the first dense layer's kernel stays as it is.
"""

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jaxnets.deploy.export.archive import Archive
from jaxnets.models.alexnet_layers import averaging_matrices

# Read by ONNX Runtime since 1.14, Triton's and KServe's since early 2023.
OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT = "images", "logits"


def to_bytes(archive: Archive) -> bytes:
    """The content of the file: images [batch, H, W, C] float32 from 0 to 1 -> logits [batch, K]."""
    graph = _Graph()
    shape = archive.metadata["image_shape"]
    value = graph.add("Transpose", INPUT, perm=[0, 3, 1, 2])
    for layer in archive.metadata["layers"]:
        value = getattr(graph, layer["kind"])(value, shape, layer, archive.arrays)
        shape = layer["shape"]
    graph.nodes[-1].output[0] = OUTPUT
    image_shape, num_classes = archive.metadata["image_shape"], len(archive.metadata["class_names"])
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
                self.constants.append(numpy_helper.from_array(value, f"c{len(self.constants)}"))
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
        mean, std = (np.reshape(layer[name], (3, 1, 1)) for name in ("mean", "std"))
        x = self.add("Sub", x, mean.astype(np.float32))
        return self.add("Div", x, std.astype(np.float32))

    def conv(self, x, shape, layer, arrays):
        kernel, bias = (arrays[f"{layer['name']}.{name}"] for name in ("kernel", "bias"))
        return self.add(
            "Conv", x, np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias,
            strides=[layer["stride"]] * 2, pads=[layer["padding"]] * 4, group=layer["groups"],
        )  # fmt: skip

    def max_pool(self, x, shape, layer, arrays):
        window, stride = [layer["window"]] * 2, [layer["stride"]] * 2
        return self.add("MaxPool", x, kernel_shape=window, strides=stride)

    def adaptive_average_pool(self, x, shape, layer, arrays):
        matrices = averaging_matrices([layer["size"]] * 2, shape[:2], np.float32)
        rows, columns = map(np.asarray, matrices)
        x = self.add("MatMul", rows, x)
        return self.add("MatMul", x, np.ascontiguousarray(columns.T))

    def local_response_norm(self, x, shape, layer, arrays):
        n = layer["n"]  # ONNX divides alpha by it.
        numbers = {"bias": layer["k"], "alpha": n * layer["alpha"], "beta": layer["beta"]}
        return self.add("LRN", x, size=n, **numbers)

    def flatten(self, x, shape, layer, arrays):
        return self.add("Flatten", self.add("Transpose", x, perm=[0, 2, 3, 1]), axis=1)

    def dense(self, x, shape, layer, arrays):
        names = [f"{layer['name']}.{name}" for name in ("kernel", "bias")]
        return self.add("Gemm", x, *(arrays[name] for name in names if name in arrays))

    def relu(self, x, shape, layer, arrays):
        return self.add("Relu", x)

    def sigmoid(self, x, shape, layer, arrays):
        return self.add("Sigmoid", x)

    def softmax(self, x, shape, layer, arrays):
        return self.add("Softmax", x, axis=-1)
