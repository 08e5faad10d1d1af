//! Faults to plant, as data: what is replaced occurs once in the text of the bed's kernel.

/// One fault.
pub struct Mutant {
    pub stands_for: &'static str,
    pub bed: &'static str,
    pub find: &'static str,
    pub replace: &'static str,
}

const fn plant(
    bed: &'static str,
    stands_for: &'static str,
    find: &'static str,
    replace: &'static str,
) -> Mutant {
    Mutant {
        stands_for,
        bed,
        find,
        replace,
    }
}

pub const MUTANTS: &[Mutant] = &[
    // Products with matrix instructions.
    plant("mma", "a missing wait", "    rt_async_wait<kStages - 2>();\n", ""),
    plant(
        "mma",
        "a wait for one group too few",
        "rt_async_wait<kStages - 2>()",
        "rt_async_wait<kStages - 1>()",
    ),
    plant(
        "mma",
        "a missing barrier after the wait",
        "rt_async_wait<kStages - 2>();\n    __syncthreads();",
        "rt_async_wait<kStages - 2>();",
    ),
    plant(
        "mma",
        "a group that is never closed",
        "    rt_async_commit();\n    const uint32_t tile_a",
        "    const uint32_t tile_a",
    ),
    plant(
        "mma",
        "a fragment's wrong row",
        "rt_swizzle<kChunks>(first + lane % 16, step * 2 + lane / 16)",
        "rt_swizzle<kChunks>(first + lane % 8, step * 2 + lane / 16)",
    ),
    plant(
        "mma",
        "a fragment's halves exchanged",
        "first / 8 + lane / 16));\n  b0[0] = both[0];\n  b0[1] = both[1];",
        "first / 8 + lane / 16));\n  b0[0] = both[1];\n  b0[1] = both[0];",
    ),
    plant(
        "mma",
        "swizzle on one side only",
        "const int at = rt_swizzle<kAcrossA>(chunk / kAcrossA, chunk % kAcrossA);",
        "const int at = chunk;",
    ),
    plant(
        "mma",
        "no swizzle on either side",
        "if (kChunks == 4) return row * kChunks + (chunk ^ ((row >> 1) & 3));\n  if (kChunks == 2)",
        "if (kChunks == 4) return row * kChunks + chunk;\n  if (kChunks == 2)",
    ),
    plant(
        "mma",
        "the wrong stage is refilled",
        "stage == 0 ? kStages - 1 : stage - 1",
        "stage",
    ),
    plant(
        "mma",
        "a stage beyond the last",
        "stage + 1 == kStages ? 0",
        "stage == kStages ? 0",
    ),
    plant(
        "mma",
        "the wrong advance along k",
        "const int k = int(step) * kAcrossA +",
        "const int k = int(step) * (kAcrossA - 1) +",
    ),
    plant(
        "mma",
        "a missing bound of columns",
        "if (m < kM && n * 8 < kN)",
        "if (m < kM)",
    ),
    plant(
        "mma",
        "a bound of rows that is one too large",
        "if (m < kM &&",
        "if (m <= kM &&",
    ),
    plant(
        "mma",
        "sums stored transposed",
        "(lane / 4 + q / 2 * 8) * kPitch + j * 8 + lane % 4 * 2 + q % 2",
        "(lane / 4 + q % 2 * 8) * kPitch + j * 8 + lane % 4 * 2 + q / 2",
    ),
    plant(
        "mma",
        "sums that overwrite tiles still in use",
        "  rt_async_wait<0>();\n  __syncthreads();",
        "  rt_async_wait<0>();",
    ),
    plant(
        "mma",
        "a missing barrier of the warp",
        "    __syncwarp();\n    for (int item",
        "    for (int item",
    ),
    plant(
        "mma",
        "operands touched before the wait for earlier kernels",
        "  rt_await_predecessors();\n",
        "",
    ),
    plant(
        "mma split",
        "one ticket for all tiles",
        "rt_last_arriver(tickets + tile,",
        "rt_last_arriver(tickets,",
    ),
    plant(
        "mma split",
        "a ticket that is not reset",
        "    if (is_last) *ticket = 0u;\n",
        "",
    ),
    plant(
        "mma split",
        "a ticket that fires early",
        "atomicAdd(ticket, 1u) == n - 1u",
        "atomicAdd(ticket, 1u) == n - 2u",
    ),
    plant(
        "mma split",
        "a ticket read without a barrier",
        "  }\n  __syncthreads();\n  __threadfence();",
        "  }\n  __threadfence();",
    ),
    plant(
        "mma split",
        "a step that two splits sum",
        "const int last_step = kTilesK * (place.split + 1) / kSplits;",
        "const int last_step = kTilesK * (place.split + 1) / kSplits + (place.split == 0 ? 1 : 0);",
    ),
    plant(
        "mma split",
        "splits that begin at the wrong partial sum",
        "for (int split = 1; split < kSplits",
        "for (int split = 0; split < kSplits",
    ),
    plant(
        "mma without asynchronous copies",
        "a tile stored where it is read",
        "store_a(free_stage)",
        "store_a(stage)",
    ),
    // Products outside tensor cores.
    plant(
        "simt",
        "the buffer that is read is written",
        "store_b(buffer ^ 1)",
        "store_b(buffer)",
    ),
    plant(
        "simt",
        "a missing barrier at the end of a step",
        "    }\n    __syncthreads();\n  }",
        "    }\n  }",
    ),
    plant(
        "simt",
        "a missing bound of rows",
        "    if (m >= kM) continue;\n",
        "",
    ),
    plant(
        "simt",
        "a step too few",
        "const bool more = step + 1 < last_step;",
        "const bool more = step + 2 < last_step;",
    ),
    // Attention.
    plant(
        "attention mma",
        "a missing rescale of the output",
        "        out[e][2 * r] *= rescale;\n",
        "",
    ),
    plant(
        "attention mma",
        "a missing rescale of the sum",
        "      row_sum[r] *= rescale;\n",
        "",
    ),
    plant(
        "attention mma",
        "a maximum over the wrong lanes",
        "rt_shuffle_xor(most, 2)",
        "rt_shuffle_xor(most, 4)",
    ),
    plant(
        "attention mma",
        "a maximum that is not kept",
        "      row_max[r] = most;\n",
        "",
    ),
    plant(
        "attention mma",
        "a missing wait for keys",
        "    rt_async_wait<0>();\n    __syncthreads();\n    load_v(first_key);",
        "    __syncthreads();\n    load_v(first_key);",
    ),
    plant(
        "attention mma",
        "keys overwritten while they are read",
        "    __syncthreads();\n    if (tile + 1 < n_tiles)",
        "    if (tile + 1 < n_tiles)",
    ),
    plant(
        "attention mma",
        "tails of keys that count",
        "const int key_at = first_key + warp_key +",
        "const int key_at = warp_key +",
    ),
    plant(
        "attention mma",
        "sums of half a row",
        "rt_warp_fold<RtSum, 4>",
        "rt_warp_fold<RtSum, 2>",
    ),
    plant(
        "attention mma",
        "a row beyond the last",
        "if (query >= kQueries) break;",
        "if (query > kQueries) break;",
    ),
    plant(
        "attention mma",
        "parts joined as if their maxima were equal",
        "total += weight * sum[part * kRows + row];",
        "total += sum[part * kRows + row];",
    ),
    plant(
        "attention mma causal",
        "a causal mask that is one key off",
        "key_at - query <= 0",
        "key_at - query <= 1",
    ),
    plant(
        "attention mma causal",
        "too few tiles of keys under the diagonal",
        "const int n_tiles = seen > 0 ? (seen + kTileKeys - 1) / kTileKeys : 0;",
        "const int n_tiles = seen > 0 ? (seen - 1) / kTileKeys : 0;",
    ),
    plant(
        "attention simt",
        "weights read without a barrier of the warp",
        "    __syncwarp();\n",
        "",
    ),
    plant(
        "attention simt",
        "a missing rescale of the output",
        "out[r][c][i] *= rescale;",
        "{}",
    ),
    plant(
        "attention simt",
        "a missing rescale of the sum",
        "      row_sum[r] *= rescale;\n",
        "",
    ),
    plant(
        "attention decode",
        "a missing barrier before parts are joined",
        "  __syncthreads();\n  for (int chunk = threadIdx.x;",
        "  for (int chunk = threadIdx.x;",
    ),
    plant(
        "attention decode",
        "keys beyond the last",
        "score[u] = key_at < seen ? x : rt_lowest<V>();",
        "score[u] = x;",
    ),
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
        "scratch[(slice * N + i) * kColumns + column] = value[i];\n  __syncthreads();",
        "scratch[(slice * N + i) * kColumns + column] = value[i];",
    ),
    plant(
        "column",
        "slices read before they are all replaced",
        "    value[i] = folded;\n  }\n  __syncthreads();",
        "    value[i] = folded;\n  }",
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
        "  __syncthreads();\n  for (int y = first_y;",
        "  for (int y = first_y;",
    ),
    plant(
        "transpose",
        "rows and columns exchanged",
        "    const int across = across_begin + y;\n    const int along = along_begin + x;",
        "    const int across = across_begin + x;\n    const int along = along_begin + y;",
    ),
    // Windows.
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
