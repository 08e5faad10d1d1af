// Stores of results that are larger than the caches (streaming stores): nothing reads them soon, so that caches give
// them up before operands that other blocks still read.

template <class T> RT_DEV void rt_stream(T* to, const T& value) {
  static_assert(sizeof(T) <= 16, "one access writes at most 16 bytes");
  if constexpr (sizeof(T) == 1) {
    uint8_t bits;
    memcpy(&bits, &value, sizeof(T));
    asm volatile("st.global.cs.u8 [%0], %1;" : : "l"(to), "h"(uint16_t(bits)) : "memory");
  } else if constexpr (sizeof(T) == 2) {
    uint16_t bits;
    memcpy(&bits, &value, sizeof(T));
    asm volatile("st.global.cs.u16 [%0], %1;" : : "l"(to), "h"(bits) : "memory");
  } else {
    uint32_t words[sizeof(T) / 4];
    memcpy(words, &value, sizeof(T));
    if constexpr (sizeof(T) == 4) {
      asm volatile("st.global.cs.u32 [%0], %1;" : : "l"(to), "r"(words[0]) : "memory");
    } else if constexpr (sizeof(T) == 8) {
      asm volatile("st.global.cs.v2.u32 [%0], {%1, %2};" : : "l"(to), "r"(words[0]), "r"(words[1]) : "memory");
    } else {
      asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};"
                   : : "l"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]) : "memory");
    }
  }
}

// The same for N consecutive elements, as rt_store has them.
template <int N, class T, class V> RT_DEV void rt_stream(T* to, const V (&from)[N]) {
  constexpr int kChunk = RtChunk<T, N>::kElements;
#pragma unroll
  for (int begin = 0; begin < N; begin += kChunk) {
    RtPack<T, kChunk> pack;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) pack.element[i] = rt_put<T>(from[begin + i]);
    rt_stream(reinterpret_cast<RtPack<T, kChunk>*>(to + begin), pack);
  }
}
