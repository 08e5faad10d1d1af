#!/usr/bin/env python3
"""Train the bundled digits model and write it beside this script.

    python3 tests/models/digits/train.py      # needs numpy, scikit-learn and onnx; about a minute

The data is scikit-learn's `load_digits`: 1797 images of 8x8 pixels, values 0 to 16.
The network is a small residual CNN with batch normalisation, trained by hand-written
backpropagation, so that no deep-learning framework is needed.  Seeds are fixed.
Writes model.onnx, samples.npz (16 held-out images, key `image`) and labels.txt.
"""
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = pathlib.Path(__file__).parent
CHANNELS = 24
EPSILON = 1e-5


def windows(x):
    """3x3 neighbourhoods with zero padding: [n, h, w, 9 * c]."""
    n, h, w, c = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.concatenate([padded[:, i:i + h, j:j + w] for i in range(3) for j in range(3)], axis=3)


def unwindows(g, c):
    """Transpose of `windows`."""
    n, h, w, _ = g.shape
    padded = np.zeros((n, h + 2, w + 2, c), g.dtype)
    for tap in range(9):
        padded[:, tap // 3:tap // 3 + h, tap % 3:tap % 3 + w] += g[..., tap * c:(tap + 1) * c]
    return padded[:, 1:-1, 1:-1]


class Conv:
    """Convolution without bias, then batch normalisation."""

    def __init__(self, rng, c_in, c_out):
        self.c_in = c_in
        self.parameters = {
            "w": rng.normal(0, np.sqrt(2 / (9 * c_in)), (9 * c_in, c_out)),
            "gamma": np.ones(c_out),
            "beta": np.zeros(c_out),
        }
        self.mean, self.variance = np.zeros(c_out), np.ones(c_out)

    def forward(self, x, training):
        p = self.parameters
        self.columns = windows(x)
        y = self.columns @ p["w"]
        if training:
            mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
            self.mean = 0.9 * self.mean + 0.1 * mean
            self.variance = 0.9 * self.variance + 0.1 * variance
        else:
            mean, variance = self.mean, self.variance
        self.rstd = 1 / np.sqrt(variance + EPSILON)
        self.normal = (y - mean) * self.rstd
        return self.normal * p["gamma"] + p["beta"]

    def backward(self, g):
        p, count = self.parameters, np.prod(g.shape[:3])
        self.gradients = {"gamma": (g * self.normal).sum((0, 1, 2)), "beta": g.sum((0, 1, 2))}
        g = g * p["gamma"]
        g = self.rstd * (g - g.sum((0, 1, 2)) / count - self.normal * (g * self.normal).sum((0, 1, 2)) / count)
        flat = self.columns.reshape(-1, self.columns.shape[3])
        self.gradients["w"] = flat.T @ g.reshape(-1, g.shape[3])
        return unwindows(g @ p["w"].T, self.c_in)


class Network:
    def __init__(self, rng):
        self.stem, self.left, self.right = Conv(rng, 1, CHANNELS), Conv(rng, CHANNELS, CHANNELS), Conv(rng, CHANNELS, CHANNELS)
        self.parameters = {"w": rng.normal(0, np.sqrt(1 / CHANNELS), (CHANNELS * 16, 10)) / 4, "b": np.zeros(10)}

    def layers(self):
        return [self.stem, self.left, self.right, self]

    def forward(self, x, training=False):
        self.a = np.maximum(self.stem.forward(x, training), 0)
        self.b = np.maximum(self.left.forward(self.a, training), 0)
        self.c = np.maximum(self.right.forward(self.b, training) + self.a, 0)
        n = len(x)
        blocks = self.c.reshape(n, 4, 2, 4, 2, CHANNELS)
        self.pooled = blocks.max((2, 4))
        self.chosen = blocks == self.pooled[:, :, None, :, None]
        self.features = self.pooled.transpose(0, 3, 1, 2).reshape(n, -1)
        return self.features @ self.parameters["w"] + self.parameters["b"]

    def backward(self, g):
        n = len(g)
        self.gradients = {"w": self.features.T @ g, "b": g.sum(0)}
        g = (g @ self.parameters["w"].T).reshape(n, CHANNELS, 4, 4).transpose(0, 2, 3, 1)
        g = (self.chosen * g[:, :, None, :, None]).reshape(n, 8, 8, CHANNELS) * (self.c > 0)
        residual = g
        g = self.right.backward(g) * (self.b > 0)
        g = (self.left.backward(g) + residual) * (self.a > 0)
        self.stem.backward(g)


def train(network, images, labels, rng, epochs=30, batch=64):
    state = {}
    step = 0
    for epoch in range(epochs):
        rate = 2e-3 * (1 - epoch / epochs)
        order = rng.permutation(len(images))
        for start in range(0, len(order), batch):
            pick = order[start:start + batch]
            logits = network.forward(images[pick], training=True)
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(pick)), labels[pick]] -= 1
            network.backward(p / len(pick))
            step += 1
            for number, layer in enumerate(network.layers()):
                for name, gradient in layer.gradients.items():
                    m, v = state.get((number, name), (0, 0))
                    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
                    state[number, name] = m, v
                    layer.parameters[name] -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)


def export(network):
    nodes, weights = [], []

    def weight(name, array):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def conv(name, layer, x, residual=None):
        kernel = layer.parameters["w"].reshape(3, 3, layer.c_in, -1).transpose(3, 2, 0, 1)
        nodes.append(helper.make_node("Conv", [x, weight(name + ".weight", kernel)], [name], name, pads=[1, 1, 1, 1], kernel_shape=[3, 3]))
        statistics = [weight(f"{name}.{part}", value) for part, value in (
            ("gamma", layer.parameters["gamma"]), ("beta", layer.parameters["beta"]),
            ("mean", layer.mean), ("variance", layer.variance))]
        nodes.append(helper.make_node("BatchNormalization", [name, *statistics], [name + ".norm"], name + ".norm", epsilon=EPSILON))
        y = name + ".norm"
        if residual:
            nodes.append(helper.make_node("Add", [y, residual], [name + ".sum"], name + ".sum"))
            y = name + ".sum"
        nodes.append(helper.make_node("Relu", [y], [name + ".relu"], name + ".relu"))
        return name + ".relu"

    a = conv("stem", network.stem, "image")
    b = conv("left", network.left, a)
    c = conv("right", network.right, b, a)
    nodes.append(helper.make_node("MaxPool", [c], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]))
    nodes.append(helper.make_node("Flatten", ["pool"], ["features"], "flatten"))
    nodes.append(helper.make_node("Gemm", ["features", weight("head.weight", network.parameters["w"]), weight("head.bias", network.parameters["b"])], ["head"], "head"))
    nodes.append(helper.make_node("Softmax", ["head"], ["probability"], "softmax", axis=1))
    graph = helper.make_graph(
        nodes, "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 10])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], producer_name="digits/train.py")
    model.ir_version = 9
    onnx.checker.check_model(model)
    onnx.save(model, HERE / "model.onnx")


def main():
    rng = np.random.default_rng(7)
    digits = load_digits()
    images = (digits.images / 8 - 1)[..., None]
    x, x_test, y, y_test = train_test_split(images, digits.target, test_size=360, random_state=7, stratify=digits.target)
    network = Network(rng)
    train(network, x, y, rng)
    predicted = network.forward(x_test).argmax(1)
    print(f"held-out accuracy {np.mean(predicted == y_test):.4f} of {len(y_test)} images")
    export(network)
    samples = x_test[:16].transpose(0, 3, 1, 2).astype(np.float32)
    np.savez(HERE / "samples.npz", image=samples)
    (HERE / "labels.txt").write_text(" ".join(map(str, y_test[:16])) + "\n")


if __name__ == "__main__":
    main()
