"""Models with symbolic dims on the GPU of this machine: drawn inputs for a choice of the dims, engines, their outputs and times."""
from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import time

import numpy as np
import onnx

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


def worst_error(outputs, wanted):
    """The largest relative error in the 2-norm of the outputs named in `wanted`."""
    def error(name):
        got, want = (arrays[name].astype(np.float64) for arrays in (outputs, wanted))
        return float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30))
    return max(error(name) for name in wanted)


def parser_of(description, only):
    """What every script that uses `Commands` is told; `only` are the models that it takes unless told otherwise."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=lambda path: pathlib.Path(path).resolve(), required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/rtrt-models"))
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--only", default=only)
    return parser


class Failed(RuntimeError):
    """A command that failed; `stderr` is all that it said."""

    def __init__(self, arguments, stderr):
        super().__init__(f"{arguments[:2]}: {stderr.strip()[-400:]}")
        self.stderr = stderr


class Commands:
    """Commands of the binary `args.bin` for `args.arch`, with files in the folder `args.work`."""

    def __init__(self, args):
        self.args = args
        self.wrong = False
        args.work.mkdir(parents=True, exist_ok=True)

    def command(self, *arguments):
        done = subprocess.run([self.args.bin, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise Failed(arguments, done.stderr)
        return done.stdout

    def compile(self, model, engine, *flags):
        """The seconds that it takes."""
        started = time.time()
        self.command("compile", model, "--arch", self.args.arch, "--fp16", "-o", engine, *flags)
        return time.time() - started

    def report(self, model, engine, *flags):
        """What a build says of itself."""
        return json.loads(self.command("compile", model, "--arch", self.args.arch, "-o", engine, "--json", *flags))

    def median_us(self, engine, shape):
        return json.loads(self.command("bench", engine, "--json", "--duration", "0.2", "--shapes", shape))["median_us"]

    def outputs(self, engine, inputs):
        given, got = self.args.work / "in.npz", self.args.work / "out.npz"
        np.savez(given, **inputs)
        self.command("run", engine, "--inputs", given, "--outputs", got, "--device", "cuda:0")
        return np.load(got)


def at_shapes(texts):
    """Flags that ask for each of `texts`."""
    return [flag for text in texts for flag in ("--shapes", text)]
