"""Quantises the networks of this folder with ONNX Runtime, and keeps what ONNX Runtime computes.

    pip install numpy onnx onnxruntime && python3 tests/precision/quantise.py

Writes quantized/NAME.onnx and quantized/NAME.npz: the first held-out images as `image`, the outputs
as `logits`, and `step`, the scale of the outputs. Sessions execute the nodes as they stand: what ONNX
Runtime fuses vit_qdq_asymmetric to differs from its nodes by 18 steps, all others by none or one.
"""

import pathlib
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

HERE = pathlib.Path(__file__).parent
N_IMAGES = 32


class Samples(CalibrationDataReader):
    def __init__(self):
        images = np.load(HERE / "calibration.npz")["image"][:100]
        self.samples = iter([{"image": image[None]} for image in images])

    def get_next(self):
        return next(self.samples, None)


def output_scale(model):
    """The scale of what is dequantised, or multiplied, to the outputs."""
    last = next(node for node in model.graph.node if "logits" in node.output)
    assert last.op_type == "DequantizeLinear", last.op_type
    scale = next(entry for entry in model.graph.initializer if entry.name == last.input[1])
    return numpy_helper.to_array(scale).reshape(())


def make(network, form, symmetric):
    name = f"{network}_{'qdq' if form == QuantFormat.QDQ else 'qoperator'}_{'symmetric' if symmetric else 'asymmetric'}"
    target = HERE / "quantized" / f"{name}.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch) / "float.onnx"
        quant_pre_process(HERE / f"{network}.onnx", source)
        quantize_static(
            source, target, Samples(), quant_format=form, per_channel=symmetric,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
        )
    model = onnx.load(target)
    del model.graph.value_info[:]
    onnx.save(model, target)
    images, step = np.load(HERE / "held.npz")["image"][:N_IMAGES], output_scale(model)
    logits, fused = (outputs(target, images, level) for level in
                     (onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL))
    np.savez_compressed(target.with_suffix(".npz"), image=images, logits=logits, step=step)
    print(f"{name}: {target.stat().st_size} bytes, fused {np.abs(fused - logits).max() / step:.2f} steps off")


def outputs(model, images, level):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


if __name__ == "__main__":
    for network in ("residual", "separable", "vit"):
        for form in (QuantFormat.QDQ, QuantFormat.QOperator):
            for symmetric in (True, False):
                make(network, form, symmetric)
