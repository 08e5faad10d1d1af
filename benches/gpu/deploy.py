#!/usr/bin/env python3
"""What a deployer meets, on the GPU of this machine: one engine for ten shapes against ONNX Runtime and
against static engines, cold starts, and a tuning that is killed.

    deploy.py --bin target/release/rtrt-codegen --models MODELS --out OUT [--runner target/runtime/small/rtrt-run]

MODELS as in models.py. Needs numpy, onnx and onnxruntime. Engines are f16, errors relative in the 2-norm
(at most 1e-2), times medians over replays of one CUDA graph. Exit status 1 if an output is wrong.
"""
from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime

from models import HALF_BOUND, prepare
from symbolic import Commands, at_shapes, drawn, parser_of, shape_text, worst_error

# The first of each is the shape that a static engine is made for, too.
SHAPES = {
    "resnet50": [{"batch": n} for n in (8, 1, 2, 3, 4, 5, 6, 7, 12, 16)],
    "vit_b_16": [{"batch": n} for n in (4, 1, 2, 3, 5, 6, 7, 8, 10, 12)],
    "bert_base": [{"batch": b, "length": n} for b, n in
                  ((1, 128), (1, 8), (1, 31), (1, 64), (1, 256), (1, 384), (2, 128), (4, 64), (4, 128), (8, 128))],
    "gpt2_kv": [{"batch": b, "past_length": n} for b, n in
                ((1, 128), (1, 1), (1, 17), (1, 64), (1, 255), (1, 256), (1, 511), (2, 128), (4, 128), (8, 64))],
}


class Deployer(Commands):
    def dynamic(self, name):
        """One engine at all shapes of a model."""
        case = prepare(self.args.models / name, self.args.work)
        model = case / "model.onnx"
        graph = onnx.load(model, load_external_data=False).graph
        texts = [shape_text(graph, symbols) for symbols in SHAPES[name]]
        engine, static = (self.args.work / f"{name}.{kind}.engine" for kind in ("dynamic", "static"))
        seconds = self.compile(model, engine, *at_shapes(texts))
        self.compile(model, static, *at_shapes(texts[:1]))
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        rng = np.random.default_rng(1)
        errors = []
        for symbols in SHAPES[name]:
            inputs = drawn(graph, symbols, rng)
            wanted = dict(zip(names, session.run(names, inputs)))
            errors.append(worst_error(self.outputs(engine, inputs), wanted))
        self.wrong |= max(errors) > HALF_BOUND
        ours, alone = self.median_us(engine, texts[0]), self.median_us(static, texts[0])
        print(f"{name:12} {len(texts):3} shapes  worst error {max(errors):.1e}  {ours:8.1f} us, static {alone:8.1f} us "
              f"({ours / alone:.3f})  {engine.stat().st_size / 1e6:7.1f} MB, static {static.stat().st_size / 1e6:7.1f} MB"
              f"  built in {seconds:.1f} s", flush=True)
        return static

    def cold_start(self, name):
        """A new process each time; the first one also finds the file cold."""
        case = prepare(self.args.models / name, self.args.work)
        engine = self.args.work / f"{name}.cold.engine"
        self.compile(case / "model.onnx", engine)
        for _ in range(3):
            done = subprocess.run([self.args.runner, engine], capture_output=True, text=True)
            print(f"{name:12} cold start: {(done.stdout or done.stderr).strip()}", flush=True)

    def killed_tuning(self, name):
        """Timings survive the process that made them."""
        case = prepare(self.args.models / name, self.args.work)
        engine, timings = self.args.work / "killed.engine", self.args.out / "killed.jsonl"
        for earlier in (engine, timings):
            earlier.unlink(missing_ok=True)
        tune = ["compile", case / "model.onnx", "--arch", self.args.arch, "--fp16", "-o", engine, "--tune",
                "--timingCacheFile", timings]
        build = subprocess.Popen([self.args.bin, *tune], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while build.poll() is None and not timings.exists():
            time.sleep(0.01)
        time.sleep(1)
        build.send_signal(signal.SIGKILL)
        build.wait()
        kept, left = len(timings.read_text().splitlines()), engine.exists()
        started = time.time()
        self.command(*tune)
        seconds = time.time() - started
        bytes_tuned = engine.read_bytes()
        started = time.time()
        self.command("compile", case / "model.onnx", "--arch", self.args.arch, "--fp16", "-o", engine,
                     "--timingCacheFile", timings, "--errorOnTimingCacheMiss")
        same = bytes_tuned == engine.read_bytes()
        self.wrong |= left or not same
        print(f"{name:12} killed while tuning: {kept} timings kept, engine left: {left}; resumed in {seconds:.1f} s, "
              f"{len(timings.read_text().splitlines())} timings; by the file alone in {time.time() - started:.1f} s, same bytes: {same}")

    def budget(self, name, seconds):
        case = prepare(self.args.models / name, self.args.work)
        engine = self.args.work / "budget.engine"
        took = self.compile(case / "model.onnx", engine, "--tune", "--build-budget", f"{seconds}s")
        print(f"{name:12} built in {took:.1f} s with a budget of {seconds} s", flush=True)


def main():
    parser = parser_of(__doc__, ",".join(SHAPES))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--runner", type=pathlib.Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    deployer = Deployer(args)
    for name in args.only.split(","):
        deployer.dynamic(name)
    if args.runner:
        deployer.cold_start("resnet50")
    deployer.killed_tuning("mobilenet_v3_large")
    deployer.budget("mobilenet_v3_large", 5)
    return int(deployer.wrong)


if __name__ == "__main__":
    sys.exit(main())
