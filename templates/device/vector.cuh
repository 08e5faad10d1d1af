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
