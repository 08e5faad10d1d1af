// Stands for templates/device/mma.cuh.

RT_DEV void rt_ldmatrix(uint32_t (&to)[4], uint32_t row, RT_SITE) { host::ldmatrix(to, row, false, site); }
RT_DEV void rt_ldmatrix_transposed(uint32_t (&to)[4], uint32_t row, RT_SITE) { host::ldmatrix(to, row, true, site); }
RT_DEV uint32_t rt_shared_word(uint32_t address) { return host::shared_word(address); }

template <host::Element kElement, class S = float> struct RtHostMma {
  static void run(S (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], RT_SITE) {
    host::mma(sum, a, b, kElement, site);
  }
};
template <class T> struct RtMma;
template <> struct RtMma<f16> : RtHostMma<host::Element::kF16> {};
template <> struct RtMma<bf16> : RtHostMma<host::Element::kBf16> {};
template <> struct RtMma<int8_t> : RtHostMma<host::Element::kS8, int32_t> {};
template <> struct RtMma<float> : RtHostMma<host::Element::kTf32> {};

// Two 16-bit elements in one word, `low` in its lower half.
template <class T> RT_DEV uint32_t rt_pair(float low, float high) {
  return uint32_t(rt_put<T>(low).bits) | uint32_t(rt_put<T>(high).bits) << 16;
}

// Two 16-bit elements times two others, each product rounded.
template <class T> struct RtPairProduct {
  static uint32_t of(uint32_t a, uint32_t b) {
    const auto product = [&](int shift) { return rt_get(T{uint16_t(a >> shift)}) * rt_get(T{uint16_t(b >> shift)}); };
    return rt_pair<T>(product(0), product(16));
  }
};
