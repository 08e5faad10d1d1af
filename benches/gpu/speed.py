#!/usr/bin/env python3
"""Tunes real models for the GPU of this machine and prints the device time of one execution.

    speed.py --bin target/release/rtrt-codegen --models MODELS --out OUT [--batches 1,32] [--no-tune 32]
        [--peers PEERS] [--again]

MODELS as in models.py. Times are medians over replays of one CUDA graph, without the copies of
inputs and outputs; weights are seeded and activations f16. `--no-tune B` takes predicted variants
at batch B. Beside each time stand the kernels, the prediction, and seconds of the build; with
`--again` also those of a second build, which finds all timings of the first. PEERS is a JSON file
with `rows` of `model`, `batch`, `engine` and `gpu`, milliseconds; the ratio to torch.compile
(`inductor`) stands last.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import time

from models import prepare

SHAPES = {
    "resnet50": "image:{b}x3x224x224",
    "mobilenet_v3_large": "image:{b}x3x224x224",
    "efficientnet_b0": "image:{b}x3x224x224",
    "vit_b_16": "image:{b}x3x224x224",
    "bert_base": "input_ids:{b}x128,attention_mask:{b}x128",
    "gpt2": "input_ids:{b}x128",
}


def measure(args, case, batch):
    engine = args.work / f"{case.name}.{batch}.engine"
    command = [args.bin, "compile", case / "model.onnx", "--arch", args.arch, "--fp16", "-o", engine, "--json",
               "--shapes", SHAPES[case.name].format(b=batch)]
    if batch not in args.no_tune:
        command += ["--tune", "--timingCacheFile", args.out / "timings.jsonl", "--maxTactics", str(args.max_tactics)]
    started = time.time()
    built = subprocess.run(command, capture_output=True, text=True)
    seconds = time.time() - started
    if built.returncode:
        return {"error": built.stderr.strip().splitlines()[-1:]}
    kernels = json.loads(built.stdout)["kernels"]
    again = None
    if args.again and batch not in args.no_tune:
        started = time.time()
        subprocess.run(command, capture_output=True, check=True)
        again = time.time() - started
    timed = subprocess.run([args.bin, "bench", engine, "--json", "--dumpProfile", "--duration", "0.2"], capture_output=True, text=True)
    engine.unlink()
    if timed.returncode:
        return {"error": timed.stderr.strip().splitlines()[-1:]}
    report = json.loads(timed.stdout)
    with open(args.out / "speed_profiles.jsonl", "a") as file:
        file.write(json.dumps({"model": case.name, "batch": batch, "profile": report}) + "\n")
    return {"kernels": len(kernels), "predicted_us": sum(k["predicted_us"] for k in kernels),
            "median_us": report["median_us"], "build_s": seconds, "again_s": again}


def peers_of(path):
    """Microseconds of torch.compile by the name of a model, with or without `_s128`, and its batch."""
    rows = json.loads(path.read_text())["rows"] if path else []
    return {(row["model"].removesuffix("_s128"), row["batch"]): row["gpu"] * 1e3
            for row in rows if row["engine"] == "inductor" and "gpu" in row}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/rtrt-models"))
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--only", default=",".join(SHAPES))
    parser.add_argument("--batches", default="1")
    parser.add_argument("--no-tune", default="")
    parser.add_argument("--max-tactics", type=int, default=10)
    parser.add_argument("--peers", type=pathlib.Path)
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    peers = peers_of(args.peers)
    args.bin = args.bin.resolve()
    args.no_tune = {int(b) for b in args.no_tune.split(",") if b}
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"{'model':20} batch kernels predicted_us  median_us  build_s  again_s  peer_us  ratio")
    for name in args.only.split(","):
        case = prepare(args.models / name, args.work)
        for batch in (int(b) for b in args.batches.split(",")):
            row = measure(args, case, batch)
            if "error" in row:
                print(f"{name:20} {batch:5} {row['error']}", flush=True)
                continue
            tuned = "" if batch not in args.no_tune else "  not tuned"
            again = f"{row['again_s']:8.1f}" if row["again_s"] else " " * 8
            peer = peers.get((name, batch))
            beside = f" {peer:8.1f}  {row['median_us'] / peer:.3f}" if peer else ""
            print(f"{name:20} {batch:5} {row['kernels']:7} {row['predicted_us']:12.1f} {row['median_us']:10.1f} "
                  f"{row['build_s']:8.1f} {again}{beside}{tuned}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
