// Blocks that share a tile's reduction: the last one to arrive finishes it.

// Whether this block is the last of n that share the ticket. All its threads call it, after
// their writes of partial sums; the last block sees those of the others, and the ticket is
// zero again.
RT_DEV bool rt_last_arriver(uint32_t* ticket, uint32_t n) {
  __shared__ int is_last;
  rt_fence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(ticket, 1u) == n - 1u;
    if (is_last) *ticket = 0u;
  }
  __syncthreads();
  rt_fence();
  return is_last != 0;
}

// The same for the warps of a group that has no barriers with others: whether this warp is the
// last of n that share the ticket.
RT_DEV bool rt_last_warp(uint32_t* ticket, uint32_t n) {
  rt_fence();
  __syncwarp();
  uint32_t before = 0u;
  if (threadIdx.x % 32 == 0) {
    before = atomicAdd(ticket, 1u);
    if (before == n - 1u) *ticket = 0u;
  }
  before = __shfl_sync(0xffffffffu, before, 0);
  rt_fence();
  return before == n - 1u;
}

// Folds over blocks, for threads in slices as those of rt_slice_fold: what a block's slices have folded goes to
// `shares`, those of its columns.
template <int kColumns, int N, class T> RT_DEV void rt_share(const T (&value)[N], T* shares, int split) {
  if (int(threadIdx.x) >= kColumns) return;
#pragma unroll
  for (int i = 0; i < N; ++i) shares[(split * N + i) * kColumns + int(threadIdx.x)] = value[i];
}

// Every slice gets the fold of some of the shares, in their order; `value` holds what changes nothing.
template <class Op, int kColumns, int kSlices, int kSplits, int N, class T>
RT_DEV void rt_shares_fold(T (&value)[N], const T* shares) {
  const int column = int(threadIdx.x) % kColumns;
#pragma unroll 4
  for (int split = int(threadIdx.x) / kColumns; split < kSplits; split += kSlices) {
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] = Op::fold(value[i], shares[(split * N + i) * kColumns + column]);
  }
}
