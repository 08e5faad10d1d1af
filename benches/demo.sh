#!/bin/sh
# The main job on the two bundled models: compile for two archs, run the digits on the GPU
# where there is one and on the CPU reference elsewhere, show what was fused and built.
set -eu
bin=$1
out=target/demo
mkdir -p "$out"

echo "== digits: a small CNN trained on scikit-learn's digits (tests/models/digits)"
"$bin" compile tests/models/digits/model.onnx --arch sm_87,sm_90a --shapes image:16x1x8x8 -o "$out/digits.engine" --explain

echo
echo "== predictions for 16 held-out images; labels: $(cat tests/models/digits/labels.txt)"
device=$("$bin" doctor --best-device)
if [ "$device" = cpu ]; then
    model=tests/models/digits/model.onnx
else
    model=$out/digits.engine
fi
"$bin" run "$model" --inputs tests/models/digits/samples.npz --outputs "$out/digits.npz" --device "$device" --top 1

echo
echo "== mobilenet_v3: MobileNetV3-Large with generated weights"
python3 tests/models/mobilenet_v3/make.py "$out/mobilenet_v3.onnx"
"$bin" compile "$out/mobilenet_v3.onnx" --arch sm_87,sm_90a -o "$out/mobilenet_v3.engine"
"$bin" inspect "$out/mobilenet_v3.engine"
