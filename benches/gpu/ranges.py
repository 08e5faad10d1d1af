#!/usr/bin/env python3
"""What kernels that shapes share cost, on the GPU of this machine: engines for a range against engines for listed
shapes, which have kernels of their own for each.

    ranges.py --bin target/release/rtrt-codegen --models MODELS [--only a,b]

MODELS as in models.py. Needs numpy and onnx. Engines are f16, times medians over replays of one CUDA graph, and the
difference is that of the outputs of both engines, relative in the 2-norm. Exit status 1 if one is over 1e-2.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import onnx

from models import HALF_BOUND, prepare

# The range, and some shapes of it; the first one is the usual one.
CASES = {
    "resnet50": ({"batch": (1, 10)}, [{"batch": n} for n in (8, 3, 5, 7)]),
    "vit_b_16": ({"batch": (1, 8)}, [{"batch": n} for n in (4, 3, 7)]),
    "bert_base": ({"batch": (1, 1), "length": (119, 128)}, [{"batch": 1, "length": n} for n in (128, 121, 127)]),
    "gpt2_kv": ({"batch": (1, 1), "past_length": (119, 128)},
                [{"batch": 1, "past_length": n} for n in (128, 121, 127)]),
}
DTYPES = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.INT64: np.int64}


def bound_dims(value, symbols):
    return [symbols[d.dim_param] if d.dim_param else d.dim_value for d in value.type.tensor_type.shape.dim]


def shape_text(graph, symbols):
    return ",".join(f"{value.name}:{'x'.join(map(str, bound_dims(value, symbols)))}" for value in graph.input)


def drawn(graph, symbols, rng):
    """Random inputs; integers are small enough to be tokens, positions and masks."""
    def draw(value):
        dims, kind = bound_dims(value, symbols), DTYPES[value.type.tensor_type.elem_type]
        if kind == np.int64:
            return np.ones(dims, kind) if "mask" in value.name else rng.integers(0, 64, dims).astype(kind)
        return rng.standard_normal(dims).astype(kind)
    return {value.name: draw(value) for value in graph.input}


def difference(one, other):
    def error(name):
        got, want = (outputs[name].astype(np.float64) for outputs in (one, other))
        return float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30))
    return max(error(name) for name in other.files)


class Comparison:
    def __init__(self, args):
        self.args = args
        self.wrong = False

    def command(self, *arguments):
        done = subprocess.run([self.args.bin, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{arguments[:2]}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def compile(self, model, engine, flags):
        started = time.time()
        self.command("compile", model, "--arch", self.args.arch, "--fp16", "-o", engine, *flags)
        return time.time() - started

    def median_us(self, engine, shape):
        return json.loads(self.command("bench", engine, "--json", "--duration", "0.2", "--shapes", shape))["median_us"]

    def outputs(self, engine, inputs):
        given, got = self.args.work / "in.npz", self.args.work / "out.npz"
        np.savez(given, **inputs)
        self.command("run", engine, "--inputs", given, "--outputs", got, "--device", "cuda:0")
        return np.load(got)

    def model(self, name):
        bounds, shapes = CASES[name]
        model = prepare(self.args.models / name, self.args.work) / "model.onnx"
        graph = onnx.load(model, load_external_data=False).graph
        texts = [shape_text(graph, symbols) for symbols in shapes]
        least, most = (shape_text(graph, {symbol: ends[end] for symbol, ends in bounds.items()}) for end in (0, 1))
        shared, listed = (self.args.work / f"{name}.{kind}.engine" for kind in ("shared", "listed"))
        seconds = self.compile(model, shared, ["--minShapes", least, "--optShapes", texts[0], "--maxShapes", most,
                                               "--static-shapes", "1"])
        self.compile(model, listed, [flag for text in texts for flag in ("--shapes", text)])
        print(f"{name:12} {bounds} built in {seconds:.1f} s, {shared.stat().st_size / 1e6:.1f} MB", flush=True)
        rng = np.random.default_rng(1)
        for symbols, text in zip(shapes, texts):
            inputs = drawn(graph, symbols, rng)
            off = difference(self.outputs(shared, inputs), self.outputs(listed, inputs))
            self.wrong |= not off <= HALF_BOUND
            ours, own = self.median_us(shared, text), self.median_us(listed, text)
            print(f"  {symbols}: shared {ours:8.1f} us, own {own:8.1f} us ({ours / own:.3f}), difference {off:.1e}",
                  flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/rtrt-models"))
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--only", default=",".join(CASES))
    args = parser.parse_args()
    args.bin = args.bin.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(args)
    for name in args.only.split(","):
        comparison.model(name)
    return int(comparison.wrong)


if __name__ == "__main__":
    sys.exit(main())
