#!/usr/bin/env python3
"""What kernels that shapes share cost, on the GPU of this machine: engines for a range against engines for listed
shapes, which have kernels of their own for each.

    ranges.py --bin target/release/rtrt-codegen --models MODELS [--only a,b]

MODELS as in models.py. Needs numpy and onnx. Engines are f16, times medians over replays of one CUDA graph, and the
difference is that of the outputs of both engines, relative in the 2-norm. Exit status 1 if one is over 1e-2.
"""
from __future__ import annotations

import sys

import numpy as np
import onnx

from models import HALF_BOUND, prepare
from symbolic import Commands, at_shapes, drawn, parser_of, shape_text, worst_error

# The range, and some shapes of it; the first one is the usual one. `NAME+` is another case of the model NAME, which is
# measured where it is asked for.
CASES = {
    "resnet50": ({"batch": (1, 10)}, [{"batch": n} for n in (8, 3, 5, 7)]),
    "vit_b_16": ({"batch": (1, 8)}, [{"batch": n} for n in (4, 3, 7)]),
    "bert_base": ({"batch": (1, 4), "length": (1, 128)},
                  [{"batch": b, "length": n} for b, n in ((1, 128), (1, 121), (3, 17), (4, 100))]),
    "bert_base+": ({"batch": (1, 8), "length": (1, 512)},
                   [{"batch": b, "length": n} for b, n in
                    ((1, 128), (1, 9), (1, 121), (1, 301), (3, 130), (8, 128), (8, 450), (8, 511))]),
    "gpt2_kv": ({"batch": (1, 1), "past_length": (119, 128)},
                [{"batch": 1, "past_length": n} for n in (128, 121, 127)]),
}


class Comparison(Commands):
    def model(self, name):
        bounds, shapes = CASES[name]
        model = prepare(self.args.models / name.rstrip("+"), self.args.work) / "model.onnx"
        graph = onnx.load(model, load_external_data=False).graph
        texts = [shape_text(graph, symbols) for symbols in shapes]
        least, most = (shape_text(graph, {symbol: ends[end] for symbol, ends in bounds.items()}) for end in (0, 1))
        shared, listed = (self.args.work / f"{name}.{kind}.engine" for kind in ("shared", "listed"))
        seconds = self.compile(model, shared, "--minShapes", least, "--optShapes", texts[0], "--maxShapes", most,
                               "--static-shapes", "1")
        self.compile(model, listed, *at_shapes(texts))
        print(f"{name:12} {bounds} built in {seconds:.1f} s, {shared.stat().st_size / 1e6:.1f} MB", flush=True)
        rng = np.random.default_rng(1)
        for symbols, text in zip(shapes, texts):
            inputs = drawn(graph, symbols, rng)
            off = worst_error(self.outputs(shared, inputs), self.outputs(listed, inputs))
            self.wrong |= not off <= HALF_BOUND
            ours, own = self.median_us(shared, text), self.median_us(listed, text)
            print(f"  {symbols}: shared {ours:8.1f} us, own {own:8.1f} us ({ours / own:.3f}), difference {off:.1e}",
                  flush=True)


def main():
    parser = parser_of(__doc__, ",".join(name for name in CASES if not name.endswith("+")))
    args = parser.parse_args()
    comparison = Comparison(args)
    for name in args.only.split(","):
        comparison.model(name)
    return int(comparison.wrong)


if __name__ == "__main__":
    sys.exit(main())
