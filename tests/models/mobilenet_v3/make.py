#!/usr/bin/env python3
"""Write a MobileNetV3-Large whose weights are generated.

    python3 tests/models/mobilenet_v3/make.py OUT.onnx      # only the standard library is needed

The architecture is that of Howard et al., "Searching for MobileNetV3" (2019), table 1, with
batch normalisation as separate nodes, as a training framework would export it.  Weights are
uniform with the variance that keeps activations in range; the seed is fixed, so two runs
write the same bytes.  It shows compile time, fusion and memory, not accuracy.
"""
import array
import math
import random
import struct
import sys

# kernel, expanded channels, output channels, squeeze-and-excite, hard-swish, stride
BLOCKS = [
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
]


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, value):
    """A protobuf field: integers as varints, floats as fixed32, text and bytes with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else bytes(value)
    return varint(number << 3 | 2) + varint(len(data)) + data


def attribute(name, value):
    if isinstance(value, int):
        return field(1, name) + field(3, value) + field(20, 2)
    if isinstance(value, float):
        return field(1, name) + field(2, value) + field(20, 1)
    return field(1, name) + b"".join(field(8, item) for item in value) + field(20, 7)


def value_info(name, dims):
    shape = b"".join(field(1, field(2, dim) if isinstance(dim, str) else field(1, dim)) for dim in dims)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


class Builder:
    def __init__(self):
        self.random = random.Random(20191120)
        self.nodes, self.weights = [], []

    def tensor(self, name, dims, low, high):
        count = math.prod(dims)
        unit = self.random.random
        data = array.array("f", (low + (high - low) * unit() for _ in range(count)))
        if sys.byteorder == "big":
            data.byteswap()
        dims = b"".join(field(1, dim) for dim in dims)
        self.weights.append(dims + field(2, 1) + field(8, name) + field(9, data.tobytes()))
        return name

    def node(self, op, name, inputs, **attributes):
        self.nodes.append(
            b"".join(field(1, x) for x in inputs) + field(2, name) + field(3, name) + field(4, op)
            + b"".join(field(5, attribute(key, value)) for key, value in sorted(attributes.items())))
        return name

    def conv(self, name, x, c_in, c_out, kernel=1, stride=1, group=1, bias=False):
        fan_in = c_in // group * kernel * kernel
        bound = math.sqrt(6 / fan_in)
        inputs = [x, self.tensor(name + ".weight", [c_out, c_in // group, kernel, kernel], -bound, bound)]
        if bias:
            inputs.append(self.tensor(name + ".bias", [c_out], -0.1, 0.1))
        return self.node("Conv", name, inputs, group=group, kernel_shape=[kernel, kernel],
                         pads=[kernel // 2] * 4, strides=[stride, stride])

    def norm(self, name, x, channels):
        parts = [("scale", 0.6, 1.0), ("shift", -0.1, 0.1), ("mean", -0.1, 0.1), ("variance", 0.8, 1.2)]
        statistics = [self.tensor(f"{name}.{part}", [channels], low, high) for part, low, high in parts]
        return self.node("BatchNormalization", name, [x, *statistics], epsilon=1e-3)

    def conv_norm(self, name, x, c_in, c_out, act, **options):
        y = self.norm(name + ".norm", self.conv(name, x, c_in, c_out, **options), c_out)
        return self.node(act, name + ".act", [y]) if act else y

    def squeeze_excite(self, name, x, channels):
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)
        if squeezed < 0.9 * channels / 4:
            squeezed += 8
        y = self.node("GlobalAveragePool", name + ".pool", [x])
        y = self.node("Relu", name + ".relu", [self.conv(name + ".reduce", y, channels, squeezed, bias=True)])
        y = self.conv(name + ".expand", y, squeezed, channels, bias=True)
        y = self.node("HardSigmoid", name + ".gate", [y], alpha=1 / 6, beta=0.5)
        return self.node("Mul", name + ".scale", [x, y])

    def block(self, name, x, c_in, settings):
        kernel, expanded, c_out, excite, swish, stride = settings
        act = "HardSwish" if swish else "Relu"
        y = x
        if expanded != c_in:
            y = self.conv_norm(name + ".expand", y, c_in, expanded, act)
        y = self.conv_norm(name + ".depthwise", y, expanded, expanded, act,
                           kernel=kernel, stride=stride, group=expanded)
        if excite:
            y = self.squeeze_excite(name + ".excite", y, expanded)
        y = self.conv_norm(name + ".project", y, expanded, c_out, None)
        if stride == 1 and c_in == c_out:
            y = self.node("Add", name + ".residual", [y, x])
        return y

    def linear(self, name, x, n_in, n_out):
        bound = math.sqrt(3 / n_in)
        weight = self.tensor(name + ".weight", [n_out, n_in], -bound, bound)
        return self.node("Gemm", name, [x, weight, self.tensor(name + ".bias", [n_out], -0.1, 0.1)], transB=1)


def build():
    b = Builder()
    y, channels = b.conv_norm("stem", "image", 3, 16, "HardSwish", kernel=3, stride=2), 16
    for number, settings in enumerate(BLOCKS):
        y = b.block(f"block{number}", y, channels, settings)
        channels = settings[2]
    y = b.conv_norm("last", y, channels, 960, "HardSwish")
    y = b.node("Flatten", "flatten", [b.node("GlobalAveragePool", "pool", [y])])
    y = b.node("HardSwish", "hidden.act", [b.linear("hidden", y, 960, 1280)])
    logits = b.linear("logits", y, 1280, 1000)
    graph = (b"".join(field(1, node) for node in b.nodes) + field(2, "mobilenet_v3_large")
             + b"".join(field(5, weight) for weight in b.weights)
             + field(11, value_info("image", ["batch", 3, 224, 224]))
             + field(12, value_info(logits, ["batch", 1000])))
    return field(1, 9) + field(2, "make.py") + field(7, graph) + field(8, field(1, "") + field(2, 20))


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as out:
        out.write(build())
