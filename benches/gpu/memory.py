#!/usr/bin/env python3
"""What engines take of device memory, and what `--max-memory` makes of 30 per cent less.

    memory.py --bin target/release/rtrt-codegen --models MODELS [--only a,b] [--precisions f32,fp16] [--execute]

MODELS as in models.py. One line per model and precision: peak, arena and its lower bound, and what a build under the
limit says: what it takes, or the least that it says to allow, which it must then take to the byte, and refuse one
byte below. With `--execute`, which alone needs a GPU, the engine under the limit is executed beside the one without, on
the same inputs: how far each is from the one in f32 without a limit, and its time. Models with live control flow have no
engines and are left out. Exit status 1 if an arena is over 1.05 of its bound, a limit is not kept, a refusal states
what is not so, or an engine under a limit is further off than `OFF` times the one without.
"""
from __future__ import annotations

import collections
import re
import sys

import numpy as np
import onnx

from models import prepare
from symbolic import Commands, Failed, drawn, parser_of, shape_text, worst_error

MOST_RATIO = 1.05
SHARE = 0.7
# Sums in another order: of f32 up to the second, of halves up to the first times what these lose anyway.
OFF, OFF_F32 = 1.5, 1e-3
IN_STAGES = {"loop_refine_legacy", "cond_gate"}
# Ranges: bounds of each symbol, and the usual value.
RANGES = {
    "resnet50": {"batch": (1, 2, 4)},
    "mobilenet_v3_large": {"batch": (1, 4, 8)},
    "densenet121": {"batch": (1, 2, 4)},
    "distilbert": {"batch": (1, 1, 1), "length": (9, 16, 16)},
}


class Builds(Commands):
    def build(self, model, flags, limit=None, engine="memory.engine"):
        """The report of a build, or the least bytes that a refusal names."""
        engine = self.args.work / engine
        limited = [] if limit is None else ["--max-memory", limit]
        try:
            report = self.report(model, engine, *flags, *limited)
        except Failed as failed:
            least = re.search(r"takes (\d+) bytes of device memory at least", " ".join(failed.stderr.split()))
            if limit is None or least is None:
                raise
            return None, int(least.group(1))
        # The reader proves that nothing in the arena is overwritten while it is used.
        self.command("inspect", engine)
        return report, None

    def executed(self, model, flags, limit):
        """How far the engines without and with the limit are off, what they take, and whether that is well."""
        engines = [self.args.work / f"memory.{name}.engine" for name in ("f32", "whole", "limited")]
        for engine, own, most in zip(engines, ([], flags, flags), (None, None, limit)):
            self.build(model, own, most, engine.name)
        graph = onnx.load(model, load_external_data=False).graph
        symbols = collections.defaultdict(lambda: 1)
        inputs = drawn(graph, symbols, np.random.default_rng(1))
        wanted, *found = (dict(self.outputs(engine, inputs)) for engine in engines)
        whole, limited = (worst_error(outputs, wanted) for outputs in found)
        us = [self.median_us(engine, shape_text(graph, symbols)) for engine in engines[1:]]
        holds = limited <= OFF_F32 + OFF * whole
        return f"off by {limited:.2e} ({whole:.2e} without a limit), {us[1]:.1f} us ({us[0]:.1f})", holds

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
        if self.args.execute and not any(flag.endswith("Shapes") for flag in flags):
            said, is_right = self.executed(model, flags, least or int(peak * SHARE))
            told, holds = f"{told}, {said}", holds and is_right
        fits = ratio <= MOST_RATIO
        self.wrong |= not (holds and fits)
        parts = " + ".join(f"{whole[key] / 1e6:.2f}" for key in ("weights_bytes", "arena_bytes", "workspace_bytes"))
        verdict = "" if holds and fits else "  WRONG"
        print(f"{name:26} {label:6} peak {peak:10} ({parts} MB), arena {arena}/{bound} = {ratio:.4f}, {told}{verdict}",
              flush=True)


def main():
    parser = parser_of(__doc__, "")
    parser.add_argument("--precisions", default="f32,fp16")
    parser.add_argument("--execute", action="store_true", help="also execute the engines of one shape")
    parser.add_argument("--ranges", action="store_true", help="only the engines for ranges")
    args = parser.parse_args()
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
