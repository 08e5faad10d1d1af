#!/usr/bin/env python3
"""Compiles real models for the GPU of this machine, compares their outputs with the expected
ones, times them, and prints one line per model and precision.

    models.py --bin target/release/rtrt-codegen --models MODELS --out OUT [--only a,b] [--tune]

MODELS holds a folder per model: model.onnx, weights.json (a recipe for the weights), data.json
(the f32 tolerance), data_<i>/input_<j>.pb and output_<j>.pb or output_<j>.sample.npz, and beside
them fill_weights.py. Needs numpy and onnx. f32 is judged by the model's own tolerance, halves by
the relative error in the 2-norm (at most 1e-2). Exit status 1 if any is worse.
"""
from __future__ import annotations

import argparse
import concurrent.futures
import json
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import onnx
from onnx import numpy_helper

HALF_BOUND = 1e-2
# What a build is allowed on the CPU, where every stored tensor is rounded; kernels round others.
HALF_BUDGET = 5e-3
# Exit code of a clean refusal.
REFUSED = 3


def load_pb(path):
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return tensor


def prepare(source, work):
    """A copy of the model with its weights."""
    case = work / source.name
    if not case.exists():
        shutil.copytree(source, case)
        subprocess.run([sys.executable, source.parent / "fill_weights.py", case], check=True, capture_output=True)
    return case


def shapes(case, data, names):
    parts = []
    for j, name in enumerate(names):
        dims = list(load_pb(data / f"input_{j}.pb").dims)
        parts.append(f"{name}:{'x'.join(map(str, dims)) if dims else 'scalar'}")
    return ",".join(p for p in parts if not p.endswith(":scalar"))


def run(command, log):
    started = time.time()
    done = subprocess.run(command, capture_output=True, text=True)
    with open(log, "a") as file:
        file.write(f"$ {' '.join(map(str, command))}\n{done.stderr}\n")
    return done, time.time() - started


def compare(case, data, outputs, tolerance, half):
    """(passes, relative error in the 2-norm, largest excess over the tolerance)"""
    found = np.load(outputs)
    worst, passes, excess = 0.0, True, 0.0
    names = [o.name for o in onnx.load(case / "model.onnx", load_external_data=False).graph.output]
    for j, name in enumerate(names):
        sample = data / f"output_{j}.sample.npz"
        got = found[name]
        if sample.exists():
            kept = np.load(sample)
            want = kept["value"]
            if list(kept["shape"]) != list(got.shape):
                return False, float("inf"), float("inf")
            got = got.reshape(-1)[kept["index"]]
        else:
            want = numpy_helper.to_array(load_pb(data / f"output_{j}.pb"))
            if want.shape != got.shape:
                return False, float("inf"), float("inf")
        want, got = want.astype(np.float64), got.astype(np.float64)
        size = np.linalg.norm(want)
        error = float(np.linalg.norm(got - want) / size) if size else float(np.linalg.norm(got - want))
        if np.isnan(got).any() != np.isnan(want).any():
            error = float("inf")
        over = np.abs(got - want) - (tolerance["atol"] + tolerance["rtol"] * np.abs(want))
        excess = max(excess, float(np.nan_to_num(over, nan=np.inf).max(initial=-np.inf)))
        worst = max(worst, error)
    passes = worst <= HALF_BOUND if half else excess <= 0
    return passes, worst, excess


def held_of(case, work):
    """A folder of the model's own samples, without their outputs."""
    held = work / f"{case.name}.held"
    for data in case.glob("data_*"):
        own = held / data.name
        own.mkdir(parents=True, exist_ok=True)
        for file in data.glob("input_*.pb"):
            shutil.copy(file, own / file.name)
    return held


def compile_one(args, case, index, precision, names, budget=False):
    data = case / f"data_{index}"
    engine = args.work / f"{case.name}.{index}.{precision}.engine"
    command = [args.bin, "compile", case / "model.onnx", "--arch", args.arch, "-o", engine, "--json"]
    shape = shapes(case, data, names)
    if shape:
        command += ["--shapes", shape]
    if precision != "fp32":
        command.append(f"--{precision}")
    if budget:
        command += ["--accuracy-budget", f"relative={HALF_BUDGET}", "--held", held_of(case, args.work)]
    if args.tune and index == 0:
        command += ["--tune", "--timingCacheFile", args.out / "timings.jsonl", "--maxTactics", str(args.max_tactics)]
    log = args.out / "models.log"
    done, seconds = run(command, log)
    return engine, done, seconds


def judge(args, case, index, precision, engine, tolerance):
    data = case / f"data_{index}"
    outputs = args.work / f"{case.name}.{index}.{precision}.npz"
    done, _ = run([args.bin, "run", engine, "--inputs", data, "--outputs", outputs, "--device", "cuda:0"], args.out / "models.log")
    if done.returncode:
        return f"run failed ({done.returncode}): {done.stderr.strip()[:200]}", None
    passes, error, excess = compare(case, data, outputs, tolerance, precision != "fp32")
    outputs.unlink()
    return ("ok" if passes else f"WRONG (over by {excess:.2e})"), error


def with_budget(args, case, index, precision, names, tolerance):
    """The same with layers left wide until the outputs keep a budget on the model's samples."""
    engine, done, seconds = compile_one(args, case, index, precision, names, budget=True)
    if done.returncode:
        return f"no plan keeps the budget ({done.returncode})", None, round(seconds, 1)
    result, error = judge(args, case, index, precision, engine, tolerance)
    return f"{result} (budget)" if result == "ok" else result, error, round(seconds, 1)


def run_in_stages(args, case, index, tolerance):
    """A model that cannot be compiled ahead of its data: the program runs it in stages."""
    data = case / f"data_{index}"
    outputs = args.work / f"{case.name}.{index}.npz"
    command = [args.bin, "run", case / "model.onnx", "--inputs", data, "--outputs", outputs, "--device", "cuda:0"]
    done, _ = run(command, args.out / "models.log")
    if done.returncode:
        return f"run failed ({done.returncode}): {done.stderr.strip()[:200]}", None
    passes, error, excess = compare(case, data, outputs, tolerance, False)
    return ("ok (stages)" if passes else f"WRONG (over by {excess:.2e})"), error


def verify_kernels(args, case, index, precision, names):
    """Which kernels of a wrong model are wrong."""
    data = case / f"data_{index}"
    command = [args.bin, "compile", case / "model.onnx", "--arch", args.arch, "-o", args.work / "verify.engine",
               "--verify-kernels", "--maxTactics", "1"]
    shape = shapes(case, data, names)
    if shape:
        command += ["--shapes", shape]
    if precision != "fp32":
        command.append(f"--{precision}")
    done, _ = run(command, args.out / "verify.log")
    return [line for line in done.stderr.splitlines() if "off by" in line][:6]


def inputs_of(case):
    graph = onnx.load(case / "model.onnx", load_external_data=False).graph
    weights = {w.name for w in graph.initializer}
    return [i.name for i in graph.input if i.name not in weights]


def one_model(args, name):
    """Compiles everything of one model; the GPU is used one model at a time afterwards."""
    case = prepare(args.models / name, args.work)
    names = inputs_of(case)
    built = []
    for precision in args.precisions:
        if precision != "fp32" and ("fp16" in name):
            continue
        for index in args.data:
            if (case / f"data_{index}").exists():
                built.append((index, precision, *compile_one(args, case, index, precision, names)))
    return case, names, built


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/rtrt-models"))
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--only", default="")
    parser.add_argument("--data", default="0,1")
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--max-tactics", type=int, default=8)
    parser.add_argument("--profile", action="store_true", help="keep per-kernel times in OUT")
    parser.add_argument("--budget", action="store_true", help="build models whose halves are too coarse again, with an accuracy budget")
    parser.add_argument("--verify", action="store_true", help="name the wrong kernels of wrong models")
    args = parser.parse_args()
    args.bin = args.bin.resolve()
    args.precisions = args.precisions.split(",")
    args.data = [int(i) for i in args.data.split(",")]
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    names = sorted(p.parent.name for p in args.models.glob("*/model.onnx"))
    only = {n for n in args.only.split(",") if n}
    names = [n for n in names if not only or n in only]
    rows, bad = [], 0
    # Tuning times kernels: nothing else may run on the device then.
    workers = 1 if args.tune else args.workers
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for case, inputs, built in pool.map(lambda n: one_model(args, n), names):
            tolerance = json.loads((case / "data.json").read_text())
            for index, precision, engine, done, seconds in built:
                row = {"model": case.name, "data": index, "precision": precision, "build_s": round(seconds, 1)}
                if done.returncode == REFUSED and precision == "fp32":
                    row["result"], row["error"] = run_in_stages(args, case, index, tolerance)
                elif done.returncode == REFUSED:
                    continue
                elif done.returncode:
                    row["result"] = f"compile failed ({done.returncode}): {done.stderr.strip().splitlines()[-1:]}"[:160]
                else:
                    report = json.loads(done.stdout)
                    row["kernels"] = len(report["kernels"])
                    row["predicted_us"] = round(sum(k["predicted_us"] for k in report["kernels"]), 1)
                    row["result"], row["error"] = judge(args, case, index, precision, engine, tolerance)
                    if precision != "fp32" and row["result"] != "ok" and args.budget:
                        row["plain"] = row["error"]
                        row["result"], row["error"], row["build_s"] = with_budget(args, case, index, precision, inputs, tolerance)
                    if index == args.data[0] and row["result"].startswith("ok"):
                        bench = [args.bin, "bench", engine, "--json", "--duration", "0.2"] + (["--dumpProfile"] if args.profile else [])
                        timed, _ = run(bench, args.out / "models.log")
                        if timed.returncode == 0:
                            times = json.loads(timed.stdout)
                            row["median_us"] = round(times["median_us"], 1)
                            if args.profile:
                                with open(args.out / "profiles.jsonl", "a") as file:
                                    file.write(json.dumps({"row": row, "profile": times}) + "\n")
                    engine.unlink()
                if not row["result"].startswith("ok"):
                    bad += 1
                    if args.verify and not done.returncode:
                        row["kernels_off"] = verify_kernels(args, case, index, precision, inputs)
                rows.append(row)
                with open(args.out / "rows.jsonl", "a") as file:
                    file.write(json.dumps(row) + "\n")
            shutil.rmtree(case)
    print(f"{'model':26} data prec  kernels predicted_us median_us   error  build_s result")
    for r in rows:
        error = f"{r['error']:.1e}" if r.get("error") is not None else "-"
        print(f"{r['model']:26} {r['data']:4} {r['precision']:5} {r.get('kernels', '-'):>7} {r.get('predicted_us', '-'):>12} "
              f"{r.get('median_us', '-'):>9} {error:>7} {r['build_s']:>7} {r['result']}")
        for line in r.get("kernels_off", []):
            print(f"    {line[:200]}")
    print(f"{len(rows) - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
