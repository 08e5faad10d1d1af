#!/usr/bin/env python3
"""Judges 8-bit engines on the GPU of this machine: accuracy of small trained networks, speed of ResNet-50
and of single products.

    precision.py --bin target/release/rtrt-codegen --models MODELS [--tests tests/precision] [--batch 32]

The networks of tests/precision tell held-out digits on the GPU and on the CPU, in each precision with all
layers in it. ResNet-50 (MODELS as in models.py, seeded weights, ranges from two seeded images) is timed in
f16, and in f16 and i8 with the layers that are predicted to gain, and with all layers; --kernels adds the
slowest kernels of each. Products of drawn operands are timed in f16, i8 and f8e4m3, those of one row with
weights of 8 and of 4 bits, alone and in a chain of layers; a sum of 4096 terms in f8e4m3 is compared with the CPU's. Ranges of ResNet-50 that are
counted on the GPU are compared with those of the CPU. --sections picks some of accuracy, resnet50, products, rows,
chain, ranges.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models import prepare

CALIB = ["--calib", "calibration.npz"]
PRECISIONS = {
    "fp32": [],
    "fp16": ["--fp16"],
    "int8": ["--int8", *CALIB, "--layerPrecisions", "*:int8"],
    "int8 asymmetric": ["--int8", *CALIB, "--asymmetric", "--calib-method", "minmax", "--layerPrecisions", "*:int8"],
    "int8 and fp16": ["--int8", "--fp16", *CALIB, "--layerPrecisions", "*:int8"],
    "fp8": ["--fp8", *CALIB, "--layerPrecisions", "*:fp8"],
    "int8 weights and fp16": ["--int8-weights", "--fp16", "--layerPrecisions", "*:int8-weights"],
    "int4 weights and fp16": ["--int4-weights=32", "--fp16", "--layerPrecisions", "*:int4-weights"],
}


def call(arguments, **settings):
    done = subprocess.run([str(word) for word in arguments], capture_output=True, text=True, **settings)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    return done.stdout


def accuracy(args, work):
    labels = np.load(args.tests / "held.npz")["label"]
    for network in ("residual", "separable", "vit"):
        for name, flags in PRECISIONS.items():
            found = {}
            for device in ("cpu", "cuda:0"):
                out = work / "out.npz"
                try:
                    call([args.bin, "run", f"{network}.onnx", "--inputs", "held.npz", "--outputs", out, "--device", device, *flags], cwd=args.tests)
                except RuntimeError as error:
                    print(f"{network:10} {name:22} {device}: {error}", flush=True)
                    continue
                found[device] = np.load(out)["logits"]
            right = {device: int((logits.argmax(1) == labels).sum()) for device, logits in found.items()}
            off = np.abs(np.subtract(*found.values())).max() if len(found) == 2 else float("nan")
            print(f"{network:10} {name:22} right of {len(labels)}: {right}, GPU and CPU differ by {off:.2e}", flush=True)


def timed(args, label, model, flags, work):
    """Median time of an engine in microseconds, which is printed with its size."""
    engine = work / "timed.engine"
    tune = ["--tune", "--timingCacheFile", work / "timings"] if args.tune else []
    call([args.bin, "compile", model, "--arch", args.arch, "-o", engine, *flags, *tune])
    profile = ["--dumpProfile"] if args.kernels else []
    report = json.loads(call([args.bin, "bench", engine, "--json", "--duration", "0.2", *profile]))
    print(f"{label:44} {report['median_us']:9.1f} us, predicted {report['predicted_us']:9.1f}, {engine.stat().st_size / 1e6:.1f} MB", flush=True)
    slowest = sorted(report["kernels"], key=lambda kernel: -kernel["alone_us"]) if args.kernels else []
    for kernel in slowest[:args.kernels]:
        print(f"    {kernel['alone_us']:8.2f} us  {kernel['name']}", flush=True)
    return report["median_us"]


def resnet50(args, work):
    model = prepare(args.models / "resnet50", work)
    images = np.random.default_rng(1).standard_normal((2, 3, 224, 224)).astype(np.float32)
    np.savez(work / "images.npz", image=images)
    cache = work / "resnet50.cache"
    call([args.bin, "calibrate", model / "model.onnx", "--calib", work / "images.npz", "-o", cache])
    int8 = ["--fp16", "--int8", "--calib", cache]
    shapes = ["--shapes", f"image:{args.batch}x3x224x224"]
    cases = {"fp16": ["--fp16"], "int8 where predicted": int8, "int8": [*int8, "--layerPrecisions", "*:int8"]}
    times = {
        name: timed(args, f"resnet50 batch {args.batch} {name}", model / "model.onnx", [*shapes, *flags], work)
        for name, flags in cases.items()
    }
    for name in list(cases)[1:]:
        print(f"resnet50 batch {args.batch} {name}: {times['fp16'] / times[name]:.2f} times the speed of fp16", flush=True)


F32, F16, I8, F8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.FLOAT8E4M3FN


def drawn(kind, dims, name):
    """A weight of `kind`; floats of 8 bits have sizes of at most 1."""
    generator = np.random.default_rng(2)
    if kind in (F16, F32):
        return numpy_helper.from_array(generator.standard_normal(dims).astype(helper.tensor_dtype_to_np_dtype(kind)), name)
    if kind == I8:
        return numpy_helper.from_array(generator.integers(-127, 128, dims, dtype=np.int8), name)
    codes = generator.integers(0, 0x39, dims, dtype=np.uint8) | generator.integers(0, 2, dims, dtype=np.uint8) << 7
    return helper.make_tensor(name, kind, dims, codes.tobytes(), raw=True)


def product(kind, rows, size, path, x_kind=None):
    """A model that multiplies rows of `x_kind`, stored as `kind`, with a square weight."""
    weights, nodes = [drawn(kind, (size, size), "w")], []
    a, b = "x", "w"
    if kind in (I8, F8):
        scale = numpy_helper.from_array(np.float32(0.01), "scale")
        weights += [scale, helper.make_tensor("zero", kind, [], b"\0", raw=True)]
        if x_kind:
            nodes.append(helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("QuantizeLinear", ["wide", "scale", "zero"], ["q"]))
            a = "q"
        nodes.append(helper.make_node("DequantizeLinear", [a, "scale", "zero"], ["a"]))
        nodes.append(helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["b"]))
        a, b = "a", "b"
    nodes.append(helper.make_node("MatMul", [a, b], ["product"]))
    nodes.append(helper.make_node("Cast", ["product"], ["y"], to=F16))
    inputs = [helper.make_tensor_value_info("x", x_kind or kind, [rows, size])]
    outputs = [helper.make_tensor_value_info("y", F16, [rows, size])]
    graph = helper.make_graph(nodes, "product", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def products(args, work):
    model = work / "product.onnx"
    for size in (4096, 8192):
        times = {}
        for name, kind in {"fp16": F16, "int8": I8, "fp8": F8}.items():
            product(kind, size, size, model)
            times[name] = timed(args, f"product {size} x {size} x {size} {name}", model, [], work)
        speeds = [f"{name} {times['fp16'] / us:.2f}" for name, us in times.items()]
        print(f"    speed beside fp16: {', '.join(speeds)}", flush=True)
    product(F8, 256, 4096, model, x_kind=F16)
    np.savez(work / "x.npz", x=np.random.default_rng(3).uniform(0, 0.02, (256, 4096)).astype(np.float16))
    found = []
    for device in ("cpu", "cuda:0"):
        call([args.bin, "run", model, "--inputs", work / "x.npz", "--outputs", work / "y.npz", "--device", device])
        found.append(np.load(work / "y.npz")["y"].astype(np.float64))
    off = np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[0])
    print(f"sums of 4096 products of fp8: GPU and CPU differ by {off:.2e} (relative, 2-norm)", flush=True)


def rows(args, work):
    model = work / "row.onnx"
    # Only weights of f32 are quantised.
    cases = {"fp16": (F16, []), "int8 weights": (F32, ["--fp16", "--int8-weights", "--layerPrecisions", "*:int8-weights"])}
    for group in (32, 64, 128):
        cases[f"int4 weights, {group}"] = (F32, ["--fp16", f"--int4-weights={group}"])
    for count, size in ((1, 4096), (1, 8192), (8, 4096), (64, 4096), (1024, 4096)):
        times = {}
        for name, (kind, flags) in cases.items():
            product(kind, count, size, model)
            times[name] = timed(args, f"{count} rows times {size} x {size} {name}", model, flags, work)
        speeds = [f"{name} {times['fp16'] / us:.2f}" for name, us in times.items()]
        print(f"    speed beside fp16: {', '.join(speeds)}", flush=True)


def chain(args, work):
    """One row through layers whose weights do not stay in the L2 cache from one inference to the next, as those of
    a model do not: microseconds a layer."""
    model, n_layers, size = work / "chain.onnx", 12, 4096
    generator = np.random.default_rng(4)
    weights, nodes, last = [], [], "x"
    for layer in range(n_layers):
        values = generator.standard_normal((size, size), dtype=np.float32) / np.float32(size**0.5)
        weights.append(numpy_helper.from_array(values, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"product{layer}"]))
        last = f"y{layer}"
        nodes.append(helper.make_node("Tanh", [f"product{layer}"], [last]))
    inputs = [helper.make_tensor_value_info("x", F32, [1, size])]
    outputs = [helper.make_tensor_value_info(last, F32, [1, size])]
    graph = helper.make_graph(nodes, "chain", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), model)
    every = ["--layerPrecisions", "*:int8-weights"]
    cases = {"fp16": ["--fp16"], "int8 weights": ["--fp16", "--int8-weights", *every], "int4 weights, 64": ["--fp16", "--int4-weights=64"]}
    times = {
        name: timed(args, f"{n_layers} layers of one row times {size} x {size} {name}", model, flags, work) / n_layers
        for name, flags in cases.items()
    }
    for name, us in times.items():
        print(f"    {name}: {us:.2f} us a layer, {times['fp16'] / us:.2f} times the speed of fp16", flush=True)


def ranges(args, work):
    """Scales of caches that are counted on both devices, and how long that takes."""
    model = prepare(args.models / "resnet50", work)
    images = np.random.default_rng(1).standard_normal((8, 3, 224, 224)).astype(np.float32)
    np.savez(work / "images.npz", image=images)
    found = []
    for device in ("cpu", "cuda:0"):
        cache, begin = work / "ranges.cache", time.monotonic()
        call([args.bin, "calibrate", model / "model.onnx", "--calib", work / "images.npz", "-o", cache, "--device", device])
        print(f"calibrate on {device}: {time.monotonic() - begin:.1f} s", flush=True)
        lines = [line.rsplit(": ", 1) for line in cache.read_text().splitlines()[1:]]
        found.append({name: np.uint32(int(bits, 16)).view(np.float32) for name, bits in lines})
    off = [abs(found[1][name] / scale - 1) for name, scale in found[0].items()]
    print(f"{len(off)} scales, GPU and CPU differ by {max(off):.2e} at most, {np.median(off):.2e} in the middle", flush=True)


SECTIONS = {
    "accuracy": accuracy,
    "resnet50": resnet50,
    "products": products,
    "rows": rows,
    "chain": chain,
    "ranges": ranges,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path)
    parser.add_argument("--tests", type=pathlib.Path, default=pathlib.Path("tests/precision"))
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--kernels", type=int, default=0)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    args.bin = args.bin.resolve()
    with tempfile.TemporaryDirectory() as work:
        for name in args.sections.split(","):
            if name != "resnet50" or args.models:
                SECTIONS[name](args, pathlib.Path(work))


if __name__ == "__main__":
    main()
