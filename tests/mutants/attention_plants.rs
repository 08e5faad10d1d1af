//! Faults of attention.

use super::{Mutant, plant};

pub const MUTANTS: &[Mutant] = &[
    plant(
        "attention wgmma",
        "scores read before they are there",
        "    rt_wgmma_end(score);\n",
        "",
    ),
    plant(
        "attention wgmma",
        "a missing rescale of the output",
        "        out[0][e * 4 + 2 * r] *= rescale;\n",
        "",
    ),
    plant(
        "attention wgmma",
        "a wrong step over values",
        "step * 16 * kRowBytes",
        "step * 8 * kRowBytes",
    ),
    plant(
        "attention wgmma",
        "a missing wait for keys",
        "    rt_async_wait<0>();\n    rt_wgmma_publish();\n    __syncthreads();\n    load_v(first_key);",
        "    rt_wgmma_publish();\n    __syncthreads();\n    load_v(first_key);",
    ),
    plant(
        "attention wgmma",
        "keys overwritten while they are read",
        "    __syncthreads();\n    if (tile + 1 < n_tiles)",
        "    if (tile + 1 < n_tiles)",
    ),
    plant(
        "attention wgmma",
        "rows of another group",
        " + warp / 4 * 64 * kRowBytes",
        "",
    ),
    plant(
        "attention wgmma",
        "weights that are not what the values meet",
        "{weight[2 * step][0], weight[2 * step][1], weight[2 * step + 1][0]",
        "{weight[2 * step][0], weight[2 * step + 1][0], weight[2 * step][1]",
    ),
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
];
