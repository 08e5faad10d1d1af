// Stands for templates/device/prelude.cuh when a kernel is compiled by g++: CUDA's words, in
// terms of the emulator.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "emulator/host.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
// Static shared memory of all kernels is one section, which the emulator finds by its name.
#define __shared__ static __attribute__((section("rt_shared")))
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __restrict__ __restrict
#define RT_DEV inline
#define RT_DYNAMIC_SHARED(name) unsigned char* name = host::dynamic_shared
#define RT_F32_INF std::numeric_limits<float>::infinity()
#define RT_F32_NAN std::numeric_limits<float>::quiet_NaN()
#define RT_F64_INF std::numeric_limits<double>::infinity()
#define RT_F64_NAN std::numeric_limits<double>::quiet_NaN()

#define threadIdx (host::current->index)
#define blockIdx (host::block_index)
#define blockDim (host::block_dim)
#define gridDim (host::grid_dim)

// The site of the call, as the default of a last parameter.
#define RT_SITE host::Site site = {__builtin_FILE(), __builtin_LINE()}

static inline void __syncthreads(RT_SITE) { host::wait_block(site); }
static inline void __syncwarp(unsigned = 0xffffffffu, RT_SITE) { host::wait_warp(site); }
static inline void rt_fence() {}
static inline unsigned atomicAdd(unsigned* to, unsigned value) { return host::atomic_add(to, value); }
template <class T> T rt_exchange(T value, int source, host::Site site) {
  host::exchange(&value, sizeof(T), source, site);
  return value;
}
// Bytes of `high:low`, each chosen by a digit of `places`.
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t places) {
  const uint64_t both = uint64_t(high) << 32 | low;
  uint32_t chosen = 0;
  for (int i = 0; i < 4; ++i) chosen |= uint32_t(both >> 8 * (places >> 4 * i & 7) & 0xff) << 8 * i;
  return chosen;
}
template <class T> T __shfl_xor_sync(unsigned, T value, int lanes, RT_SITE) {
  return rt_exchange(value, host::lane() ^ lanes, site);
}
template <class T> T __shfl_sync(unsigned, T value, int source, RT_SITE) { return rt_exchange(value, source & 31, site); }
template <class T> T __shfl_down_sync(unsigned, T value, int lanes, RT_SITE) {
  const int source = host::lane() + lanes;
  return rt_exchange(value, source < 32 ? source : host::lane(), site);
}

// Products that are never contracted; the emulation contracts none.
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
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
RT_DEV double rt_f64_of_bits(uint64_t bits) {
  double x;
  memcpy(&x, &bits, 8);
  return x;
}
RT_DEV uint64_t rt_bits_of_f64(double x) {
  uint64_t bits;
  memcpy(&bits, &x, 8);
  return bits;
}
RT_DEV float rt_byte_above_2p23(uint32_t word, int at) { return rt_f32_of_bits(0x4b000000u | (word >> 8 * at & 0xffu)); }
RT_DEV float rt_max_or_nan(float a, float b) { return a > b || a != a ? a : b; }
RT_DEV float rt_min_or_nan(float a, float b) { return a < b || a != a ? a : b; }
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
RT_DEV float rt_fast_exp2(float x) { return exp2f(x); }
RT_DEV float rt_fast_reciprocal(float x) { return 1.0f / x; }
RT_DEV float rt_fast_tanh(float x) { return tanhf(x); }
RT_DEV uint16_t rt_bf16_bits_of_f32(float x) {
  const uint32_t bits = rt_bits_of_f32(x);
  if (x != x) return 0x7fff;
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

RT_DEV uint32_t rt_shared_address(const void* pointer) { return uint32_t((const unsigned char*)pointer - host::dynamic_shared); }

// Kernels run one after the other here; the emulator refuses what comes too early.
inline void rt_await_predecessors() { host::await_predecessors(); }
inline void rt_release_successors() {}
