// Fragments of matrix instructions from tiles in shared memory. Tiles are rows of 16-byte
// chunks in swizzled places; kChunks is the number of chunks in a row. `step` counts the
// instructions along k: 32 bytes of it each.

// 16 rows of a, rows along k.
template <int kChunks> RT_DEV void rt_a_along_k(uint32_t (&a)[4], uint32_t tile, int first, int step, int lane) {
  rt_ldmatrix(a, tile + 16 * rt_swizzle<kChunks>(first + lane % 16, step * 2 + lane / 16));
}

// 16 rows of a, each tile row one k of all rows.
template <int kChunks> RT_DEV void rt_a_along_row(uint32_t (&a)[4], uint32_t tile, int first, int step, int lane) {
  const int k = step * 16 + lane % 8 + lane / 16 * 8;
  rt_ldmatrix_transposed(a, tile + 16 * rt_swizzle<kChunks>(k, first / 8 + lane / 8 % 2));
}

// Two times 8 columns of b, columns along k.
template <int kChunks>
RT_DEV void rt_b_along_k(uint32_t (&b0)[2], uint32_t (&b1)[2], uint32_t tile, int first, int step, int lane) {
  uint32_t both[4];
  rt_ldmatrix(both, tile + 16 * rt_swizzle<kChunks>(first + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
  b0[0] = both[0];
  b0[1] = both[1];
  b1[0] = both[2];
  b1[1] = both[3];
}

// Two times 8 columns of b, each tile row one k of all columns.
template <int kChunks>
RT_DEV void rt_b_along_row(uint32_t (&b0)[2], uint32_t (&b1)[2], uint32_t tile, int first, int step, int lane) {
  uint32_t both[4];
  const int k = step * 16 + lane % 8 + lane / 8 % 2 * 8;
  rt_ldmatrix_transposed(both, tile + 16 * rt_swizzle<kChunks>(k, first / 8 + lane / 16));
  b0[0] = both[0];
  b0[1] = both[1];
  b1[0] = both[2];
  b1[1] = both[3];
}

// Address of a 32-bit element; `row` is a k, of which a warp reads four at eight columns.
template <int kChunks> RT_DEV uint32_t rt_word_place(uint32_t tile, int row, int column) {
  return tile + 16 * rt_swizzle_words<kChunks>(row, column / 4) + 4 * (column % 4);
}

// As rt_a_along_row, of 32-bit elements.
template <int kChunks> RT_DEV void rt_a_words_along_row(uint32_t (&a)[4], uint32_t tile, int first, int step, int lane) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    a[i] = rt_shared_word(rt_word_place<kChunks>(tile, step * 8 + lane % 4 + i / 2 * 4, first + lane / 4 + i % 2 * 8));
  }
}

// As rt_b_along_row, of 32-bit elements.
template <int kChunks>
RT_DEV void rt_b_words_along_row(uint32_t (&b0)[2], uint32_t (&b1)[2], uint32_t tile, int first, int step, int lane) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    b0[i] = rt_shared_word(rt_word_place<kChunks>(tile, step * 8 + lane % 4 + i * 4, first + lane / 4));
    b1[i] = rt_shared_word(rt_word_place<kChunks>(tile, step * 8 + lane % 4 + i * 4, first + 8 + lane / 4));
  }
}
