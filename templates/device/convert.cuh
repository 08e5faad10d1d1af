// Elements in memory: storage types, rt_get (to the type computed in), rt_put (back), and
// the casts that the `cast` op names.

struct f16 { uint16_t bits; };
struct bf16 { uint16_t bits; };
struct bool8 { uint8_t bits; };
struct f8e4m3 { uint8_t bits; };
struct f8e4m3fnuz { uint8_t bits; };
struct f8e5m2 { uint8_t bits; };
struct f8e5m2fnuz { uint8_t bits; };
struct f8e8m0 { uint8_t bits; };
struct f4e2m1 { uint8_t bits; };

RT_DEV float rt_power_of_two(int exponent) { return rt_f32_of_bits(uint32_t(exponent + 127) << 23); }

// The value of a narrow float without its special codes.
RT_DEV float rt_narrow_decode(int magnitude, bool negative, int mantissa_bits, int bias) {
  int exponent = magnitude >> mantissa_bits;
  int mantissa = magnitude & ((1 << mantissa_bits) - 1);
  if (exponent > 0) mantissa |= 1 << mantissa_bits;
  else exponent = 1;
  float value = float(mantissa) * rt_power_of_two(exponent - bias - mantissa_bits);
  return negative ? -value : value;
}

// Nearest code, ties to even, saturating; NaN is for the caller.
RT_DEV uint8_t rt_narrow_encode(float x, int sign_bit, int max_code, int mantissa_bits, int bias, bool signed_zero) {
  uint32_t bits = rt_bits_of_f32(x);
  bool negative = (bits >> 31) != 0;
  float magnitude = rt_f32_of_bits(bits & 0x7fffffffu);
  int exponent = int((bits >> 23) & 0xffu) - 127;
  if (exponent > 126) exponent = 126;
  if (exponent < 1 - bias) exponent = 1 - bias;
  float steps = rintf(magnitude * rt_power_of_two(mantissa_bits - exponent));
  int code = ((exponent + bias - 1) << mantissa_bits) + int(steps < 65536.0f ? steps : 65536.0f);
  if (code > max_code) code = max_code;
  if (code == 0 && !signed_zero) return 0;
  return uint8_t(negative ? code | sign_bit : code);
}

RT_DEV double rt_get(double x) { return x; }
RT_DEV float rt_get(float x) { return x; }
RT_DEV float rt_get(f16 x) { return rt_f32_of_f16_bits(x.bits); }
RT_DEV float rt_get(bf16 x) { return rt_f32_of_bits(uint32_t(x.bits) << 16); }
RT_DEV bool rt_get(bool8 x) { return x.bits != 0; }
RT_DEV int8_t rt_get(int8_t x) { return x; }
RT_DEV int16_t rt_get(int16_t x) { return x; }
RT_DEV int32_t rt_get(int32_t x) { return x; }
RT_DEV int64_t rt_get(int64_t x) { return x; }
RT_DEV uint8_t rt_get(uint8_t x) { return x; }
RT_DEV uint16_t rt_get(uint16_t x) { return x; }
RT_DEV uint32_t rt_get(uint32_t x) { return x; }
RT_DEV uint64_t rt_get(uint64_t x) { return x; }

RT_DEV float rt_get(f8e4m3 x) {
  if ((x.bits & 0x7f) == 0x7f) return RT_F32_NAN;
  return rt_narrow_decode(x.bits & 0x7f, x.bits > 0x7f, 3, 7);
}
RT_DEV float rt_get(f8e4m3fnuz x) {
  if (x.bits == 0x80) return RT_F32_NAN;
  return rt_narrow_decode(x.bits & 0x7f, x.bits > 0x7f, 3, 8);
}
RT_DEV float rt_get(f8e5m2 x) {
  int magnitude = x.bits & 0x7f;
  if (magnitude > 0x7c) return RT_F32_NAN;
  if (magnitude == 0x7c) return x.bits > 0x7f ? -RT_F32_INF : RT_F32_INF;
  return rt_narrow_decode(magnitude, x.bits > 0x7f, 2, 15);
}
RT_DEV float rt_get(f8e5m2fnuz x) {
  if (x.bits == 0x80) return RT_F32_NAN;
  return rt_narrow_decode(x.bits & 0x7f, x.bits > 0x7f, 2, 16);
}
RT_DEV float rt_get(f8e8m0 x) {
  if (x.bits == 0xff) return RT_F32_NAN;
  return x.bits == 0 ? rt_f32_of_bits(0x00400000u) : rt_power_of_two(int(x.bits) - 127);
}
RT_DEV float rt_get(f4e2m1 x) { return rt_narrow_decode(x.bits & 7, (x.bits & 8) != 0, 1, 1); }

// A float becomes an integer by way of 64 bits, so that narrow kinds keep the low bits.
template <class T> RT_DEV T rt_int_of(float x) { return T(int64_t(x)); }
template <class T> RT_DEV T rt_int_of(double x) { return T(int64_t(x)); }
template <class T, class V> RT_DEV T rt_int_of(V x) { return T(x); }

template <class T> struct RtPut {
  template <class V> static RT_DEV T from(V x) { return rt_int_of<T>(x); }
};
template <> struct RtPut<double> {
  template <class V> static RT_DEV double from(V x) { return double(x); }
};
template <> struct RtPut<float> {
  template <class V> static RT_DEV float from(V x) { return float(x); }
};
template <> struct RtPut<f16> {
  template <class V> static RT_DEV f16 from(V x) { return {rt_f16_bits_of_f32(float(x))}; }
};
template <> struct RtPut<bf16> {
  template <class V> static RT_DEV bf16 from(V x) { return {rt_bf16_bits_of_f32(float(x))}; }
};
template <> struct RtPut<bool8> {
  template <class V> static RT_DEV bool8 from(V x) { return {uint8_t(x != V(0))}; }
};
template <> struct RtPut<f8e4m3> {
  template <class V> static RT_DEV f8e4m3 from(V v) {
    float x = float(v);
    return {x != x ? uint8_t(0x7f) : rt_narrow_encode(x, 0x80, 0x7e, 3, 7, true)};
  }
};
template <> struct RtPut<f8e4m3fnuz> {
  template <class V> static RT_DEV f8e4m3fnuz from(V v) {
    float x = float(v);
    return {x != x ? uint8_t(0x80) : rt_narrow_encode(x, 0x80, 0x7f, 3, 8, false)};
  }
};
template <> struct RtPut<f8e5m2> {
  template <class V> static RT_DEV f8e5m2 from(V v) {
    float x = float(v);
    return {x != x ? uint8_t(0x7f) : rt_narrow_encode(x, 0x80, 0x7b, 2, 15, true)};
  }
};
template <> struct RtPut<f8e5m2fnuz> {
  template <class V> static RT_DEV f8e5m2fnuz from(V v) {
    float x = float(v);
    return {x != x ? uint8_t(0x80) : rt_narrow_encode(x, 0x80, 0x7f, 2, 16, false)};
  }
};
template <> struct RtPut<f8e8m0> {
  // A bare power of two, rounded up.
  template <class V> static RT_DEV f8e8m0 from(V v) {
    float x = float(v);
    if (!(x >= 0.0f)) return {uint8_t(0xff)};
    uint32_t bits = rt_bits_of_f32(x);
    if (bits < 0x00400000u) return {uint8_t(0)};
    if (bits == 0x00400000u) return {uint8_t(0)};
    uint32_t code = (bits >> 23) + ((bits & 0x7fffffu) != 0 ? 1u : 0u);
    return {uint8_t(code > 0xfeu ? 0xfeu : code)};
  }
};
template <> struct RtPut<f4e2m1> {
  template <class V> static RT_DEV f4e2m1 from(V v) {
    float x = float(v);
    return {x != x ? uint8_t(8) : rt_narrow_encode(x, 8, 7, 1, 1, true)};
  }
};

template <class T, class V> RT_DEV T rt_put(V x) { return RtPut<T>::from(x); }

// Casts inside a kernel. Those to `f16` and `bf16` keep full precision until a value is
// stored; those to narrower floats round, since that is what they are there for.
//
// Conversions between integers and floats have a quarter of the rate of arithmetic. Small integers
// need none: they are the last bits of floats between 2^23 and 2^24.
#if __CUDA_ARCH__ >= 900
// Here 32 bits are converted by one instruction of half the rate.
RT_DEV float rt_f32_of_small(int32_t x) { return float(x); }
#else
RT_DEV float rt_f32_of_small(int32_t x) { return rt_f32_of_bits(uint32_t(0x4b400000 + x)) - 12582912.0f; }
#endif
RT_DEV float rt_f32_of_byte(int8_t x) { return rt_f32_of_bits(0x4b000000u | (uint8_t(x) ^ 0x80u)) - 8388736.0f; }
RT_DEV float rt_f32_of_byte(uint8_t x) { return rt_f32_of_bits(0x4b000000u | x) - 8388608.0f; }

// The number from -8 to 7 in the low half of a byte, or in the high one where `place` is 1 (src/ops/groups.rs).
RT_DEV float rt_nibble(uint8_t x, int64_t place) {
  return rt_f32_of_bits(0x4b000000u | (uint32_t(x) >> 4 * int(place) & 15u)) - 8388616.0f;
}

// The nearest integer, ties to even, within bounds that are integers of a byte's kind; 0 for NaN. It is the last byte.
RT_DEV uint32_t rt_rounded_bits(float x, float low, float high) {
  const float above = x > low ? x : low;
  const float within = above < high ? above : high;
  const uint32_t bits = rt_bits_of_f32(within + 12582912.0f);
  // NaN is not above the lower bound.
  return low == 0.0f || x == x ? bits : 0u;
}
RT_DEV int8_t rt_rounded_i8(float x, float low, float high) { return int8_t(rt_rounded_bits(x, low, high)); }
RT_DEV uint8_t rt_rounded_u8(float x, float low, float high) { return uint8_t(rt_rounded_bits(x, low, high)); }

RT_DEV float rt_cast_f32(int8_t x) { return rt_f32_of_byte(x); }
RT_DEV float rt_cast_f32(uint8_t x) { return rt_f32_of_byte(x); }
RT_DEV float rt_cast_f16(int8_t x) { return rt_f32_of_byte(x); }
RT_DEV float rt_cast_f16(uint8_t x) { return rt_f32_of_byte(x); }
RT_DEV float rt_cast_bf16(int8_t x) { return rt_f32_of_byte(x); }
RT_DEV float rt_cast_bf16(uint8_t x) { return rt_f32_of_byte(x); }
template <class V> RT_DEV double rt_cast_f64(V x) { return double(x); }
template <class V> RT_DEV float rt_cast_f32(V x) { return float(x); }
template <class V> RT_DEV float rt_cast_f16(V x) { return float(x); }
template <class V> RT_DEV float rt_cast_bf16(V x) { return float(x); }
template <class V> RT_DEV float rt_cast_f8e4m3(V x) { return rt_get(rt_put<f8e4m3>(x)); }
template <class V> RT_DEV float rt_cast_f8e4m3fnuz(V x) { return rt_get(rt_put<f8e4m3fnuz>(x)); }
template <class V> RT_DEV float rt_cast_f8e5m2(V x) { return rt_get(rt_put<f8e5m2>(x)); }
template <class V> RT_DEV float rt_cast_f8e5m2fnuz(V x) { return rt_get(rt_put<f8e5m2fnuz>(x)); }
template <class V> RT_DEV float rt_cast_f8e8m0(V x) { return rt_get(rt_put<f8e8m0>(x)); }
template <class V> RT_DEV float rt_cast_f4e2m1(V x) { return rt_get(rt_put<f4e2m1>(x)); }
template <class V> RT_DEV int64_t rt_cast_i64(V x) { return rt_int_of<int64_t>(x); }
template <class V> RT_DEV int32_t rt_cast_i32(V x) { return rt_int_of<int32_t>(x); }
template <class V> RT_DEV int16_t rt_cast_i16(V x) { return rt_int_of<int16_t>(x); }
template <class V> RT_DEV int8_t rt_cast_i8(V x) { return rt_int_of<int8_t>(x); }
template <class V> RT_DEV int8_t rt_cast_i4(V x) { return int8_t(int8_t(rt_int_of<uint8_t>(x) << 4) >> 4); }
template <class V> RT_DEV int8_t rt_cast_i2(V x) { return int8_t(int8_t(rt_int_of<uint8_t>(x) << 6) >> 6); }
// Beyond the signed range, a float goes straight to the unsigned kind.
template <class V> RT_DEV uint64_t rt_cast_u64(V x) {
  return x < V(0) ? uint64_t(rt_int_of<int64_t>(x)) : uint64_t(x);
}
template <class V> RT_DEV uint32_t rt_cast_u32(V x) { return rt_int_of<uint32_t>(x); }
template <class V> RT_DEV uint16_t rt_cast_u16(V x) { return rt_int_of<uint16_t>(x); }
template <class V> RT_DEV uint8_t rt_cast_u8(V x) { return rt_int_of<uint8_t>(x); }
template <class V> RT_DEV uint8_t rt_cast_u4(V x) { return uint8_t(rt_int_of<uint8_t>(x) & 15); }
template <class V> RT_DEV uint8_t rt_cast_u2(V x) { return uint8_t(rt_int_of<uint8_t>(x) & 3); }
template <class V> RT_DEV bool rt_cast_bool(V x) { return x != V(0); }

// The bits of a value as it is stored, and back: the two halves of `bit_cast`. Those of `f32` and
// `f64` are in the prelude. Narrow floats are values here, so that all their NaN become one.
RT_DEV uint16_t rt_bits_of_f16(float x) { return rt_put<f16>(x).bits; }
RT_DEV uint16_t rt_bits_of_bf16(float x) { return rt_put<bf16>(x).bits; }
RT_DEV uint8_t rt_bits_of_f8e4m3(float x) { return rt_put<f8e4m3>(x).bits; }
RT_DEV uint8_t rt_bits_of_f8e4m3fnuz(float x) { return rt_put<f8e4m3fnuz>(x).bits; }
RT_DEV uint8_t rt_bits_of_f8e5m2(float x) { return rt_put<f8e5m2>(x).bits; }
RT_DEV uint8_t rt_bits_of_f8e5m2fnuz(float x) { return rt_put<f8e5m2fnuz>(x).bits; }
RT_DEV uint8_t rt_bits_of_f8e8m0(float x) { return rt_put<f8e8m0>(x).bits; }
RT_DEV uint8_t rt_bits_of_f4e2m1(float x) { return rt_put<f4e2m1>(x).bits; }
RT_DEV uint64_t rt_bits_of_i64(int64_t x) { return uint64_t(x); }
RT_DEV uint32_t rt_bits_of_i32(int32_t x) { return uint32_t(x); }
RT_DEV uint16_t rt_bits_of_i16(int16_t x) { return uint16_t(x); }
RT_DEV uint8_t rt_bits_of_i8(int8_t x) { return uint8_t(x); }
RT_DEV uint8_t rt_bits_of_i4(int8_t x) { return uint8_t(x & 15); }
RT_DEV uint8_t rt_bits_of_i2(int8_t x) { return uint8_t(x & 3); }
RT_DEV uint64_t rt_bits_of_u64(uint64_t x) { return x; }
RT_DEV uint32_t rt_bits_of_u32(uint32_t x) { return x; }
RT_DEV uint16_t rt_bits_of_u16(uint16_t x) { return x; }
RT_DEV uint8_t rt_bits_of_u8(uint8_t x) { return x; }
RT_DEV uint8_t rt_bits_of_u4(uint8_t x) { return x; }
RT_DEV uint8_t rt_bits_of_u2(uint8_t x) { return x; }
RT_DEV uint8_t rt_bits_of_bool(bool x) { return x ? 1 : 0; }

RT_DEV float rt_f16_of_bits(uint16_t bits) { return rt_get(f16{bits}); }
RT_DEV float rt_bf16_of_bits(uint16_t bits) { return rt_get(bf16{bits}); }
RT_DEV float rt_f8e4m3_of_bits(uint8_t bits) { return rt_get(f8e4m3{bits}); }
RT_DEV float rt_f8e4m3fnuz_of_bits(uint8_t bits) { return rt_get(f8e4m3fnuz{bits}); }
RT_DEV float rt_f8e5m2_of_bits(uint8_t bits) { return rt_get(f8e5m2{bits}); }
RT_DEV float rt_f8e5m2fnuz_of_bits(uint8_t bits) { return rt_get(f8e5m2fnuz{bits}); }
RT_DEV float rt_f8e8m0_of_bits(uint8_t bits) { return rt_get(f8e8m0{bits}); }
RT_DEV float rt_f4e2m1_of_bits(uint8_t bits) { return rt_get(f4e2m1{bits}); }
RT_DEV int64_t rt_i64_of_bits(uint64_t bits) { return int64_t(bits); }
RT_DEV int32_t rt_i32_of_bits(uint32_t bits) { return int32_t(bits); }
RT_DEV int16_t rt_i16_of_bits(uint16_t bits) { return int16_t(bits); }
RT_DEV int8_t rt_i8_of_bits(uint8_t bits) { return int8_t(bits); }
RT_DEV int8_t rt_i4_of_bits(uint8_t bits) { return rt_cast_i4(bits); }
RT_DEV int8_t rt_i2_of_bits(uint8_t bits) { return rt_cast_i2(bits); }
RT_DEV uint64_t rt_u64_of_bits(uint64_t bits) { return bits; }
RT_DEV uint32_t rt_u32_of_bits(uint32_t bits) { return bits; }
RT_DEV uint16_t rt_u16_of_bits(uint16_t bits) { return bits; }
RT_DEV uint8_t rt_u8_of_bits(uint8_t bits) { return bits; }
RT_DEV uint8_t rt_u4_of_bits(uint8_t bits) { return bits; }
RT_DEV uint8_t rt_u2_of_bits(uint8_t bits) { return bits; }
RT_DEV bool rt_bool_of_bits(uint8_t bits) { return bits != 0; }
