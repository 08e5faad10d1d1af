//! Faults of rows, columns, maps, moves and windows.

use super::{Mutant, plant};

pub const MUTANTS: &[Mutant] = &[
    // The best boxes of a class.
    plant(
        "best boxes",
        "boxes that share little are dropped",
        "common / both > most",
        "common / both > most - 0.05f",
    ),
    plant(
        "best boxes",
        "the best box of the round before",
        "\n    best = rt_lowest<int64_t>();",
        "\n    if (chosen == 0) best = rt_lowest<int64_t>();",
    ),
    plant(
        "best boxes",
        "slots without a box that name the first one",
        " + slot] = -1;",
        " + slot] = 0;",
    ),
    plant(
        "best boxes",
        "boxes that were dropped come back",
        "        if ((left[word] >> bit & 1) == 0) continue;\n",
        "",
    ),
    plant("best boxes", "a round too many", "if (chosen < 0) break;", ""),
    // Rows, columns, maps and moves.
    plant(
        "row per warp",
        "a fold that leaves out half of the lanes",
        "for (int lanes = kLanes / 2; lanes > 0; lanes /= 2)",
        "for (int lanes = kLanes / 4; lanes > 0; lanes /= 2)",
    ),
    plant(
        "row per warp",
        "half of the warp does not take part in a fold",
        "  max0 = rt_warp_fold<RtMax, 32>(max0);",
        "  if (t < 16) max0 = rt_warp_fold<RtMax, 32>(max0);",
    ),
    plant(
        "row per block",
        "a missing barrier in a fold",
        "scratch[threadIdx.x / 32] = value;\n  __syncthreads();",
        "scratch[threadIdx.x / 32] = value;",
    ),
    plant(
        "row per block",
        "a barrier in a branch",
        "scratch[threadIdx.x / 32] = value;\n  __syncthreads();",
        "scratch[threadIdx.x / 32] = value;\n  if (threadIdx.x < 32) __syncthreads();\n  else __syncthreads();",
    ),
    plant(
        "row per block",
        "a barrier that a warp does not reach",
        "scratch[threadIdx.x / 32] = value;\n  __syncthreads();",
        "scratch[threadIdx.x / 32] = value;\n  if (threadIdx.x >= 32) __syncthreads();",
    ),
    plant(
        "row per block",
        "a warp left out of a fold",
        "for (int warp = 1; warp < kWarps; ++warp)",
        "for (int warp = 1; warp < kWarps - 1; ++warp)",
    ),
    plant(
        "arg_max",
        "the last of equal values",
        "return (a.position < b.position) != kLast ? a : b;",
        "return (a.position < b.position) == kLast ? a : b;",
    ),
    plant(
        "column",
        "a missing barrier between slices",
        "    const int half = (left + 1) / 2;\n    __syncthreads();",
        "    const int half = (left + 1) / 2;",
    ),
    plant(
        "column",
        "slices read before they are all replaced",
        "value[i] = scratch[i * kColumns + column];\n  __syncthreads();",
        "value[i] = scratch[i * kColumns + column];",
    ),
    plant(
        "column",
        "a slice that is folded twice",
        "if (slice + half >= left) continue;",
        "if (slice + half > left) continue;",
    ),
    plant(
        "shared columns",
        "the last block but one finishes",
        "(workspace) + share, kSplits)",
        "(workspace) + share, kSplits - 1)",
    ),
    plant(
        "shared columns",
        "a block's own fold counts twice",
        "sum0[i] = 0.0f;\n  rt_shares_fold",
        "sum0[i] = sum0[i];\n  rt_shares_fold",
    ),
    plant(
        "shared columns",
        "slices that leave out shares",
        "split < kSplits; split += kSlices",
        "split < kSplits - 1; split += kSlices",
    ),
    plant(
        "pointwise",
        "a tail that is one vector too long",
        "if (i >= kVectors) return;",
        "if (i > kVectors) return;",
    ),
    plant(
        "indexed",
        "a missing bound",
        "  if (i >= kElements) return;\n",
        "",
    ),
    plant(
        "transpose",
        "a missing barrier",
        "  __syncthreads();\n#pragma unroll\n  for (int i = 0; i < kTile /",
        "#pragma unroll\n  for (int i = 0; i < kTile /",
    ),
    plant(
        "transpose",
        "rows and columns exchanged",
        "    const int across = across_begin + y;\n    const int along = along_begin + x;",
        "    const int across = across_begin + x;\n    const int along = along_begin + y;",
    ),
    plant(
        "squares",
        "a square that is not turned",
        "square0[lane0][x]",
        "square0[x][lane0]",
    ),
    plant(
        "squares",
        "squares beyond the axes",
        "  if (across >= kAcross || along >= kAlong) return;\n",
        "",
    ),
    // Windows.
    plant(
        "colours",
        "pixels overwritten while they are multiplied",
        "  for (; tile < kTiles; tile += kShares) {\n    __syncthreads();\n",
        "  if (tile < kTiles) __syncthreads();\n  for (; tile < kTiles; tile += kShares) {\n",
    ),
    plant(
        "colours",
        "pixels multiplied before they are there",
        "image[word] = rt_pair<T>(next[i][0], next[i][1]);\n    }\n    __syncthreads();\n",
        "image[word] = rt_pair<T>(next[i][0], next[i][1]);\n    }\n",
    ),
    plant(
        "colours",
        "the channel of zeros takes its neighbour's place",
        "word % kPairs * 2 + e;\n        next[i][e]",
        "word % kPairs + e;\n        next[i][e]",
    ),
    plant(
        "colours",
        "words beyond the window",
        "const bool inside = kDepthWords % 8 == 0 || word < kDepthWords;",
        "const bool inside = true;",
    ),
    plant(
        "colours",
        "halves of a fragment exchanged",
        "column / 8 % 2 * 2 + word / 4 % 2",
        "column / 8 % 2 + word / 4 % 2 * 2",
    ),
    plant(
        "colours",
        "a column beyond the image",
        "uint32_t(iw) < uint32_t(kInputWidth)",
        "uint32_t(iw) <= uint32_t(kInputWidth)",
    ),
    plant(
        "colours",
        "biases of other filters",
        "rt_load<kWidth>(own_bias, biases + item % kVectors * kWidth);",
        "rt_load<kWidth>(own_bias, biases + item / 32 * kWidth);",
    ),
    plant(
        "colours",
        "sums read before the warp has written them",
        "      __syncwarp();\n      // More at a time",
        "      // More at a time",
    ),
    plant(
        "strip",
        "a tap that is one column off",
        "t * kStride + tap * kDilation != column",
        "t * kStride + tap * kDilation + 1 != column",
    ),
    plant(
        "strip",
        "filters read without a barrier",
        "  __syncthreads();\n  const V* own_filters",
        "  const V* own_filters",
    ),
    plant(
        "strip",
        "a missing bound of the strip",
        "    if (ow >= kRowWidth) break;\n",
        "",
    ),
    plant(
        "strip",
        "a row beyond the image",
        "ih >= kInputHeight",
        "ih > kInputHeight",
    ),
    plant(
        "taps",
        "a window that nobody computes",
        "(kWindows + kOwn - 1) / kOwn",
        "kWindows / kOwn",
    ),
    plant(
        "taps",
        "a missing test whether a cell is inside",
        "        if (inside) {\n",
        "        {\n",
    ),
];
