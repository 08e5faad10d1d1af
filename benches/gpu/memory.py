#!/usr/bin/env python3
"""What engines take of device memory, and what `--max-memory` makes of 30 per cent less; needs no GPU.

    memory.py --bin target/release/rtrt-codegen --models MODELS [--only a,b] [--precisions f32,fp16]

MODELS as in models.py. One line per model and precision: peak, arena and its lower bound, and what a build under the
limit says: what it takes, or the least that it says to allow, which it must then take to the byte, and refuse one
byte below. Models with live control flow have no engines and are left out. Exit status 1 if an arena is over 1.05
of its bound, a limit is not kept, or a refusal states what is not so.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import re
import subprocess
import sys

import onnx

from models import prepare
from symbolic import shape_text

MOST_RATIO = 1.05
SHARE = 0.7
IN_STAGES = {"loop_refine_legacy", "cond_gate"}
# Ranges: bounds of each symbol, and the usual value.
RANGES = {
    "resnet50": {"batch": (1, 2, 4)},
    "mobilenet_v3_large": {"batch": (1, 4, 8)},
    "densenet121": {"batch": (1, 2, 4)},
    "distilbert": {"batch": (1, 1, 1), "length": (9, 16, 16)},
}


class Builds:
    def __init__(self, args):
        self.args = args
        self.wrong = False

    def build(self, model, flags, limit=None):
        """The report of a build, or the least bytes that a refusal names."""
        engine = self.args.work / "memory.engine"
        command = [self.args.bin, "compile", model, "--arch", self.args.arch, "-o", engine, "--json", *flags]
        if limit is not None:
            command += ["--max-memory", str(limit)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            report = json.loads(done.stdout)
            # The reader proves that nothing in the arena is overwritten while it is used.
            subprocess.run([self.args.bin, "inspect", engine], check=True, capture_output=True)
            return report, None
        least = re.search(r"takes (\d+) bytes of device memory at least", " ".join(done.stderr.split()))
        if limit is None or least is None:
            raise SystemExit(f"{model}: {done.stderr}")
        return None, int(least.group(1))

    def line(self, name, model, flags, label):
        whole, _ = self.build(model, flags)
        peak, arena, bound = (whole[key] for key in ("device_bytes", "arena_bytes", "arena_lower_bound_bytes"))
        ratio = arena / max(bound, 1)
        report, least = self.build(model, flags, int(peak * SHARE))
        if report is not None:
            holds = report["device_bytes"] <= int(peak * SHARE)
            told = f"holds with {report['device_bytes']} ({report['device_bytes'] / peak:.3f})"
        else:
            exact, _ = self.build(model, flags, least)
            below, still = self.build(model, flags, least - 1)
            holds = exact is not None and exact["device_bytes"] == least and below is None and still == least
            told = f"refuses below {least} ({least / peak:.3f})"
        fits = ratio <= MOST_RATIO
        self.wrong |= not (holds and fits)
        parts = " + ".join(f"{whole[key] / 1e6:.2f}" for key in ("weights_bytes", "arena_bytes", "workspace_bytes"))
        verdict = "" if holds and fits else "  WRONG"
        print(f"{name:26} {label:6} peak {peak:10} ({parts} MB), arena {arena}/{bound} = {ratio:.4f}, {told}{verdict}",
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/rtrt-models"))
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--precisions", default="f32,fp16")
    parser.add_argument("--only", default="")
    parser.add_argument("--ranges", action="store_true", help="only the engines for ranges")
    args = parser.parse_args()
    args.bin = args.bin.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    builds = Builds(args)
    folders = sorted(path.parent for path in args.models.glob("*/model.onnx"))
    wanted = set(filter(None, args.only.split(",")))
    for folder in folders:
        name = folder.name
        if name in IN_STAGES or (wanted and name not in wanted) or (args.ranges and name not in RANGES):
            continue
        model = prepare(folder, args.work) / "model.onnx"
        for precision in args.precisions.split(","):
            flags = [] if precision == "f32" else [f"--{precision}"]
            if not args.ranges:
                builds.line(name, model, flags, precision)
            if name in RANGES:
                graph = onnx.load(model, load_external_data=False).graph
                least, usual, most = (shape_text(graph, {symbol: ends[end] for symbol, ends in RANGES[name].items()})
                                      for end in range(3))
                ends = ["--minShapes", least, "--optShapes", usual, "--maxShapes", most, "--static-shapes", "1"]
                builds.line(f"{name}, range", model, [*flags, *ends], precision)
    return int(builds.wrong)


if __name__ == "__main__":
    sys.exit(main())
