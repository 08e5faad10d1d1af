#!/bin/sh
# Compiles every model below a folder without a GPU, in f32 and f16, and prints one line each:
# exit status, seconds cold and warm, kernels, and whether two builds are the same bytes.
#
#   compile_all.sh BIN MODELS WORK [ARCH]
#
# MODELS as in benches/gpu/models.py: a folder per model, with fill_weights.py beside them.
set -u
bin=$1 models=$2 work=$3 arch=${4:-sm_87}
mkdir -p "$work"
export RTRT_CACHE_DIR="$work/cache"
failed=0
for source in "$models"/*/; do
    name=$(basename "$source")
    case $name in loop_refine_legacy | cond_gate) continue ;; esac
    rm -rf "$work/model" && cp -r "$source" "$work/model" && chmod -R u+w "$work/model"
    python3 "$models/fill_weights.py" "$work/model" >/dev/null || exit 1
    for precision in "" --fp16; do
        start=$(date +%s.%N)
        "$bin" compile "$work/model/model.onnx" --arch "$arch" $precision -o "$work/a.engine" >"$work/out" 2>"$work/log"
        status=$?
        middle=$(date +%s.%N)
        "$bin" compile "$work/model/model.onnx" --arch "$arch" $precision -o "$work/b.engine" >/dev/null 2>&1
        end=$(date +%s.%N)
        same=differs
        cmp -s "$work/a.engine" "$work/b.engine" && same=identical
        [ $status -eq 0 ] && [ $same = identical ] || failed=$((failed + 1))
        kernels=$(sed -n 's/^sm_[0-9a]* *\([0-9]*\) kernels.*/\1/p' "$work/out")
        printf '%-26s %-6s exit %d  cold %6.1f s  warm %5.1f s  %4s kernels  %s\n' "$name" "${precision:-fp32}" $status \
            "$(echo "$middle - $start" | bc)" "$(echo "$end - $middle" | bc)" "${kernels:--}" "$same"
        [ $status -eq 0 ] || tail -n 3 "$work/log"
    done
done
rm -rf "$work/model" "$work/a.engine" "$work/b.engine"
echo "$failed failed"
[ $failed -eq 0 ]
