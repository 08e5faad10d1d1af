"""Makes the models of this folder: a small network with seeded weights, quantised by ONNX Runtime
in its formats, with what ONNX Runtime computes for drawn inputs.

    pip install numpy onnx onnxruntime && python3 tests/quantized/make.py

Each NAME.onnx comes with NAME.npz: the input `x`, the output `y`, and `step`, the scale of `y`. `int4_blocks` has
weights of four bits in blocks, as opset 21 spells them, and what ONNX's reference computes with floats.
Sessions may execute signed operands in integers, which they otherwise leave to other devices.
"""

import pathlib
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

FOLDER = pathlib.Path(__file__).parent
SHAPE = [2, 3, 8, 8]


def weight(rng, name, *shape):
    fan = max(1, int(np.prod(shape[1:])))
    values = rng.standard_normal(shape) * np.sqrt(2.0 / fan) if len(shape) > 1 else rng.standard_normal(shape) * 0.1
    return numpy_helper.from_array(values.astype(np.float32), name)


def network():
    rng = np.random.default_rng(7)
    conv = lambda x, n, y, **attrs: helper.make_node("Conv", [x, f"w{n}", f"b{n}"], [y], name=f"conv{n}", **attrs)
    nodes = [
        conv("x", 0, "c0", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu0"),
        helper.make_node("MaxPool", ["r0"], ["p0"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        conv("p0", 1, "c1", pads=[1, 1, 1, 1], group=8),
        conv("c1", 2, "c2"),
        helper.make_node("Add", ["c2", "p0"], ["a0"], name="add"),
        helper.make_node("Relu", ["a0"], ["r1"], name="relu1"),
        helper.make_node("GlobalAveragePool", ["r1"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["h"], name="dense", transB=1),
        helper.make_node("MatMul", ["h", "w4"], ["y"], name="head"),
    ]
    shapes = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 1, 3, 3), "b1": (8,), "w2": (8, 8, 1, 1), "b2": (8,),
              "w3": (6, 8), "b3": (6,), "w4": (6, 5)}
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [SHAPE[0], 5])],
        [weight(rng, name, *shape) for name, shape in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Drawn(CalibrationDataReader):
    def __init__(self):
        rng = np.random.default_rng(11)
        self.samples = iter([{"x": rng.standard_normal(SHAPE).astype(np.float32)} for _ in range(8)])

    def get_next(self):
        return next(self.samples, None)


def last_scale(model):
    """The scale of the last DequantizeLinear."""
    last = [node for node in model.graph.node if node.op_type == "DequantizeLinear"][-1]
    scale = next(entry for entry in model.graph.initializer if entry.name == last.input[1])
    return numpy_helper.to_array(scale).reshape(())


def make(name, form, activations, symmetric, per_channel):
    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch) / "float.onnx"
        onnx.save(network(), source)
        quantize_static(
            source, FOLDER / f"{name}.onnx", Drawn(), quant_format=form, activation_type=activations,
            weight_type=QuantType.QInt8, per_channel=per_channel,
            extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = onnxruntime.InferenceSession(FOLDER / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(13).standard_normal(SHAPE).astype(np.float32)
    model = onnx.load(FOLDER / f"{name}.onnx")
    np.savez(FOLDER / f"{name}.npz", x=x, y=session.run(None, {"x": x})[0], step=last_scale(model))


def int4_blocks():
    """Layers whose weights are dequantised along their terms: by `axis` 0 and 1, with and without a zero point."""
    rng = np.random.default_rng(5)
    scales = lambda *shape: numpy_helper.from_array(rng.uniform(0.01, 0.04, shape).astype(np.float32))
    def numbers(name, *shape):
        values = rng.integers(-8, 8, shape)
        pairs = (values.reshape(-1, 2) & 15).astype(np.uint8)
        return helper.make_tensor(name, TensorProto.INT4, shape, (pairs[:, 0] | pairs[:, 1] << 4).tobytes(), raw=True)
    weights = [numbers("q0", 64, 48), scales(2, 48), numbers("q1", 24, 48), scales(24, 3),
               helper.make_tensor("z1", TensorProto.INT4, (24, 3), bytes(36), raw=True), weight(rng, "b1", 24)]
    weights[1].name, weights[3].name = "s0", "s1"
    nodes = [
        helper.make_node("DequantizeLinear", ["q0", "s0"], ["w0"], axis=0, block_size=32),
        helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("DequantizeLinear", ["q1", "s1", "z1"], ["w1"], axis=1, block_size=16),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["y"], name="second", transB=1),
    ]
    graph = helper.make_graph(
        nodes, "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 24])], weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, FOLDER / "int4_blocks.onnx")
    x = rng.standard_normal((3, 64)).astype(np.float32)
    y, = ReferenceEvaluator(model).run(None, {"x": x})
    np.savez(FOLDER / "int4_blocks.npz", x=x, y=y.astype(np.float32), step=np.float32(1e-3))


if __name__ == "__main__":
    u8, s8 = QuantType.QUInt8, QuantType.QInt8
    make("qdq_asymmetric", QuantFormat.QDQ, u8, False, False)
    make("qdq_per_channel", QuantFormat.QDQ, s8, True, True)
    make("qoperator_asymmetric", QuantFormat.QOperator, u8, False, False)
    make("qoperator_per_channel", QuantFormat.QOperator, s8, True, True)
    int4_blocks()
