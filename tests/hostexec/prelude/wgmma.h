// Stands for templates/device/wgmma.cuh.

template <int kBlockBytes> RT_DEV uint64_t rt_matrix(uint32_t address) {
  return uint64_t(1) << 62 | uint64_t(1024 / 16) << 32 | uint64_t(kBlockBytes / 16) << 16 | uint64_t((address & 0x3ffff) >> 4);
}
template <int kAlongK, int kAlongRows> RT_DEV uint64_t rt_chunks(uint32_t address) {
  return uint64_t(kAlongRows / 16) << 32 | uint64_t(kAlongK / 16) << 16 | uint64_t((address & 0x3ffff) >> 4);
}
RT_DEV void rt_wgmma_begin(RT_SITE) { host::wgmma_begin(site); }
RT_DEV void rt_wgmma_publish() {}
RT_DEV void rt_wgmma_commit(RT_SITE) { host::wgmma_commit(site); }
template <int kOpen> RT_DEV void rt_wgmma_wait(RT_SITE) { host::wgmma_wait(kOpen, site); }
template <class S, int kBlocks, int kSums> RT_DEV void rt_wgmma_take(S (&)[kBlocks][kSums]) {}
template <class S, int kBlocks, int kSums> RT_DEV void rt_wgmma_end(S (&)[kBlocks][kSums], RT_SITE) { host::wgmma_wait(0, site); }

template <host::Element kElement, int kColumns, int kAcrossA, int kAcrossB, class S = float> struct RtHostWgmma {
  static void run(S (&sum)[kColumns / 2], uint64_t a, uint64_t b, bool keep, RT_SITE) {
    host::wgmma(sum, {kElement, kColumns, kAcrossA != 0, kAcrossB != 0, a, b, keep}, nullptr, site);
  }
};
template <class T, int kColumns, int kAcrossA, int kAcrossB> struct RtWgmma;
template <int kColumns, int kAcrossA, int kAcrossB>
struct RtWgmma<f16, kColumns, kAcrossA, kAcrossB> : RtHostWgmma<host::Element::kF16, kColumns, kAcrossA, kAcrossB> {};
template <int kColumns, int kAcrossA, int kAcrossB>
struct RtWgmma<bf16, kColumns, kAcrossA, kAcrossB> : RtHostWgmma<host::Element::kBf16, kColumns, kAcrossA, kAcrossB> {};
template <int kColumns, int kAcrossA, int kAcrossB>
struct RtWgmma<int8_t, kColumns, kAcrossA, kAcrossB> : RtHostWgmma<host::Element::kS8, kColumns, kAcrossA, kAcrossB, int32_t> {};
template <int kColumns, int kAcrossA, int kAcrossB>
struct RtWgmma<f8e4m3, kColumns, kAcrossA, kAcrossB> : RtHostWgmma<host::Element::kE4m3, kColumns, kAcrossA, kAcrossB> {};

template <host::Element kElement, int kColumns, int kAcrossB> struct RtHostWgmmaRows {
  static void run(float (&sum)[kColumns / 2], const uint32_t (&a)[4], uint64_t b, bool keep, RT_SITE) {
    host::wgmma(sum, {kElement, kColumns, false, kAcrossB != 0, 0, b, keep}, a, site);
  }
};
template <class T, int kColumns, int kAcrossB> struct RtWgmmaRows;
template <int kColumns, int kAcrossB>
struct RtWgmmaRows<f16, kColumns, kAcrossB> : RtHostWgmmaRows<host::Element::kF16, kColumns, kAcrossB> {};
template <int kColumns, int kAcrossB>
struct RtWgmmaRows<bf16, kColumns, kAcrossB> : RtHostWgmmaRows<host::Element::kBf16, kColumns, kAcrossB> {};
