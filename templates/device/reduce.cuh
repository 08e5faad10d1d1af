// Folding values: within a thread, across the lanes of a warp, across the warps of a block.

template <class T> struct RtLimits;
template <> struct RtLimits<float> {
  static RT_DEV float lowest() { return -RT_F32_INF; }
  static RT_DEV float highest() { return RT_F32_INF; }
};
template <> struct RtLimits<double> {
  static RT_DEV double lowest() { return -RT_F64_INF; }
  static RT_DEV double highest() { return RT_F64_INF; }
};
template <> struct RtLimits<bool> {
  static RT_DEV bool lowest() { return false; }
  static RT_DEV bool highest() { return true; }
};
template <class T> struct RtLimits {
  static constexpr bool kSigned = T(-1) < T(0);
  static constexpr int kBits = 8 * int(sizeof(T));
  static RT_DEV T highest() { return T(~uint64_t(0) >> (64 - kBits + (kSigned ? 1 : 0))); }
  static RT_DEV T lowest() { return kSigned ? T(~highest()) : T(0); }
};
template <class T> RT_DEV T rt_lowest() { return RtLimits<T>::lowest(); }
template <class T> RT_DEV T rt_highest() { return RtLimits<T>::highest(); }

// NaN wins over every number, as in the reference.
template <class T> RT_DEV T rt_fold_max(T a, T b) { return a > b || a != a ? a : b; }
template <class T> RT_DEV T rt_fold_min(T a, T b) { return a < b || a != a ? a : b; }
RT_DEV float rt_fold_max(float a, float b) { return rt_max_or_nan(a, b); }
RT_DEV float rt_fold_min(float a, float b) { return rt_min_or_nan(a, b); }

template <class T> RT_DEV bool rt_above(T a, T best) { return a > best || (a != a && best == best); }
template <class T> RT_DEV bool rt_below(T a, T best) { return a < best || (a != a && best == best); }
template <class T> RT_DEV bool rt_not_below(T a, T best) { return a >= best || a != a; }
template <class T> RT_DEV bool rt_not_above(T a, T best) { return a <= best || a != a; }

struct RtSum {
  template <class T> static RT_DEV T fold(T a, T b) { return T(a + b); }
};
struct RtProd {
  template <class T> static RT_DEV T fold(T a, T b) { return T(a * b); }
};
struct RtMax {
  template <class T> static RT_DEV T fold(T a, T b) { return rt_fold_max(a, b); }
};
struct RtMin {
  template <class T> static RT_DEV T fold(T a, T b) { return rt_fold_min(a, b); }
};
struct RtAnd {
  template <class T> static RT_DEV T fold(T a, T b) { return a && b; }
};
struct RtOr {
  template <class T> static RT_DEV T fold(T a, T b) { return a || b; }
};

// A value and where it is; equal values are told apart by position. A negative position is
// that of a thread that has seen nothing.
template <class T> struct RtArg {
  T value;
  int64_t position;
};
template <bool kMax, bool kLast> struct RtArgFold {
  template <class T> static RT_DEV RtArg<T> fold(RtArg<T> a, RtArg<T> b) {
    if (a.position < 0) return b;
    if (b.position < 0) return a;
    const bool a_wins = kMax ? rt_above(a.value, b.value) : rt_below(a.value, b.value);
    const bool b_wins = kMax ? rt_above(b.value, a.value) : rt_below(b.value, a.value);
    if (a_wins != b_wins) return a_wins ? a : b;
    return (a.position < b.position) != kLast ? a : b;
  }
};

template <class T> RT_DEV T rt_shuffle_xor(T value, int lanes) {
  return T(__shfl_xor_sync(0xffffffffu, value, lanes));
}
RT_DEV bool rt_shuffle_xor(bool value, int lanes) {
  return __shfl_xor_sync(0xffffffffu, int(value), lanes) != 0;
}
template <class T> RT_DEV RtArg<T> rt_shuffle_xor(RtArg<T> arg, int lanes) {
  return {rt_shuffle_xor(arg.value, lanes), rt_shuffle_xor(arg.position, lanes)};
}

// Every lane of each group of `kLanes` gets the fold of the group.
template <class Op, int kLanes, class T> RT_DEV T rt_warp_fold(T value) {
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
    value = Op::fold(value, rt_shuffle_xor(value, lanes));
  }
  return value;
}

// Every thread of the block gets the fold of the block. `scratch` holds one value per warp
// and is free again when the last thread has returned.
template <class Op, int kThreads, class T> RT_DEV T rt_block_fold(T value, T* scratch) {
  constexpr int kWarps = kThreads / 32;
  value = rt_warp_fold<Op, 32>(value);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = scratch[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) value = Op::fold(value, scratch[warp]);
  __syncthreads();
  return value;
}

// Threads stand in `kSlices` slices of `kColumns`, thread t in slice t / kColumns. Every slice
// gets the fold over the slices, per column and element. `scratch` holds one value per thread
// and element.
template <class Op, int kColumns, int kSlices, int N, class T>
RT_DEV void rt_slice_fold(T (&value)[N], T* scratch) {
  if (kSlices == 1) return;
  const int column = int(threadIdx.x) % kColumns;
  const int slice = int(threadIdx.x) / kColumns;
  T* const own = scratch + slice * N * kColumns + column;
#pragma unroll
  for (int i = 0; i < N; ++i) own[i * kColumns] = value[i];
  // The upper half of the slices that are left is folded into the lower one.
#pragma unroll
  for (int left = kSlices; left > 1; left = (left + 1) / 2) {
    const int half = (left + 1) / 2;
    __syncthreads();
    if (slice + half >= left) continue;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      value[i] = Op::fold(value[i], own[(half * N + i) * kColumns]);
      own[i * kColumns] = value[i];
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < N; ++i) value[i] = scratch[i * kColumns + column];
  __syncthreads();
}
