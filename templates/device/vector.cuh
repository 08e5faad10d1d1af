// N consecutive elements in as few memory accesses as 16 bytes allow. The address must be a
// multiple of the bytes accessed at once.

template <class T, int N> struct alignas(sizeof(T) * N) RtPack { T element[N]; };

template <class T, int N> struct RtChunk {
  static constexpr int kElements = sizeof(T) * N > 16 ? 16 / int(sizeof(T)) : N;
};

template <int N, class T, class V> RT_DEV void rt_load(V (&to)[N], const T* from) {
  constexpr int kChunk = RtChunk<T, N>::kElements;
#pragma unroll
  for (int begin = 0; begin < N; begin += kChunk) {
    const RtPack<T, kChunk> pack = *reinterpret_cast<const RtPack<T, kChunk>*>(from + begin);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) to[begin + i] = rt_get(pack.element[i]);
  }
}

// The same for integers of at most 2^22, as floats.
template <int N> RT_DEV void rt_load_small(float (&to)[N], const int32_t* from) {
  int32_t own[N];
  rt_load<N>(own, from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = rt_f32_of_small(own[i]);
}

// Where element i of an array lies if the pieces of 16 bytes of four vectors of N words take turns: what four lanes read
// of their own vectors at once then meets in no bank.
template <int N> RT_DEV int rt_apart(int i) { return i / (4 * N) * (4 * N) + i % N / 4 * 16 + i / N % 4 * 4 + i % 4; }

// Reads vector `vector` of such an array.
template <int N, class T> RT_DEV void rt_load_apart(T (&to)[N], const T* from, int vector) {
#pragma unroll
  for (int begin = 0; begin < N; begin += 4) {
    const RtPack<T, 4> pack = *reinterpret_cast<const RtPack<T, 4>*>(from + rt_apart<N>(vector * N + begin));
#pragma unroll
    for (int i = 0; i < 4; ++i) to[begin + i] = pack.element[i];
  }
}

// N elements of at most 32 bits as words, which is how they wait in registers: taken apart, each would
// have one of its own.
template <class T, int N> struct RtWords {
  using Pack = RtPack<uint32_t, N * int(sizeof(T)) / 4>;
  Pack words;
  RT_DEV void load(const T* from) { words = *reinterpret_cast<const Pack*>(from); }
  RT_DEV T element(int i) const {
    constexpr int kPerWord = 4 / int(sizeof(T));
    const uint32_t bits = words.element[i / kPerWord] >> i % kPerWord * 8 * int(sizeof(T));
    T own;
    memcpy(&own, &bits, sizeof(T));
    return own;
  }
};

// Bytes as floats.
template <int N> RT_DEV void rt_floats(float (&to)[N], const RtWords<uint8_t, N>& from) {
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = rt_byte_above_2p23(from.words.element[i / 4], i % 4) - 8388608.0f;
}
template <int N> RT_DEV void rt_floats(float (&to)[N], const RtWords<int8_t, N>& from) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const uint32_t word = from.words.element[i / 4] ^ 0x80808080u;
    to[i] = rt_byte_above_2p23(word, i % 4) - 8388736.0f;
  }
}

template <int N, class T, class V> RT_DEV void rt_store(T* to, const V (&from)[N]) {
  constexpr int kChunk = RtChunk<T, N>::kElements;
#pragma unroll
  for (int begin = 0; begin < N; begin += kChunk) {
    RtPack<T, kChunk> pack;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) pack.element[i] = rt_put<T>(from[begin + i]);
    *reinterpret_cast<RtPack<T, kChunk>*>(to + begin) = pack;
  }
}

// The last bytes of words, which have no need to be anything else before they are together.
template <int N, class T> RT_DEV void rt_store_bytes(T* to, const uint32_t (&from)[N]) {
  static_assert(sizeof(T) == 1 && N % 4 == 0 && N <= 16, "whole words of bytes, in one access");
  RtPack<uint32_t, N / 4> pack;
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    const uint32_t low = __byte_perm(from[i], from[i + 1], 0x0040u);
    const uint32_t high = __byte_perm(from[i + 2], from[i + 3], 0x0040u);
    pack.element[i / 4] = __byte_perm(low, high, 0x5410u);
  }
  *reinterpret_cast<RtPack<uint32_t, N / 4>*>(to) = pack;
}

template <class T> struct RtIsByte { static constexpr bool kValue = false; };
template <> struct RtIsByte<int8_t> { static constexpr bool kValue = true; };
template <> struct RtIsByte<uint8_t> { static constexpr bool kValue = true; };

// A vector as it lies in memory, between its read and its use: bytes in words.
template <class T, int N, bool kInWords = RtIsByte<T>::kValue && N % 4 == 0> struct alignas(sizeof(T) * N) RtKept {
  T element[N];
};
template <class T, int N> struct alignas(N) RtKept<T, N, true> { uint32_t word[N / 4]; };

// Zeros unless it is valid.
template <int N, class T> RT_DEV RtKept<T, N> rt_fetch(const T* from, bool valid) {
  static_assert(sizeof(T) * N <= 16, "one access reads at most 16 bytes");
  if (valid) return *reinterpret_cast<const RtKept<T, N>*>(from);
  return {};
}

template <class T, int N, class V> RT_DEV void rt_unpack(V (&to)[N], const RtKept<T, N, false>& kept) {
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = rt_get(kept.element[i]);
}
template <class T, int N, class V> RT_DEV void rt_unpack(V (&to)[N], const RtKept<T, N, true>& kept) {
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = V(T(kept.word[i / 4] >> 8 * (i % 4)));
}

// Bytes become the last ones of floats between 2^23 and 2^24; signed ones are turned first, four at once.
template <int N> RT_DEV void rt_unpack_bytes(float (&to)[N], const uint32_t (&word)[N / 4], uint32_t turned, float base) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const uint32_t bits = __byte_perm(word[i / 4] ^ turned, 0x4b000000u, 0x7440u + uint32_t(i % 4));
    to[i] = rt_f32_of_bits(bits) - base;
  }
}
template <int N> RT_DEV void rt_unpack(float (&to)[N], const RtKept<int8_t, N, true>& kept) {
  rt_unpack_bytes(to, kept.word, 0x80808080u, 8388736.0f);
}
template <int N> RT_DEV void rt_unpack(float (&to)[N], const RtKept<uint8_t, N, true>& kept) {
  rt_unpack_bytes(to, kept.word, 0u, 8388608.0f);
}

// Numbers of four bits, two in a byte, as src/ops/groups.rs has them. Each is put into a float between 2^23 and 2^24
// where it lies, which makes it a multiple of a power of 16; one multiplication takes that and the base off. Floats
// have room for those of the first five halves: the others are shifted down together.
template <int N> RT_DEV void rt_unpack_numbers(float (&to)[N], const RtKept<uint8_t, N / 2, true>& kept) {
  constexpr float kUnit[5] = {1.0f, 1.0f / 16, 1.0f / 256, 1.0f / 4096, 1.0f / 65536};
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int place = i % 8 < 5 ? i % 8 : i % 8 - 5;
    const uint32_t word = i % 8 < 5 ? kept.word[i / 8] : kept.word[i / 8] >> 20;
    const uint32_t bits = (word & 15u << 4 * place) | 0x4b000000u;
    to[i] = fmaf(rt_f32_of_bits(bits), kUnit[place], -8388608.0f * kUnit[place] - 8.0f);
  }
}
