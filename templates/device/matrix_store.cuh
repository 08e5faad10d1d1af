// Results of 16 bits on their way through shared memory, from where matrix instructions leave sums to whole vectors of
// rows.

// Two results as they lie in memory, in one word.
template <class T> RT_DEV uint32_t rt_word_of(const float (&x)[2]) {
  return uint32_t(rt_put<T>(x[0]).bits) | uint32_t(rt_put<T>(x[1]).bits) << 16;
}

// Stores four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
RT_DEV void rt_stmatrix(uint32_t row, const uint32_t (&from)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
               : : "r"(row), "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3]) : "memory");
}
