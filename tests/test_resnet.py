"""The residual network of 20 layers, beside the one that PyTorch's own layers make."""

import jax
import numpy as np
import pytest
from conftest import quick_jit, random_params

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.base.trees import by_layer
from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.gradcheck.quick import precision
from jaxnets.models.batch_norm import split_statistics
from jaxnets.models.chain import walk
from jaxnets.networks.create import create_model

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle
nn, F = torch.nn, torch.nn.functional
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """He et al. 2016, figure 2, with the projection of option B."""

    def __init__(self, channels, features, stride):
        super().__init__()
        self.chain = nn.Sequential(
            nn.Conv2d(channels, features, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1, bias=False),
            nn.BatchNorm2d(features),
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            conv = nn.Conv2d(channels, features, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(features))

    def forward(self, x):
        return F.relu(self.chain(x) + self.shortcut(x))


class ResNet20(nn.Module):
    """Section 4.2, n = 3."""

    def __init__(self):
        super().__init__()
        blocks = []
        for channels, features in ((16, 16), (16, 32), (32, 64)):
            stride = 1 if channels == features else 2
            blocks += [Block(channels, features, stride)]
            blocks += [Block(features, features, 1) for _ in range(2)]
        first = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        self.layers = nn.Sequential(*first, *blocks)
        self.logits = nn.Linear(64, 10)

    def forward(self, x):
        return self.logits(self.layers(x).mean((2, 3)))

    def in_order(self):
        """The layers with parameters, in the order of the forward pass."""
        kinds = nn.Conv2d, nn.BatchNorm2d, nn.Linear
        return [layer for layer in self.modules() if isinstance(layer, kinds)]


def to_torch(array):
    """A kernel as PyTorch lays it out; anything else as it is."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(np.ndim(array), (0,))
    return torch.tensor(np.transpose(array, axes))


def test_weights_logits_and_gradients_are_those_of_pytorch():
    """In float64 to 1e-10 of each array's largest, in training and in an evaluation."""
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    names |= {"mean": "running_mean", "var": "running_var"}
    rng = np.random.default_rng(0)
    model = create_model(preset("resnet20", precision="float64"), 10)
    with precision("float64"):
        params = random_params(model, (16, 16, 3))
    params = jax.tree.map(lambda x: x + 0.2 * rng.random(x.shape) if x.ndim == 1 else x, params)
    images, labels = rng.random((3, 16, 16, 3)), np.array([3, 0, 7], np.int32)
    theirs = ResNet20().double()
    ours = by_layer(params)
    paths = [".".join(path) for path, _ in walk(model) if ".".join(path) in ours]
    pairs = list(zip(paths, theirs.in_order(), strict=True))
    for path, layer in pairs:
        for name, array in ours[path].items():
            getattr(layer, names[name]).data = to_torch(array)
    x = torch.tensor(((images - MEAN) / STD).transpose(0, 3, 1, 2))

    def both(params):
        batch = Batch(images, labels, np.ones(3))
        gradients = manual_loss_and_grad(model, "cross_entropy")(params, batch, jax.random.key(0))
        return gradients, model.apply({"params": params}, images)

    with precision("float64"):
        (metrics, gradient), logits = quick_jit(both)(params)
    expected = theirs.eval()(x).detach()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
    loss = F.cross_entropy(theirs.train()(x), torch.tensor(labels).long(), reduction="sum")
    loss.backward()
    assert float(metrics.loss_sum) == pytest.approx(loss.item(), rel=1e-12)
    for path, layer in pairs:
        for name, array in split_statistics(by_layer(gradient))[0][path].items():
            expected = getattr(layer, names[name]).grad
            size = float(expected.abs().max())
            np.testing.assert_allclose(
                to_torch(array), expected, rtol=0, atol=1e-10 * size, err_msg=f"{path}.{name}"
            )
    sizes = [sum(x.size for x in jax.tree.leaves(part)) for part in split_statistics(params)]
    assert sizes == [sum(leaf.numel() for leaf in theirs.parameters()), 1568]
    assert sizes[0] == 272_474
