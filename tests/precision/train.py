#!/usr/bin/env python3
"""Trains the networks of this folder on handwritten digits and writes them beside this script.

    pip install numpy scikit-learn onnx jax && python3 tests/precision/train.py      # about five minutes

The data is scikit-learn's `load_digits`: 1797 images of 8x8 pixels, values 0 to 16. Seeds are fixed.
Writes residual.onnx (a residual CNN with batch normalisation), separable.onnx (depthwise and
pointwise convolutions with ReLU6), vit.onnx (a vision transformer), calibration.npz (training
images, key `image`) and held.npz (held-out images, keys `image` and `label`).
"""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = pathlib.Path(__file__).parent
EPSILON = 1e-5
HEADS, DIM, TOKENS = 4, 40, 16


class Weights:
    """Named parameters, drawn as they are first asked for, and running statistics."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.learnt, self.running = {}, {}

    def normal(self, name, shape, fan):
        if name not in self.learnt:
            self.learnt[name] = self.rng.normal(0, np.sqrt(2 / fan), shape).astype(np.float32)

    def constant(self, name, shape, value):
        if name not in self.learnt:
            self.learnt[name] = np.full(shape, value, np.float32)


# -- Networks: one description, which either computes or writes ONNX nodes -------------------------


class Computing:
    """Runs a network in jax; `training` normalises by the batch and notes its statistics."""

    def __init__(self, learnt, running, training):
        self.p, self.running, self.training, self.seen = learnt, running, training, {}

    def conv(self, name, x, stride, pad, group=1):
        return jax.lax.conv_general_dilated(x, self.p[name + ".w"], (stride, stride), [(pad, pad)] * 2, feature_group_count=group,
                                            dimension_numbers=("NCHW", "OIHW", "NCHW"))

    def norm(self, name, x):
        if self.training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.seen[name] = (mean, variance)
        else:
            mean, variance = self.running[name]
        shaped = lambda v: v.reshape(1, -1, 1, 1)
        return (x - shaped(mean)) / jnp.sqrt(shaped(variance) + EPSILON) * shaped(self.p[name + ".gamma"]) + shaped(self.p[name + ".beta"])

    relu = staticmethod(lambda name, x: jnp.maximum(x, 0))
    relu6 = staticmethod(lambda name, x: jnp.clip(x, 0, 6))
    add = staticmethod(lambda name, a, b: a + b)
    pool = staticmethod(lambda name, x: x.mean((2, 3)))
    mean = staticmethod(lambda name, x: x.mean(1))

    def dense(self, name, x):
        return x @ self.p[name + ".w"] + self.p[name + ".b"]

    linear = dense

    def parameter(self, name, x):
        return x + self.p[name]

    def layer_norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * self.p[name + ".gamma"] + self.p[name + ".beta"]

    gelu = staticmethod(lambda name, x: 0.5 * x * (1 + jax.scipy.special.erf(x / np.sqrt(2))))

    def tokens(self, name, x):
        n = x.shape[0]
        return x.reshape(n, DIM, TOKENS).transpose(0, 2, 1)

    def attention(self, name, q, k, v):
        split = lambda x: x.reshape(x.shape[0], TOKENS, HEADS, DIM // HEADS).transpose(0, 2, 1, 3)
        q, k, v = split(q), split(k), split(v)
        scores = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(DIM // HEADS), -1)
        return (scores @ v).transpose(0, 2, 1, 3).reshape(-1, TOKENS, DIM)


class Writing:
    """Writes the same network as ONNX nodes."""

    def __init__(self, weights):
        self.learnt, self.running, self.nodes, self.constants = weights.learnt, weights.running, [], {}

    def constant(self, name, array):
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def weight(self, name):
        return self.constant(name, self.learnt[name])

    def node(self, op, name, inputs, **attrs):
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attrs))
        return name

    def conv(self, name, x, stride, pad, group=1):
        kernel = list(self.learnt[name + ".w"].shape[2:])
        return self.node("Conv", name, [x, self.weight(name + ".w")], pads=[pad] * 4, strides=[stride] * 2, group=group, kernel_shape=kernel)

    def norm(self, name, x):
        mean, variance = (np.asarray(value, np.float32) for value in self.running[name])
        parts = [self.weight(name + ".gamma"), self.weight(name + ".beta"), self.constant(name + ".mean", mean), self.constant(name + ".variance", variance)]
        return self.node("BatchNormalization", name, [x, *parts], epsilon=EPSILON)

    def relu(self, name, x):
        return self.node("Relu", name, [x])

    def relu6(self, name, x):
        return self.node("Clip", name, [x, self.constant("zero", np.float32(0)), self.constant("six", np.float32(6))])

    def add(self, name, a, b):
        return self.node("Add", name, [a, b])

    def pool(self, name, x):
        return self.node("Flatten", name, [self.node("GlobalAveragePool", name + ".pool", [x])])

    def mean(self, name, x):
        return self.node("ReduceMean", name, [x, self.constant("axis.tokens", np.array([1]))], keepdims=0)

    def dense(self, name, x):
        return self.node("Gemm", name, [x, self.weight(name + ".w"), self.weight(name + ".b")])

    def linear(self, name, x):
        return self.node("Add", name, [self.node("MatMul", name + ".product", [x, self.weight(name + ".w")]), self.weight(name + ".b")])

    def parameter(self, name, x):
        return self.node("Add", name + ".sum", [x, self.weight(name)])

    def layer_norm(self, name, x):
        return self.node("LayerNormalization", name, [x, self.weight(name + ".gamma"), self.weight(name + ".beta")], epsilon=EPSILON)

    def gelu(self, name, x):
        scaled = self.node("Div", name + ".scaled", [x, self.constant("root2", np.float32(np.sqrt(2)))])
        erf = self.node("Add", name + ".plus", [self.node("Erf", name + ".erf", [scaled]), self.constant("one", np.float32(1))])
        return self.node("Mul", name, [self.node("Mul", name + ".times", [x, erf]), self.constant("half", np.float32(0.5))])

    def tokens(self, name, x):
        flat = self.node("Reshape", name + ".flat", [x, self.constant("shape.tokens", np.array([0, DIM, TOKENS]))])
        return self.node("Transpose", name, [flat], perm=[0, 2, 1])

    def attention(self, name, q, k, v):
        split, merge = self.constant("shape.heads", np.array([0, TOKENS, HEADS, DIM // HEADS])), self.constant("shape.merged", np.array([0, TOKENS, DIM]))
        turned = [self.node("Transpose", f"{name}.{part}", [self.node("Reshape", f"{name}.{part}.heads", [x, split])], perm=perm)
                  for part, x, perm in (("q", q, [0, 2, 1, 3]), ("k", k, [0, 2, 3, 1]), ("v", v, [0, 2, 1, 3]))]
        scores = self.node("MatMul", name + ".scores", turned[:2])
        scaled = self.node("Div", name + ".scaled", [scores, self.constant("root", np.float32(np.sqrt(DIM // HEADS)))])
        weights = self.node("Softmax", name + ".softmax", [scaled], axis=-1)
        mixed = self.node("Transpose", name + ".turned", [self.node("MatMul", name + ".mixed", [weights, turned[2]])], perm=[0, 2, 1, 3])
        return self.node("Reshape", name, [mixed, merge])


def conv_norm(net, w, name, x, c_in, c_out, size=3, stride=1, group=1):
    shape = (c_out, c_in // group, size, size)
    w.normal(name + ".w", shape, c_in // group * size * size)
    w.constant(name + ".norm.gamma", (c_out,), 1)
    w.constant(name + ".norm.beta", (c_out,), 0)
    return net.norm(name + ".norm", net.conv(name, x, stride, (size - 1) // 2, group))


def dense(net, w, name, x, n_in, n_out, linear=False):
    w.normal(name + ".w", (n_in, n_out), 2 * n_in)
    w.constant(name + ".b", (n_out,), 0)
    return (net.linear if linear else net.dense)(name, x)


def residual(net, w, x):
    x = net.relu("stem.relu", conv_norm(net, w, "stem", x, 1, 24))
    for name, c_in, c_out, stride in (("one", 24, 24, 1), ("two", 24, 48, 2)):
        inner = net.relu(name + ".relu", conv_norm(net, w, name + ".first", x, c_in, c_out, stride=stride))
        inner = conv_norm(net, w, name + ".second", inner, c_out, c_out)
        skip = x if c_in == c_out else conv_norm(net, w, name + ".skip", x, c_in, c_out, size=1, stride=stride)
        x = net.relu(name + ".out", net.add(name + ".sum", inner, skip))
    return dense(net, w, "head", net.pool("features", x), 48, 10)


def separable(net, w, x):
    x = net.relu6("stem.relu", conv_norm(net, w, "stem", x, 1, 16))
    for name, c_in, c_out, stride in (("one", 16, 32, 1), ("two", 32, 64, 2), ("three", 64, 64, 1)):
        x = net.relu6(name + ".depth.relu", conv_norm(net, w, name + ".depth", x, c_in, c_in, stride=stride, group=c_in))
        x = net.relu6(name + ".point.relu", conv_norm(net, w, name + ".point", x, c_in, c_out, size=1))
    return dense(net, w, "head", net.pool("features", x), 64, 10)


def layer_norm(net, w, name, x):
    w.constant(name + ".gamma", (DIM,), 1)
    w.constant(name + ".beta", (DIM,), 0)
    return net.layer_norm(name, x)


def vit(net, w, x):
    w.normal("patches.w", (DIM, 1, 2, 2), 4)
    w.normal("positions", (1, TOKENS, DIM), 5000)
    x = net.parameter("positions", net.tokens("tokens", net.conv("patches", x, 2, 0)))
    for block in "abc":
        y = layer_norm(net, w, block + ".norm1", x)
        q, k, v = (dense(net, w, f"{block}.{part}", y, DIM, DIM, True) for part in ("query", "key", "value"))
        mixed = dense(net, w, block + ".project", net.attention(block + ".attention", q, k, v), DIM, DIM, True)
        x = net.add(block + ".sum1", x, mixed)
        y = layer_norm(net, w, block + ".norm2", x)
        y = net.gelu(block + ".gelu", dense(net, w, block + ".up", y, DIM, 2 * DIM, True))
        x = net.add(block + ".sum2", x, dense(net, w, block + ".down", y, 2 * DIM, DIM, True))
    return dense(net, w, "head", net.mean("pooled", layer_norm(net, w, "norm", x)), DIM, 10)


# -- Training --------------------------------------------------------------------------------------


def shifted(rng, images):
    """Each image moved by up to a pixel, so that few images go further."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
    moves = rng.integers(0, 3, (len(images), 2))
    return np.stack([image[:, i:i + 8, j:j + 8] for image, (i, j) in zip(padded, moves)])


def train(network, seed, images, labels, epochs, rate, batch=50):
    weights = Weights(seed)

    # Parameters are drawn when the network first uses them.
    drawing = Computing(weights.learnt, {}, True)
    network(drawing, weights, jnp.asarray(images[:batch]))
    weights.running = {name: (np.asarray(m), np.asarray(v)) for name, (m, v) in drawing.seen.items()}
    rng = np.random.default_rng(seed + 1)
    n_steps = epochs * (len(images) // batch)

    def loss(learnt, x, y):
        net = Computing(learnt, None, True)
        logits = network(net, weights, x)
        smooth = 0.95 * jax.nn.one_hot(y, 10) + 0.005
        return -(jax.nn.log_softmax(logits) * smooth).sum(1).mean(), net.seen

    @jax.jit
    def step(learnt, first, second, running, x, y, number):
        (_, seen), gradient = jax.value_and_grad(loss, has_aux=True)(learnt, x, y)
        own = rate * 0.5 * (1 + jnp.cos(jnp.pi * number / n_steps)) * jnp.minimum(1, (number + 1) / 100)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda m, g: 0.99 * m + 0.01 * g * g, second, gradient)
        t = number + 1
        learnt = jax.tree.map(lambda p, m, v: p - own * (m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.99**t)) + 1e-8) + 1e-4 * p), learnt, first, second)
        running = jax.tree.map(lambda old, new: 0.95 * old + 0.05 * new, running, seen)
        return learnt, first, second, running

    learnt = jax.tree.map(jnp.asarray, weights.learnt)
    running = jax.tree.map(jnp.asarray, weights.running)
    first = second = jax.tree.map(jnp.zeros_like, learnt)
    number = 0
    for _ in range(epochs):
        order = rng.permutation(len(images))
        moved = shifted(rng, images)
        for start in range(0, len(order) - batch + 1, batch):
            pick = order[start:start + batch]
            learnt, first, second, running = step(learnt, first, second, running, moved[pick], labels[pick], number)
            number += 1
    weights.learnt = {name: np.asarray(value) for name, value in learnt.items()}
    weights.running = {name: (np.asarray(m), np.asarray(v)) for name, (m, v) in running.items()}
    return weights


def export(name, network, weights):
    net = Writing(weights)
    result = network(net, weights, "image")
    net.nodes[-1].output[0] = "logits" if net.nodes[-1].output[0] == result else result
    graph = helper.make_graph(
        net.nodes, name, [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])], list(net.constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], producer_name="precision/train.py")
    model.ir_version = 9
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, HERE / f"{name}.onnx")


def main():
    digits = load_digits()
    images = (digits.images / 8 - 1)[:, None].astype(np.float32)
    x, x_held, y, y_held = train_test_split(images, digits.target, test_size=797, random_state=7, stratify=digits.target)
    for name, network, epochs, rate in (("residual", residual, 60, 3e-3), ("separable", separable, 120, 4e-3), ("vit", vit, 300, 2e-3)):
        weights = train(network, 7, x, y, epochs, rate)
        logits = network(Computing(weights.learnt, weights.running, False), weights, jnp.asarray(x_held))
        right = int((np.asarray(logits).argmax(1) == y_held).sum())
        print(f"{name}: {right} of {len(y_held)} held-out images, {sum(v.size for v in weights.learnt.values())} parameters")
        export(name, network, weights)
    np.savez_compressed(HERE / "calibration.npz", image=x[:300])
    np.savez_compressed(HERE / "held.npz", image=x_held, label=y_held.astype(np.int64))


if __name__ == "__main__":
    main()
