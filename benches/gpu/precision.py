#!/usr/bin/env python3
"""Judges 8-bit engines on the GPU of this machine: accuracy of small trained networks, speed of ResNet-50.

    precision.py --bin target/release/rtrt-codegen --models MODELS [--tests tests/precision] [--batch 32]

The networks of tests/precision tell held-out digits on the GPU and on the CPU, in each precision with all
layers in it. ResNet-50 (MODELS as in models.py, seeded weights, ranges from two seeded images) is timed in
f16, and in f16 and i8 with the layers that are predicted to gain, and with all layers.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np

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


def speed(args, work):
    model = prepare(args.models / "resnet50", work)
    images = np.random.default_rng(1).standard_normal((2, 3, 224, 224)).astype(np.float32)
    np.savez(work / "images.npz", image=images)
    cache = work / "resnet50.cache"
    call([args.bin, "calibrate", model / "model.onnx", "--calib", work / "images.npz", "-o", cache])
    int8 = ["--fp16", "--int8", "--calib", cache]
    shapes = ["--shapes", f"image:{args.batch}x3x224x224"]
    for name, flags in {"fp16": ["--fp16"], "int8 where predicted": int8, "int8": [*int8, "--layerPrecisions", "*:int8"]}.items():
        engine = work / "resnet50.engine"
        call([args.bin, "compile", model / "model.onnx", "--arch", args.arch, "-o", engine, *shapes, *flags])
        report = json.loads(call([args.bin, "bench", engine, "--json"]))
        print(f"resnet50 batch {args.batch} {name:22} {report['median_us']:9.1f} us, {engine.stat().st_size / 1e6:.1f} MB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path)
    parser.add_argument("--tests", type=pathlib.Path, default=pathlib.Path("tests/precision"))
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    args.bin = args.bin.resolve()
    with tempfile.TemporaryDirectory() as work:
        accuracy(args, pathlib.Path(work))
        if args.models:
            speed(args, pathlib.Path(work))


if __name__ == "__main__":
    main()
