// Softmax over scores that arrive in tiles: powers of two, and joining parts of a row.

RT_DEV float rt_exp2(float x) { return rt_fast_exp2(x); }
RT_DEV double rt_exp2(double x) { return exp2(x); }

// What to subtract from scores whose maximum is `most`: nothing where no score is above minus
// infinity, so that all weights are zero.
template <class V> RT_DEV V rt_shift(V most) { return most == rt_lowest<V>() ? V(0) : most; }

template <int N, class T> RT_DEV void rt_clear(T* to) {
  constexpr int kChunk = RtChunk<T, N>::kElements;
#pragma unroll
  for (int begin = 0; begin < N; begin += kChunk) {
    *reinterpret_cast<RtPack<T, kChunk>*>(to + begin) = RtPack<T, kChunk>{};
  }
}

RT_DEV void rt_copy_16(void* to, const void* from) {
  *reinterpret_cast<RtPack<uint32_t, 4>*>(to) = *reinterpret_cast<const RtPack<uint32_t, 4>*>(from);
}

// Parts of attention rows in shared memory: maximum and sum of each part and row, and the
// weighted values, unnormalised.
template <class V, int kParts, int kRows, int kPitch> struct RtParts {
  V most[kParts * kRows];
  V sum[kParts * kRows];
  alignas(16) V value[kParts * kRows * kPitch];

  // `N` values of one row, over all parts; zero where the row saw no key.
  template <int N> RT_DEV void join(V (&to)[N], int row, int column) const {
    V all = rt_lowest<V>();
#pragma unroll
    for (int part = 0; part < kParts; ++part) all = rt_fold_max(all, most[part * kRows + row]);
    const V shift = rt_shift(all);
    V total = V(0);
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = V(0);
#pragma unroll 4
    for (int part = 0; part < kParts; ++part) {
      const V weight = kParts == 1 ? V(1) : rt_exp2(most[part * kRows + row] - shift);
      total += weight * sum[part * kRows + row];
#pragma unroll
      for (int i = 0; i < N; ++i) to[i] += weight * value[(part * kRows + row) * kPitch + column + i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = total == V(0) ? V(0) : to[i] / total;
  }
};
