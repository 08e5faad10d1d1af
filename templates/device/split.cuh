// Blocks that share a tile's reduction: the last one to arrive finishes it.

// Whether this block is the last of n that share the ticket. All its threads call it, after
// their writes of partial sums; the last block sees those of the others, and the ticket is
// zero again.
RT_DEV bool rt_last_arriver(uint32_t* ticket, uint32_t n) {
  __shared__ int is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(ticket, 1u) == n - 1u;
    if (is_last) *ticket = 0u;
  }
  __syncthreads();
  __threadfence();
  return is_last != 0;
}

// The same for the warps of a group that has no barriers with others: whether this warp is the
// last of n that share the ticket.
RT_DEV bool rt_last_warp(uint32_t* ticket, uint32_t n) {
  __threadfence();
  __syncwarp();
  uint32_t before = 0u;
  if (threadIdx.x % 32 == 0) {
    before = atomicAdd(ticket, 1u);
    if (before == n - 1u) *ticket = 0u;
  }
  before = __shfl_sync(0xffffffffu, before, 0);
  __threadfence();
  return before == n - 1u;
}
