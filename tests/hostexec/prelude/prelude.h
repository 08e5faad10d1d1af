// Stands for templates/device/prelude.cuh when a kernel is compiled by g++: one fiber per CUDA
// thread, one block at a time, threads resumed in random order after every barrier.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <functional>
#include <limits>
#include <random>
#include <vector>
#include <sys/mman.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define RT_DEV inline
#define RT_DYNAMIC_SHARED(name) unsigned char* name = host::dynamic_shared
#define RT_F32_INF std::numeric_limits<float>::infinity()
#define RT_F32_NAN std::numeric_limits<float>::quiet_NaN()
#define RT_F64_INF std::numeric_limits<double>::infinity()
#define RT_F64_NAN std::numeric_limits<double>::quiet_NaN()

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace host {

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  dim3 thread;
  bool done = false;
  const int* waits_for = nullptr;
  int seen = 0;
};

struct Barrier {
  int arrived = 0, generation = 0;
};

struct Warp {
  Barrier barrier;
  unsigned char slot[32][32];
};

inline std::vector<Fiber> fibers;
inline std::vector<Warp> warps;
inline Barrier block_barrier;
inline Fiber* current;
inline ucontext_t scheduler;
inline int alive;
inline dim3 block_index, block_dim, grid_dim;
inline std::mt19937 random_order(1);
alignas(1024) inline unsigned char dynamic_shared[228 * 1024];
inline const std::function<void()>* kernel_body;

inline void yield() { swapcontext(&current->context, &scheduler); }

inline void wait(Barrier& barrier, int needed) {
  const int generation = barrier.generation;
  if (++barrier.arrived == needed) {
    barrier.arrived = 0;
    barrier.generation++;
    return;
  }
  current->waits_for = &barrier.generation;
  current->seen = generation;
  yield();
  current->waits_for = nullptr;
}

inline void entry() {
  (*kernel_body)();
  current->done = true;
  alive--;
  swapcontext(&current->context, &scheduler);
}

inline int linear_thread() {
  const dim3& t = current->thread;
  return int(t.x + block_dim.x * (t.y + block_dim.y * t.z));
}
inline int lane() { return linear_thread() & 31; }
inline Warp& warp() { return warps[linear_thread() / 32]; }
inline int warp_size() { return std::min(32, int(fibers.size()) - linear_thread() / 32 * 32); }
inline void warp_barrier() { wait(warp().barrier, warp_size()); }

inline void start_fibers() {
  const int n = int(block_dim.x * block_dim.y * block_dim.z);
  if (int(fibers.size()) != n) fibers = std::vector<Fiber>(n);
  warps.assign((n + 31) / 32, Warp());
  block_barrier = Barrier();
  alive = n;
  memset(dynamic_shared, 0xff, sizeof dynamic_shared);
  for (int i = 0; i < n; i++) {
    Fiber& fiber = fibers[i];
    if (fiber.stack.empty()) fiber.stack.resize(128 * 1024);
    fiber.thread = dim3(i % block_dim.x, i / block_dim.x % block_dim.y, i / (block_dim.x * block_dim.y));
    fiber.done = false;
    fiber.waits_for = nullptr;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, entry, 0);
  }
}

// Called when no thread of the block can go on; answers whether something happened.
inline std::function<bool()> on_stall = [] { return false; };

inline void run_block() {
  start_fibers();
  std::vector<int> order(fibers.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = int(i);
  while (alive > 0) {
    std::shuffle(order.begin(), order.end(), random_order);
    bool ran = false;
    for (int i : order) {
      Fiber& fiber = fibers[i];
      if (fiber.done || (fiber.waits_for && *fiber.waits_for == fiber.seen)) continue;
      current = &fiber;
      ran = true;
      swapcontext(&scheduler, &fiber.context);
    }
    if (!ran && !on_stall()) {
      fprintf(stderr, "deadlock in block %u,%u,%u\n", block_index.x, block_index.y, block_index.z);
      exit(3);
    }
  }
}

inline void launch(dim3 grid, dim3 block, const std::function<void()>& body) {
  kernel_body = &body;
  grid_dim = grid;
  block_dim = block;
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        block_index = dim3(x, y, z);
        run_block();
      }
}

// Device memory that ends at a page nobody may touch, so that reading past the end is caught.
inline unsigned char* allocate(size_t bytes, int fill) {
  const size_t page = 4096;
  const size_t padded = (bytes + 15) / 16 * 16;
  const size_t pages = (padded + page - 1) / page;
  auto* base = (unsigned char*)mmap(nullptr, (pages + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(base + page, pages * page, PROT_READ | PROT_WRITE);
  unsigned char* start = base + (pages + 1) * page - padded;
  memset(start, fill, padded);
  return start;
}

// A pointer argument of any element type.
struct Any {
  void* pointer;
  template <class T> operator T*() const { return (T*)pointer; }
};

inline Any read_input(FILE* file, size_t bytes) {
  unsigned char* data = allocate(bytes, 0);
  if (fread(data, 1, bytes, file) != bytes) exit(4);
  return {data};
}
inline void write_output(FILE* file, Any data, size_t bytes) {
  if (fwrite(data.pointer, 1, bytes, file) != bytes) exit(4);
}

template <class T> T exchange(T value, int source) {
  static_assert(sizeof(T) <= 32);
  memcpy(warp().slot[lane()], &value, sizeof(T));
  warp_barrier();
  T other;
  memcpy(&other, warp().slot[source & 31], sizeof(T));
  warp_barrier();
  return other;
}

}  // namespace host

#define threadIdx (host::current->thread)
#define blockIdx (host::block_index)
#define blockDim (host::block_dim)
#define gridDim (host::grid_dim)

static inline void __syncthreads() { host::wait(host::block_barrier, int(host::fibers.size())); }
static inline void __threadfence() {}
static inline unsigned atomicAdd(unsigned* to, unsigned value) {
  const unsigned before = *to;
  *to += value;
  return before;
}
static inline void __syncwarp(unsigned = 0xffffffffu) { host::warp_barrier(); }
template <class T> T __shfl_xor_sync(unsigned, T value, int lanes) { return host::exchange(value, host::lane() ^ lanes); }
template <class T> T __shfl_sync(unsigned, T value, int source) { return host::exchange(value, source); }
template <class T> T __shfl_down_sync(unsigned, T value, int lanes) {
  const int source = host::lane() + lanes;
  return host::exchange(value, source < 32 ? source : host::lane());
}

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }

RT_DEV float rt_f32_of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
RT_DEV uint32_t rt_bits_of_f32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
RT_DEV float rt_f32_of_f16_bits(uint16_t bits) {
  _Float16 x;
  memcpy(&x, &bits, 2);
  return float(x);
}
RT_DEV uint16_t rt_f16_bits_of_f32(float x) {
  _Float16 y = _Float16(x);
  uint16_t bits;
  memcpy(&bits, &y, 2);
  return bits;
}
RT_DEV uint16_t rt_bf16_bits_of_f32(float x) {
  const uint32_t bits = rt_bits_of_f32(x);
  if (x != x) return 0x7fff;
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Kernels run one after the other here.
inline void rt_await_predecessors() {}
