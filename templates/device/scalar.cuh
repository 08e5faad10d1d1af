// The scalar functions that `Lowering::Map` texts of the op table call: `rt_<op>(..)`.
//
// Plain CUDA C++ without headers, so that NVRTC and g++ (behind an emulating prelude) both
// take it. The prelude before this file declares the sized integer types and RT_DEV. Kinds
// narrower than 32-bit floats are computed as `float`, so functions exist for float, double, bool
// and the integers; casts are in convert.cuh. An op's meaning is its `eval` in src/ops; this file
// must agree with it.

// A parameter of type `rt_as<T>` takes part in no deduction: attributes convert to T.
template <typename T>
struct rt_identity {
  using type = T;
};
template <typename T>
using rt_as = typename rt_identity<T>::type;

// A function of one float, from CUDA's own of either width.
#define RT_FLOAT1(name, single_precision, double_precision)              \
  RT_DEV float rt_##name(float x) { return single_precision(x); }        \
  RT_DEV double rt_##name(double x) { return double_precision(x); }

// ---- arithmetic (src/ops/elementwise.rs)

template <typename T>
RT_DEV T rt_add(T a, T b) {
  return static_cast<T>(a + b);
}
template <typename T>
RT_DEV T rt_sub(T a, T b) {
  return static_cast<T>(a - b);
}
template <typename T>
RT_DEV T rt_mul(T a, T b) {
  return static_cast<T>(a * b);
}
// Compilers contract `a * b + c`; these products they leave alone.
template <typename T>
RT_DEV T rt_mul_rounded(T a, T b) {
  return static_cast<T>(a * b);
}
RT_DEV float rt_mul_rounded(float a, float b) { return __fmul_rn(a, b); }
RT_DEV double rt_mul_rounded(double a, double b) { return __dmul_rn(a, b); }
template <typename T>
RT_DEV T rt_neg(T x) {
  return static_cast<T>(-x);
}

// Integer division by zero yields zero, as in the reference.
template <typename T>
RT_DEV T rt_div(T a, T b) {
  return b == T(0) ? T(0) : static_cast<T>(a / b);
}
RT_DEV float rt_div(float a, float b) { return a / b; }
RT_DEV double rt_div(double a, double b) { return a / b; }

template <typename T>
RT_DEV T rt_mod_trunc(T a, T b) {
  return b == T(0) ? T(0) : static_cast<T>(a % b);
}
RT_DEV float rt_mod_trunc(float a, float b) { return fmodf(a, b); }
RT_DEV double rt_mod_trunc(double a, double b) { return fmod(a, b); }

template <typename T>
RT_DEV T rt_mod_floor(T a, T b) {
  const T rest = rt_mod_trunc(a, b);
  const bool other_sign = (rest < T(0)) != (b < T(0));
  return rest != T(0) && other_sign ? static_cast<T>(rest + b) : rest;
}

// By squaring. A negative exponent leaves only the powers of 1 and -1.
template <typename T>
RT_DEV T rt_pow(T base, T exponent) {
  if (exponent < T(0)) {
    const T sign = exponent % T(2) == T(0) ? T(1) : base;
    return base == T(1) ? T(1) : (base == static_cast<T>(-1) ? sign : T(0));
  }
  T power = 1;
  while (exponent > T(0)) {
    if (exponent & T(1)) {
      power = static_cast<T>(power * base);
    }
    base = static_cast<T>(base * base);
    exponent = static_cast<T>(exponent >> 1);
  }
  return power;
}
RT_DEV float rt_pow(float base, float exponent) { return powf(base, exponent); }
RT_DEV double rt_pow(double base, double exponent) { return pow(base, exponent); }

// `x != x` holds for NaN alone, which both keep.
template <typename T>
RT_DEV T rt_min(T a, T b) {
  return a < b || a != a ? a : b;
}
template <typename T>
RT_DEV T rt_max(T a, T b) {
  return a > b || a != a ? a : b;
}
RT_DEV float rt_min(float a, float b) { return rt_min_or_nan(a, b); }
RT_DEV float rt_max(float a, float b) { return rt_max_or_nan(a, b); }
template <typename T>
RT_DEV T rt_clamp(T x, rt_as<T> low, rt_as<T> high) {
  const T above = x < low ? low : x;
  return above > high ? high : above;
}

template <typename T>
RT_DEV T rt_abs(T x) {
  return x < T(0) ? static_cast<T>(-x) : x;
}
RT_DEV float rt_abs(float x) { return fabsf(x); }
RT_DEV double rt_abs(double x) { return fabs(x); }

template <typename T>
RT_DEV T rt_sign(T x) {
  return x > T(0) ? T(1) : (x < T(0) ? static_cast<T>(-1) : x);
}

template <typename T>
RT_DEV T rt_prelu(T x, T slope) {
  return x < T(0) ? static_cast<T>(slope * x) : x;
}

RT_FLOAT1(floor, floorf, floor)
RT_FLOAT1(ceil, ceilf, ceil)
RT_FLOAT1(round, rintf, rint)
RT_FLOAT1(exp, expf, exp)
RT_FLOAT1(log, logf, log)
RT_FLOAT1(sqrt, sqrtf, sqrt)
RT_FLOAT1(rsqrt, rsqrtf, rsqrt)
RT_FLOAT1(erf, erff, erf)
RT_FLOAT1(sin, sinf, sin)
RT_FLOAT1(cos, cosf, cos)
RT_FLOAT1(tan, tanf, tan)
RT_FLOAT1(asin, asinf, asin)
RT_FLOAT1(acos, acosf, acos)
RT_FLOAT1(atan, atanf, atan)
RT_FLOAT1(sinh, sinhf, sinh)
RT_FLOAT1(cosh, coshf, cosh)
RT_FLOAT1(tanh, tanhf, tanh)
RT_FLOAT1(asinh, asinhf, asinh)
RT_FLOAT1(acosh, acoshf, acosh)
RT_FLOAT1(atanh, atanhf, atanh)
RT_DEV float rt_reciprocal(float x) { return 1.0f / x; }
RT_DEV double rt_reciprocal(double x) { return 1.0 / x; }

// ---- comparison, logic, bits, selection (src/ops/compare.rs)

template <typename T>
RT_DEV bool rt_equal(T a, T b) {
  return a == b;
}
template <typename T>
RT_DEV bool rt_less(T a, T b) {
  return a < b;
}
template <typename T>
RT_DEV bool rt_less_equal(T a, T b) {
  return a <= b;
}
template <typename T>
RT_DEV bool rt_greater(T a, T b) {
  return a > b;
}
template <typename T>
RT_DEV bool rt_greater_equal(T a, T b) {
  return a >= b;
}

RT_DEV bool rt_and(bool a, bool b) { return a && b; }
RT_DEV bool rt_or(bool a, bool b) { return a || b; }
RT_DEV bool rt_xor(bool a, bool b) { return a != b; }
RT_DEV bool rt_not(bool x) { return !x; }

template <typename T>
RT_DEV T rt_bit_and(T a, T b) {
  return static_cast<T>(a & b);
}
template <typename T>
RT_DEV T rt_bit_or(T a, T b) {
  return static_cast<T>(a | b);
}
template <typename T>
RT_DEV T rt_bit_xor(T a, T b) {
  return static_cast<T>(a ^ b);
}
template <typename T>
RT_DEV T rt_bit_not(T x) {
  return static_cast<T>(~x);
}

// Shifting by the width of the kind or more, or by less than nothing, leaves the sign alone:
// zero, but -1 of a negative number to the right.
template <typename T>
RT_DEV bool rt_shifts_within(T amount) {
  return amount >= T(0) && uint64_t(amount) < 8 * sizeof(T);
}
template <typename T>
RT_DEV T rt_shift_left(T a, T b) {
  return rt_shifts_within(b) ? static_cast<T>(uint64_t(a) << b) : T(0);
}
template <typename T>
RT_DEV T rt_shift_right(T a, T b) {
  return rt_shifts_within(b) ? static_cast<T>(a >> b) : (a < T(0) ? static_cast<T>(-1) : T(0));
}

template <typename T>
RT_DEV bool rt_is_nan(T x) {
  return x != x;
}
// Only infinities and NaN differ from themselves by something that is not zero.
template <typename T>
RT_DEV bool rt_is_inf(T x, bool detect_negative, bool detect_positive) {
  const bool infinite = x == x && x - x != T(0);
  return infinite && (x < T(0) ? detect_negative : detect_positive);
}

template <typename T>
RT_DEV T rt_where(bool cond, T a, T b) {
  return cond ? a : b;
}

// ---- activations (src/ops/activation.rs)

template <typename T>
RT_DEV T rt_relu(T x) {
  return x < T(0) ? T(0) : x;
}
RT_DEV float rt_relu(float x) { return rt_max_or_nan(x, 0.0f); }
template <typename T>
RT_DEV T rt_leaky_relu(T x, rt_as<T> alpha) {
  return x < T(0) ? alpha * x : x;
}
template <typename T>
RT_DEV T rt_thresholded_relu(T x, rt_as<T> alpha) {
  return x > alpha ? x : T(0);
}
RT_FLOAT1(expm1, expm1f, expm1)
RT_FLOAT1(log1p, log1pf, log1p)
template <typename T>
RT_DEV T rt_elu(T x, rt_as<T> alpha) {
  return x < T(0) ? alpha * rt_expm1(x) : x;
}
template <typename T>
RT_DEV T rt_selu(T x, rt_as<T> alpha, rt_as<T> gamma) {
  return gamma * (x <= T(0) ? alpha * rt_expm1(x) : x);
}
template <typename T>
RT_DEV T rt_celu(T x, rt_as<T> alpha) {
  return x < T(0) ? alpha * rt_expm1(x / alpha) : x;
}
// Activations of `float` have no branches and no division, which would cost more than the rest of an
// epilogue. They are within some units in the last place of where they are above 1e-3, and absolutely below.
RT_DEV double rt_sigmoid(double x) { return 1.0 / (1.0 + rt_exp(-x)); }
RT_DEV float rt_sigmoid(float x) { return rt_fast_reciprocal(1.0f + rt_fast_exp2(x * -1.4426950408889634f)); }
// max(x, 0) + log(1 + exp(-|x|)) does not overflow; NaN passes through the first term.
template <typename T>
RT_DEV T rt_softplus(T x) {
  return rt_relu(x) + rt_log1p(rt_exp(-rt_abs(x)));
}
template <typename T>
RT_DEV T rt_softsign(T x) {
  return x / (T(1) + rt_abs(x));
}
template <typename T>
RT_DEV T rt_hard_sigmoid(T x, rt_as<T> alpha, rt_as<T> beta) {
  return rt_clamp(alpha * x + beta, T(0), T(1));
}
template <typename T>
RT_DEV T rt_hard_swish(T x) {
  return x * rt_clamp(x * T(1.0 / 6.0) + T(0.5), T(0), T(1));
}
RT_DEV double rt_gelu_none(double x) { return 0.5 * x * (1.0 + rt_erf(x * 0.70710678118654752)); }
// x below zero times the normal distribution's share below it, and for positive x what is symmetric. The
// polynomial is that share's binary logarithm, fitted to what errors in it do to the result.
RT_DEV float rt_gelu_none(float x) {
  constexpr float kTerms[11] = {-9.99999881e-1f, -1.15110838f,     -4.59192187e-1f, -5.25192991e-2f,
                                7.0529324e-3f,   -8.06557509e-5f,  -2.43249946e-4f, 6.64868494e-5f,
                                -9.34036325e-6f, 7.12967505e-7f,   -2.3290335e-8f};
  const float size = fminf(fabsf(x), 6.5f);
  float power = kTerms[10];
#pragma unroll
  for (int i = 9; i >= 0; --i) power = power * size + kTerms[i];
  // Not a selection: minus infinity has no limit here, as in the reference.
  const float above = 0.5f * fabsf(x) + 0.5f * x;
  return above - size * rt_fast_exp2(power);
}
RT_DEV double rt_gelu_tanh(double x) {
  return 0.5 * x * (1.0 + rt_tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
}
// (1 + tanh(z)) / 2 is the sigmoid of 2 z.
RT_DEV float rt_gelu_tanh(float x) { return x * rt_sigmoid(x * (1.5957691216057308f + 0.07135481627159893f * (x * x))); }
// The same where the result is rounded to 16 bits: x / 2 + x / 2 * tanh(z), by one instruction of the special functions
// instead of two. The error is |x| / 2^12 if the instruction's is as large as it may be (5e-6 on an H200). Of the exact
// form, z is fitted to what its error does to the result (3e-5); beyond 6 the result is x or zero.
RT_DEV float rt_gelu_none_of_halves(float x) {
  const float square = fminf(x * x, 36.0f);
  const float half = 0.5f * x;
  return fmaf(half, rt_fast_tanh(x * (0.79750786f + square * (0.037005665f - 0.00035151964f * square))), half);
}
RT_DEV float rt_gelu_tanh_of_halves(float x) {
  const float half = 0.5f * x;
  return fmaf(half, rt_fast_tanh(x * (0.79788456f + 0.035677408f * (x * x))), half);
}
template <typename T>
RT_DEV T rt_mish(T x) {
  return x * rt_tanh(rt_softplus(x));
}
template <typename T>
RT_DEV T rt_swish(T x, rt_as<T> alpha) {
  return x * rt_sigmoid(static_cast<T>(alpha * x));
}
