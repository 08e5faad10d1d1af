#!/usr/bin/env python3
"""Times single kernels beside the libraries of PyTorch on the GPU of this machine, in one run.

    kernels.py --bin target/release/rtrt-codegen --out OUT [--sections gemm,epilogue,..] [--tune]

Every case is a small generated ONNX model and the same computation in torch: matmul (cuBLAS),
conv2d with channels last (cuDNN, benchmark mode), scaled_dot_product_attention (flash), a copy of
the same bytes. Both sides are timed alike: one CUDA graph per execution, replayed back to back,
medians, f16, drawn data. A speed above 1 is ours. Last come the geomeans per section. Needs
torch and onnx. OUT/kernels.jsonl gets a line per case.
"""
from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

WARM_UP, REPLAYS = 20, 100
F16, I8, I32 = TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT32
# A model, the same in torch as a function to be captured, and floating-point operations or bytes.
Case = collections.namedtuple("Case", "section name model peer work unit")


def drawn(*dims, dtype=torch.float16, scale=1.0):
    return torch.empty(dims, device="cuda", dtype=dtype).uniform_(-scale, scale)


def model(nodes, inputs, outputs, weights=(), opset=21):
    graph = helper.make_graph(
        nodes, "kernel",
        [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in inputs],
        [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


# Rows, depth and columns: of the models' layers, then square ones.
GEMMS = [(m, k, n) for m in (128, 4096) for k, n in ((768, 768), (768, 2304), (768, 3072), (3072, 768))]
GEMMS += [(m, k, n) for m in (197, 6304) for k, n in ((768, 768), (768, 2304), (768, 3072), (3072, 768))]
GEMMS += [(1024, 768, 3072), (1024, 3072, 768), (128, 768, 50257), (1, 2048, 1000), (32, 2048, 1000)]
GEMMS += [(3136, 64, 256), (784, 512, 128), (196, 1024, 256), (49, 2048, 512)]
GEMMS += [(100352, 64, 256), (25088, 512, 128), (6272, 1024, 256), (1568, 512, 2048), (49, 160, 960)]
SQUARES = [1024, 2048, 4096, 8192]


def gemms():
    for m, k, n in GEMMS + [(s, s, s) for s in SQUARES]:
        proto = model([helper.make_node("MatMul", ["a", "b"], ["y"])],
                      [("a", F16, [m, k]), ("b", F16, [k, n])], [("y", F16, [m, n])])
        a, b = drawn(m, k), drawn(k, n)
        yield Case("gemm", f"{m}x{k}x{n}", proto, lambda a=a, b=b: torch.matmul(a, b), 2 * m * k * n, "TFLOP/s")


def epilogues():
    """The same product with nothing behind it (the peer is the library's plain product), with bias and
    GELU, and with bias and residual."""
    for m, k, n in [(rows, k, n) for rows in (4096, 6304) for k, n in ((768, 3072), (3072, 768))] + [(s, s, s) for s in (4096, 8192)]:
        a, b = drawn(m, k), drawn(k, n)
        product = helper.make_node("MatMul", ["a", "b"], ["p"])
        biased = helper.make_node("Add", ["p", "c"], ["q"])
        tails = {"plain": [helper.make_node("Identity", ["p"], ["y"])],
                 "bias+gelu": [biased, helper.make_node("Gelu", ["q"], ["y"], approximate="tanh")],
                 "bias+residual": [biased, helper.make_node("Add", ["q", "r"], ["y"])]}
        for tail, nodes in tails.items():
            inputs = [("a", F16, [m, k]), ("b", F16, [k, n])]
            if tail != "plain":
                inputs.append(("c", F16, [n]))
            if tail == "bias+residual":
                inputs.append(("r", F16, [m, n]))
            proto = model([product, *nodes], inputs, [("y", F16, [m, n])])
            yield Case("epilogue", f"{m}x{k}x{n} {tail}", proto, lambda a=a, b=b: torch.matmul(a, b), 2 * m * k * n, "TFLOP/s")


def vocabularies():
    """A product with the rows of an embedding, as f32; the peer leaves its results in f16."""
    m, k, n = 4096, 768, 50257
    a, b = drawn(m, k), drawn(n, k)
    nodes = [helper.make_node("Transpose", ["b"], ["t"], perm=[1, 0]), helper.make_node("MatMul", ["a", "t"], ["p"]),
             helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT)]
    proto = model(nodes, [("a", F16, [m, k]), ("b", F16, [n, k])], [("y", TensorProto.FLOAT, [m, n])])
    yield Case("vocabulary", f"{m}x{k}x{n}", proto, lambda: torch.matmul(a, b.t()), 2 * m * k * n, "TFLOP/s")


def integer_gemms():
    for m, k, n in [(4096, 768, 3072), (4096, 4096, 4096), (8192, 8192, 8192)]:
        b = np.random.default_rng(1).integers(-127, 128, (k, n), dtype=np.int8)
        proto = model([helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
                      [("a", I8, [m, k])], [("y", I32, [m, n])], [("b", b)])
        left = torch.randint(-127, 128, (m, k), device="cuda", dtype=torch.int8)
        right = torch.from_numpy(np.ascontiguousarray(b.T)).cuda().t()
        yield Case("int8", f"{m}x{k}x{n}", proto, lambda a=left, b=right: torch._int_mm(a, b), 2 * m * k * n, "TOP/s")


def resnet50_layers():
    yield 3, 64, 7, 2, 224, 1
    channels, size = 64, 56
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        small = size // stride
        yield from [(channels, width, 1, 1, size, 1), (width, width, 3, stride, size, 1), (width, width * 4, 1, 1, small, 1),
                    (channels, width * 4, 1, stride, size, 1), (width * 4, width, 1, 1, small, 1), (width, width, 3, 1, small, 1)]
        channels, size = width * 4, small


def efficientnet_b0_layers():
    yield 3, 32, 3, 2, 224, 1
    channels, size = 32, 112
    for expand, kernel, stride, out, repeats in ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
                                                 (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)):
        for repeat in range(repeats):
            step, inner = stride if repeat == 0 else 1, channels * expand
            if expand > 1:
                yield channels, inner, 1, 1, size, 1
            yield inner, inner, kernel, step, size, inner
            size //= step
            yield inner, out, 1, 1, size, 1
            channels = out
    yield 320, 1280, 1, 1, 7, 1


def convs():
    """Convolution, bias and ReLU, channels last on both sides."""
    torch.backends.cudnn.benchmark = True
    layers = [(net, layer) for net, list_ in (("resnet50", resnet50_layers()), ("efficientnet_b0", efficientnet_b0_layers()))
              for layer in dict.fromkeys(list_)]
    for batch in (1, 32):
        for net, (channels, out, kernel, stride, size, group) in layers:
            pad, to = kernel // 2, (size + stride - 1) // stride
            weight, bias = drawn(out, channels // group, kernel, kernel, scale=0.1), drawn(out)
            nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
                     helper.make_node("Conv", ["t", "w", "b"], ["c"], group=group, pads=[pad] * 4, strides=[stride] * 2),
                     helper.make_node("Relu", ["c"], ["r"]), helper.make_node("Transpose", ["r"], ["y"], perm=[0, 2, 3, 1])]
            proto = model(nodes, [("x", F16, [batch, size, size, channels])], [("y", F16, [batch, to, to, out])],
                          [("w", weight.cpu().numpy()), ("b", bias.cpu().numpy())])
            x = drawn(batch, channels, size, size).to(memory_format=torch.channels_last)
            w = weight.to(memory_format=torch.channels_last)

            def peer(x=x, w=w, bias=bias, stride=stride, pad=pad, group=group):
                if group == 1:
                    return torch.cudnn_convolution_relu(x, w, bias, (stride, stride), (pad, pad), (1, 1), group)
                return F.relu_(F.conv2d(x, w, bias, stride, pad, 1, group))

            work = 2 * batch * to * to * out * channels // group * kernel * kernel
            yield Case(f"conv batch {batch}", f"{net} {channels}->{out} {kernel}x{kernel}/{stride} at {size} g{group}", proto, peer, work, "TFLOP/s")


def attentions():
    for depth in (64, 128):
        for tokens in (128, 256, 512, 1024, 2048, 4096, 8192):
            for causal in (False, True):
                dims = [max(1, 16384 // tokens), 2048 // depth, tokens, depth]
                node = helper.make_node("Attention", ["q", "k", "v"], ["y"], is_causal=int(causal))
                proto = model([node], [(name, F16, dims) for name in "qkv"], [("y", F16, dims)], opset=23)
                q, k, v = (drawn(*dims) for _ in "qkv")

                def peer(q=q, k=k, v=v, causal=causal):
                    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
                        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

                work = 4 * dims[0] * dims[1] * tokens * tokens * depth // (2 if causal else 1)
                yield Case("attention", f"d{depth} {tokens} {'causal' if causal else ''}", proto, peer, work, "TFLOP/s")


def streams():
    """256 MB tensors; the peer is a copy, so that the speed is a share of its bandwidth."""
    rows, columns = 32768, 4096
    scale = ("scale", np.ones(columns, np.float16))
    kinds = {
        "gelu of a sum": ([helper.make_node("Add", ["x", "z"], ["s"]), helper.make_node("Gelu", ["s"], ["y"])], 3, []),
        "relu": ([helper.make_node("Relu", ["x"], ["y"])], 2, []),
        "softmax": ([helper.make_node("Softmax", ["x"], ["y"])], 2, []),
        "layer norm": ([helper.make_node("LayerNormalization", ["x", "scale"], ["y"])], 2, [scale]),
        "transpose": ([helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])], 2, []),
    }
    x, y = drawn(rows, columns), drawn(rows, columns)
    for name, (nodes, passes, weights) in kinds.items():
        inputs = [(i, F16, [rows, columns]) for i in ("x", "z")[: passes - 1]]
        out = [columns, rows] if name == "transpose" else [rows, columns]
        work = passes * rows * columns * 2
        yield Case("stream", name, model(nodes, inputs, [("y", F16, out)], weights), lambda x=x, y=y: y.copy_(x), (work, 2 * rows * columns * 2), "GB/s")


SECTIONS = {"gemm": gemms, "epilogue": epilogues, "vocabulary": vocabularies, "int8": integer_gemms, "conv": convs, "attention": attentions, "stream": streams}


def timed_peer(peer):
    """Median microseconds of one replay."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            peer()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        peer()
    for _ in range(WARM_UP):
        graph.replay()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(REPLAYS + 1)]
    events[0].record()
    for event in events[1:]:
        graph.replay()
        event.record()
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) * 1e3 for a, b in zip(events, events[1:]))[REPLAYS // 2]


def compile_case(args, number, case):
    stem = args.out / "work" / f"{case.section.replace(' ', '_')}_{number}"
    onnx.save(case.model, stem.with_suffix(".onnx"))
    command = [args.bin, "compile", stem.with_suffix(".onnx"), "--arch", args.arch, "--fp16", "-o", stem.with_suffix(".engine"), "--json"]
    if args.tune:
        command += ["--tune", "--timingCacheFile", args.out / "kernels.timings.jsonl", "--maxTactics", str(args.max_tactics)]
    done = subprocess.run(command, capture_output=True, text=True)
    return stem.with_suffix(".engine") if done.returncode == 0 else done.stderr.strip().splitlines()[-1:]


def measure(args, case, engine):
    if not isinstance(engine, pathlib.Path):
        return {"error": str(engine)}
    done = subprocess.run([args.bin, "bench", engine, "--json", "--dumpProfile", "--iterations", "1", "--duration", "0", "--warmUp", "0"],
                          capture_output=True, text=True)
    engine.unlink()
    if done.returncode:
        return {"error": str(done.stderr.strip().splitlines()[-1:])}
    report = json.loads(done.stdout)
    peer = timed_peer(case.peer)
    own_work, peer_work = case.work if isinstance(case.work, tuple) else (case.work, case.work)
    to_unit = 1e3 if case.unit == "GB/s" else 1e6
    row = {"section": case.section, "name": case.name, "unit": case.unit, "us": report["median_us"], "peer_us": peer,
           "rate": own_work / report["median_us"] / to_unit, "peer_rate": peer_work / peer / to_unit,
           "predicted_us": report["predicted_us"], "n_kernels": report["n_kernels"], "kernels": report.get("kernels", [])}
    row["speed"] = row["rate"] / row["peer_rate"]
    return row


def names(row):
    return " ".join(kernel.get("kernel", kernel.get("name", "")) for kernel in row["kernels"])


def section(args, cases):
    """Prints and answers with the rows of `cases`. Predicted engines are compiled at once, on all cores."""
    rows = []
    with concurrent.futures.ThreadPoolExecutor(1 if args.tune else args.jobs) as pool:
        engines = [pool.submit(compile_case, args, number, case) for number, case in enumerate(cases)]
        if not args.tune:
            concurrent.futures.wait(engines)
        for case, engine in zip(cases, engines):
            row = measure(args, case, engine.result())
            if "error" in row:
                print(f"{case.section:14} {case.name:44} {row['error']}", flush=True)
                continue
            rows.append(row)
            with open(args.out / "kernels.jsonl", "a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row['section']:14} {row['name']:44} {row['us']:9.1f} us {row['rate']:8.1f} {row['unit']}, peer {row['peer_us']:9.1f} us "
                  f"{row['peer_rate']:8.1f}, speed {row['speed']:5.2f}, predicted {row['predicted_us']:8.1f} {names(row)}", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--match", default="", help="only cases whose name contains this")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--max-tactics", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=8)
    args = parser.parse_args()
    args.bin = args.bin.resolve()
    (args.out / "work").mkdir(parents=True, exist_ok=True)
    print(torch.cuda.get_device_name(), "tuned" if args.tune else "predicted variants")
    rows = []
    for name in args.sections.split(","):
        rows += section(args, [case for case in SECTIONS[name]() if args.match in case.name])
    print(f"\n{'section':14} cases  geomean  least")
    for name in dict.fromkeys(row["section"] for row in rows):
        speeds = [row["speed"] for row in rows if row["section"] == name]
        print(f"{name:14} {len(speeds):5} {math.exp(sum(map(math.log, speeds)) / len(speeds)):8.2f} {min(speeds):6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
