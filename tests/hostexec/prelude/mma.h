// Stands for templates/device/mma.cuh: the instructions' fragments, element by element.

namespace host {

struct Operands {
  uint32_t a[4], b[2], address;
  float sum[4];
};
inline Operands operands[64][32];

inline Operands& own() { return operands[linear_thread() / 32][lane()]; }
inline Operands* warp_operands() { return operands[linear_thread() / 32]; }

inline float half_value(uint32_t word, int which, bool is_bf16) {
  const uint16_t bits = uint16_t(word >> (16 * which));
  if (is_bf16) {
    const uint32_t wide = uint32_t(bits) << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
  }
  _Float16 x;
  memcpy(&x, &bits, 2);
  return float(x);
}

// The nearest value of 10 bits of mantissa, ties away from zero.
inline float tf32_value(uint32_t bits) {
  bits = (bits + 0x1000u) & ~0x1fffu;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

inline void ldmatrix(uint32_t (&to)[4], uint32_t row, bool transposed) {
  own().address = row;
  warp_barrier();
  const Operands* all = warp_operands();
  const int l = lane();
  for (int matrix = 0; matrix < 4; matrix++) {
    uint16_t half[2];
    for (int e = 0; e < 2; e++) {
      const int r = transposed ? l % 4 * 2 + e : l / 4;
      const int c = transposed ? l / 4 : l % 4 * 2 + e;
      const uint32_t address = all[matrix * 8 + r].address;
      if (address % 16 != 0) {
        fprintf(stderr, "ldmatrix row at %u\n", address);
        exit(3);
      }
      memcpy(&half[e], dynamic_shared + address + 2 * c, 2);
    }
    to[matrix] = half[0] | uint32_t(half[1]) << 16;
  }
  warp_barrier();
}

// element(operands of a lane, which) gives a's and b's values in the order of the fragment.
template <class A, class B>
void mma(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int depth, A a_at, B b_at) {
  memcpy(own().a, a, 16);
  memcpy(own().b, b, 8);
  warp_barrier();
  const Operands* all = warp_operands();
  const int l = lane();
  for (int i = 0; i < 4; i++) {
    const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
    for (int k = 0; k < depth; k++) sum[i] += a_at(all, row, k) * b_at(all, k, column);
  }
  warp_barrier();
}

template <bool kBf16> void mma_16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma(sum, a, b, 16,
      [](const Operands* all, int row, int k) {
        return half_value(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2, kBf16);
      },
      [](const Operands* all, int k, int column) {
        return half_value(all[column * 4 + k % 8 / 2].b[k / 8], k % 2, kBf16);
      });
}

}  // namespace host

RT_DEV uint32_t rt_shared_address(const void* pointer) { return uint32_t((const unsigned char*)pointer - host::dynamic_shared); }
RT_DEV void rt_ldmatrix(uint32_t (&to)[4], uint32_t row) { host::ldmatrix(to, row, false); }
RT_DEV void rt_ldmatrix_transposed(uint32_t (&to)[4], uint32_t row) { host::ldmatrix(to, row, true); }
RT_DEV uint32_t rt_shared_word(uint32_t address) {
  uint32_t word;
  memcpy(&word, host::dynamic_shared + address, 4);
  return word;
}

template <class T> struct RtMma;
template <> struct RtMma<f16> {
  static void run(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { host::mma_16<false>(sum, a, b); }
};
template <> struct RtMma<bf16> {
  static void run(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { host::mma_16<true>(sum, a, b); }
};
template <> struct RtMma<float> {
  static void run(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    host::mma(sum, a, b, 8,
              [](const host::Operands* all, int row, int k) {
                return host::tf32_value(all[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2]);
              },
              [](const host::Operands* all, int k, int column) {
                return host::tf32_value(all[column * 4 + k % 4].b[k / 4]);
              });
  }
};

// Two 16-bit elements in one word, `low` in its lower half.
template <class T> RT_DEV uint32_t rt_pair(float low, float high) {
  return uint32_t(rt_put<T>(low).bits) | uint32_t(rt_put<T>(high).bits) << 16;
}
