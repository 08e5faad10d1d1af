//! Faults of matrix products.

use super::{Mutant, plant};

pub const MUTANTS: &[Mutant] = &[
    // Sums of rows that one kernel stores and another one reads.
    plant(
        "mma strips",
        "a strip that one lane sums alone",
        "strip[q] = rt_warp_fold<RtSum, 2>(strip[q]);",
        ";",
    ),
    plant(
        "mma strips",
        "rows outside that are finished",
        "first_row + item / kVectors < kM ? first_row + item / kVectors : kM - 1;",
        "first_row + item / kVectors;",
    ),
    plant(
        "mma strips",
        "the slab's row of what lies outside",
        "int(m - first_row) * kPitch",
        "item / kVectors * kPitch",
    ),
    plant(
        "wgmma strips",
        "a strip that one lane sums alone",
        "strip[q] = rt_warp_fold<RtSum, 2>(strip[q]);",
        ";",
    ),
    plant(
        "wgmma strips",
        "a strip stored by its second lane",
        "if (n % 2 == 0) rt_store<2>",
        "if (n % 2 == 1) rt_store<2>",
    ),
    plant(
        "mma parts",
        "parts of the next row",
        "if (lane + j * 8 < 13) rt_load",
        "rt_load",
    ),
    plant(
        "mma parts",
        "sums of other rows",
        "thread / kRowLanes + i * kRowStep;\n      const int m",
        "thread / kRowLanes;\n      const int m",
    ),
    plant(
        "wgmma parts",
        "parts of the next row",
        "if (lane + j * 8 < 13) rt_load",
        "rt_load",
    ),
    plant(
        "wgmma parts",
        "sums of other rows",
        "i % 4 * 4 + thread % 32 / 8;",
        "i % 4 * 4 + lane / 8;",
    ),
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
        "if (kChunks >= 8) return row * kChunks + (chunk ^ (row & 7));",
        "if (kChunks >= 8) return row * kChunks + chunk;",
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
        "    __syncwarp();\n#pragma unroll\n    for (int k = 0; k < kItems",
        "#pragma unroll\n    for (int k = 0; k < kItems",
    ),
    plant(
        "mma",
        "operands touched before the wait for earlier kernels",
        "  rt_await_predecessors();\n",
        "",
    ),
    plant(
        "mma",
        "the operand that is no weight, copied early",
        "if (first_step + stage < last_step) fetch_b(first_step + stage, stage);",
        "if (first_step + stage < last_step) fetch_a(first_step + stage, stage);",
    ),
    plant(
        "mma",
        "weights of the first steps in the wrong stage",
        "fetch_b(first_step + stage, stage);",
        "fetch_b(first_step + stage, 0);",
    ),
    plant(
        "mma",
        "another vector of columns held",
        "/ 8 + lane % kVectors;",
        "/ 8;",
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
        "  }\n  __syncthreads();\n  rt_fence();",
        "  }\n  rt_fence();",
    ),
    plant(
        "mma split",
        "a step that two splits sum",
        "const int last_step = kTilesK * (place.split + 1) / kSplits;",
        "const int last_step = kTilesK * (place.split + 1) / kSplits + (place.split == 0 ? 1 : 0);",
    ),
    plant(
        "mma split",
        "sums without the first split",
        "for (int split = 0; split < kSplits",
        "for (int split = 1; split < kSplits",
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
];
