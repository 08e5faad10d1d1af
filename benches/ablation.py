#!/usr/bin/env python3
"""What groups of rules are worth in real models: the tables of docs/fusion.md.

    ablation.py --bin target/release/rtrt-codegen --models MODELS [--only a,b] [--update docs/fusion.md]
                [--measure --out OUT]

MODELS as in gpu/models.py. For each model in f16 at batch 1, and each group of rules left out, it
prints kernels and predicted time; no GPU is needed for that. With `--measure` every plan is also
compiled for the GPU of this machine, with variants chosen by prediction, and timed by `bench`:
medians over replays of one CUDA graph, kept in OUT/ablation.json. `--update` writes the tables
between the markers of a page; times that were not measured are written as `-`.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "gpu"))

SHAPES = {
    "resnet50": "image:1x3x224x224",
    "mobilenet_v3_large": "image:1x3x224x224",
    "efficientnet_b0": "image:1x3x224x224",
    "vit_b_16": "image:1x3x224x224",
    "bert_base": "input_ids:1x128,attention_mask:1x128",
    "gpt2": "input_ids:1x128",
}
ALL_TAGS = ["quantization", "canonical", "recognize", "algebra", "layout", "horizontal", "vertical", "placement"]
# Heading of a column, and the tags of the rules that are left out.
COLUMNS = [
    ("all rules", []),
    ("without horizontal", ["horizontal"]),
    ("without vertical", ["vertical"]),
    ("without layout", ["layout"]),
    ("none", ALL_TAGS),
]
BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"


def prepare(source, work):
    """A copy of the model with its weights."""
    from models import prepare as fill

    return fill(source, work)


def predicted(args, model, shapes):
    """(kernels, predicted microseconds) of each column."""
    groups = ["+".join(tags) for _, tags in COLUMNS if tags]
    command = [args.bin, "rules", "ablate", model, "--fp16", "--arch", args.arch, "--shapes", shapes, "--json"]
    for group in groups:
        command += ["--tag", group]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{model}: {done.stderr}")
    report = json.loads(done.stdout)
    by_name = {row["name"]: row["without"] for row in report["without"]}
    worths = [report["all"] if not tags else by_name["+".join(tags)] for _, tags in COLUMNS]
    return [(worth["kernels"], worth["predicted_us"]) if worth else None for worth in worths]


def measured(args, name, model, shapes):
    """Median microseconds of each column on the GPU; None where it cannot be built or run."""
    times = []
    for position, (_, tags) in enumerate(COLUMNS):
        engine = args.work / f"{name}.{position}.engine"
        command = [args.bin, "compile", model, "--fp16", "--arch", args.arch, "--shapes", shapes, "-o", engine]
        for tag in tags:
            command += ["--disable-rule", tag]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            print(f"{name}: {built.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            times.append(None)
            continue
        timed = subprocess.run([args.bin, "bench", engine, "--json", "--duration", "0.2"], capture_output=True, text=True)
        engine.unlink()
        times.append(json.loads(timed.stdout)["median_us"] if timed.returncode == 0 else None)
    return times


def table(title, rows, cell):
    lines = [f"{title}", "", "| model | " + " | ".join(name for name, _ in COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(cell(entry) for entry in row) + " |")
    return "\n".join(lines)


def pages(args, predictions, times):
    parts = [
        table(f"Kernels per inference ({args.arch}, f16, batch 1):", predictions, lambda w: str(w[0]) if w else "-"),
        table("Predicted time, microseconds:", predictions, lambda w: f"{w[1]:.0f}" if w else "-"),
        table(f"Measured time, microseconds ({args.gpu}):", {name: times.get(name) or [None] * len(COLUMNS) for name in predictions},
              lambda t: f"{t:.0f}" if t else "-"),
    ]
    return "\n\n".join(parts)


def update(page, text):
    old = page.read_text()
    before, rest = old.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/rtrt-models"))
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--gpu", default="not yet")
    parser.add_argument("--only", default=",".join(SHAPES))
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--update", type=pathlib.Path)
    args = parser.parse_args()
    args.bin = args.bin.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    predictions, times = {}, {}
    for name in args.only.split(","):
        model = prepare(args.models / name, args.work) / "model.onnx"
        predictions[name] = predicted(args, model, SHAPES[name])
        if args.measure:
            times[name] = measured(args, name, model, SHAPES[name])
        print(name, predictions[name], times.get(name, ""), file=sys.stderr, flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "ablation.json").write_text(json.dumps({"predicted": predictions, "measured_us": times}, indent=1))
    text = pages(args, predictions, times)
    print(text)
    if args.update:
        update(args.update, text)


if __name__ == "__main__":
    main()
