// Types and hardware access. This section is the only one that holds assembly or looks at
// the architecture; tests replace it as a whole to run kernels on the CPU.

typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;

#define RT_DEV __device__ __forceinline__
// The dynamic shared memory of a block, in bytes.
#define RT_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define RT_F32_INF __int_as_float(0x7f800000)
#define RT_F32_NAN __int_as_float(0x7fffffff)
#define RT_F64_INF __longlong_as_double(0x7ff0000000000000ll)
#define RT_F64_NAN __longlong_as_double(0x7fffffffffffffffll)

RT_DEV float rt_f32_of_bits(uint32_t bits) { return __uint_as_float(bits); }
RT_DEV uint32_t rt_bits_of_f32(float x) { return __float_as_uint(x); }
RT_DEV double rt_f64_of_bits(uint64_t bits) { return __longlong_as_double(int64_t(bits)); }
RT_DEV uint64_t rt_bits_of_f64(double x) { return uint64_t(__double_as_longlong(x)); }

RT_DEV float rt_f32_of_f16_bits(uint16_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}

RT_DEV uint16_t rt_f16_bits_of_f32(float x) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

// Below sm_80 there is no such instruction: round to nearest even by integers.
RT_DEV uint16_t rt_bf16_bits_of_f32(float x) {
#if __CUDA_ARCH__ >= 800
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#else
  uint32_t bits = __float_as_uint(x);
  if (x != x) return uint16_t(0x7fff);
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
}

// 2 to the power of x, in one instruction: what is not normal is zero.
RT_DEV float rt_fast_exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// The reciprocal within one unit in the last place, in one instruction: what is not normal is zero.
RT_DEV float rt_fast_reciprocal(float x) {
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(x));
  return reciprocal;
}

// The hyperbolic tangent within 2^-11 of itself, in one instruction.
RT_DEV float rt_fast_tanh(float x) {
  float tangent;
  asm("tanh.approx.f32 %0, %1;" : "=f"(tangent) : "f"(x));
  return tangent;
}

// The greater and the lesser of two, NaN where either is NaN: one instruction from sm_80 on.
RT_DEV float rt_max_or_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float x;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(x) : "f"(a), "f"(b));
  return x;
#else
  return a > b || a != a ? a : b;
#endif
}
RT_DEV float rt_min_or_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float x;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(x) : "f"(a), "f"(b));
  return x;
#else
  return a < b || a != a ? a : b;
#endif
}

// 2^23 plus the byte `at` of a word, as a float.
RT_DEV float rt_byte_above_2p23(uint32_t word, int at) {
  return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7540u + at));
}

// Where a generic pointer into shared memory lies in it.
RT_DEV uint32_t rt_shared_address(const void* pointer) { return uint32_t(__cvta_generic_to_shared(pointer)); }

// The first thing a kernel does, but for reading weights: waits until everything that earlier ones
// wrote can be read. Nothing else may be read or written before it.
RT_DEV void rt_await_predecessors() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// What this thread wrote, and saw written, comes before what others of the device see it do next. Order between two is
// enough: that of all threads together, which __threadfence() gives, takes longer.
RT_DEV void rt_fence() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

// Lets the next kernel begin its launch before this one ends. Only for kernels that leave room
// on every SM: blocks that are placed beside large ones crowd where there is room.
RT_DEV void rt_release_successors() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
