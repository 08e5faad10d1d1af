//! Faults of products with few terms and columns, or few rows.

use super::{Mutant, plant};

pub const MUTANTS: &[Mutant] = &[
    // Products with few terms and columns.
    plant(
        "direct",
        "a missing bound of rows",
        "if (m < kM && n * kWidth < kN) {",
        "if (n * kWidth < kN) {",
    ),
    plant(
        "direct",
        "a missing bound of columns",
        "if (m < kM && n * kWidth < kN) {",
        "if (m < kM) {",
    ),
    plant(
        "direct",
        "columns of an instruction in the order of its lanes",
        "sum[q * kInstructions + i] =",
        "sum[i * 2 + q] =",
    ),
    plant(
        "direct",
        "rows of another half",
        "acc[group][i][half * 2 + q]",
        "acc[group][i][q * 2 + half]",
    ),
    plant(
        "direct",
        "the next rows read in place of these",
        "if (tile + step < kTiles) fetch_a(tile + step);",
        "if (tile + step < kTiles) fetch_a(tile);",
    ),
    plant(
        "direct",
        "terms in the order of the instruction",
        "a[0][read].element[part * 2 + 1], a[1][read].element[part * 2 + 1]",
        "a[0][read].element[part * 2], a[1][read].element[part * 2 + 1]",
    ),
    plant(
        "direct windows",
        "pixels outside of the image",
        "a[half][read] = {};\n        if (valid) a",
        "a",
    ),
    plant(
        "direct",
        "halves of a pair exchanged",
        "uint32_t(both[0].element[i].bits) | uint32_t(both[1].element[i].bits) << 16",
        "uint32_t(both[1].element[i].bits) | uint32_t(both[0].element[i].bits) << 16",
    ),
    plant(
        "direct along k",
        "a column's neighbour",
        "lane / 4 * kInstructions + i;",
        "lane / 4 + i * 8;",
    ),
    // Products with few rows.
    plant(
        "gemv",
        "rows read before they are in shared memory",
        "  __syncthreads();\n  float acc",
        "  float acc",
    ),
    plant(
        "gemv",
        "sums of warps read without a barrier",
        "  __syncthreads();\n  const auto sum_of_block",
        "  const auto sum_of_block",
    ),
    plant(
        "gemv",
        "a fold that leaves out half of the lanes",
        "for (int lanes = 16; lanes >= kLanes; lanes /= 2)",
        "for (int lanes = 8; lanes >= kLanes; lanes /= 2)",
    ),
    plant(
        "gemv",
        "a warp left out of a sum",
        "for (int other = 1; other < kWarpsK; ++other)",
        "for (int other = 2; other < kWarpsK; ++other)",
    ),
    plant(
        "gemv",
        "a missing bound of columns",
        "    if (column >= kColumns) continue;\n",
        "",
    ),
    plant(
        "gemv by bytes",
        "a step read in place of the next",
        "from_k + ((step + 1) * kUnroll + u) * kStride",
        "from_k + (step * kUnroll + u) * kStride",
    ),
    plant(
        "gemv by bytes",
        "a last step that is not read",
        "if (step + 1 < kSteps) {",
        "if (step + 2 < kSteps) {",
    ),
    plant(
        "gemv by bytes",
        "rows without the gaps that they are read with",
        "own / kVector * kPitch + own % kVector",
        "own",
    ),
    plant(
        "gemv by bytes",
        "bytes taken as if they had no sign",
        "rt_unpack_bytes(to, kept.word, 0x80808080u, 8388736.0f)",
        "rt_unpack_bytes(to, kept.word, 0u, 8388608.0f)",
    ),
    plant(
        "gemv by numbers",
        "numbers that are not brought back around zero",
        "-8388608.0f * kUnit[place] - 8.0f",
        "-8388608.0f * kUnit[place]",
    ),
    plant(
        "gemv by numbers",
        "the last halves of a word taken from where the first are",
        "kept.word[i / 8] >> 20",
        "kept.word[i / 8]",
    ),
    plant(
        "gemv by numbers",
        "the scale of another vector",
        "by[c] = scale[u][c];",
        "by[c] = scale[0][c];",
    ),
    plant(
        "gemv by numbers",
        "sums that are not scaled",
        "acc[r][c] += part * by[c];",
        "acc[r][c] += part;",
    ),
    plant(
        "mma by numbers",
        "numbers of a byte that are taken from two",
        "v1[i] = v0[i / 2];",
        "v1[i] = v0[i % 4];",
    ),
    plant(
        "mma by numbers",
        "the high half of a byte taken for the low one",
        "(uint32_t(x) >> 4 * int(place) & 15u)",
        "(uint32_t(x) >> 4 * int(1 - place) & 15u)",
    ),
    plant(
        "gemv split",
        "one ticket for all tiles",
        "rt_last_arriver(tickets + tile,",
        "rt_last_arriver(tickets,",
    ),
    plant(
        "gemv split",
        "shares of the wrong split",
        "shares[split * kSums + i] = sum_of_block(i);",
        "shares[i] = sum_of_block(i);",
    ),
];
