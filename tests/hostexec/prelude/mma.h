// Stands for templates/device/mma.cuh: fragments as PTX lays them out over the lanes of a warp.

RT_DEV void rt_ldmatrix_x4(uint32_t (&r)[4], const void* smem) {
  const int lane = host::lane();
  memcpy(host::warp().slot[lane], &smem, sizeof smem);
  host::warp_barrier();
  for (int tile = 0; tile < 4; tile++) {
    const unsigned char* row;
    memcpy(&row, host::warp().slot[tile * 8 + lane / 4], sizeof row);
    memcpy(&r[tile], row + lane % 4 * 4, 4);
  }
  host::warp_barrier();
}

RT_DEV void rt_ldmatrix_x4_trans(uint32_t (&r)[4], const void* smem) {
  const int lane = host::lane();
  memcpy(host::warp().slot[lane], &smem, sizeof smem);
  host::warp_barrier();
  for (int tile = 0; tile < 4; tile++) {
    uint16_t pair[2];
    for (int i = 0; i < 2; i++) {
      const unsigned char* row;
      memcpy(&row, host::warp().slot[tile * 8 + lane % 4 * 2 + i], sizeof row);
      memcpy(&pair[i], row + lane / 4 * 2, 2);
    }
    memcpy(&r[tile], pair, 4);
  }
  host::warp_barrier();
}

namespace host {

template <class T> float half_of(uint32_t pair, int which) {
  return rt_get(T{uint16_t(which == 0 ? pair & 0xffffu : pair >> 16)});
}

template <class T> void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const int self = lane();
  memcpy(warp().slot[self], a, 16);
  memcpy(warp().slot[self] + 16, b, 8);
  warp_barrier();
  for (int i = 0; i < 4; i++) {
    const int row = self / 4 + i / 2 * 8, column = self % 4 * 2 + i % 2;
    for (int k = 0; k < 16; k++) {
      uint32_t left, right;
      memcpy(&left, warp().slot[row % 8 * 4 + k % 8 / 2] + (row / 8 + k / 8 * 2) * 4, 4);
      memcpy(&right, warp().slot[column * 4 + k % 8 / 2] + 16 + k / 8 * 4, 4);
      d[i] += half_of<T>(left, k % 2) * half_of<T>(right, k % 2);
    }
  }
  warp_barrier();
}

}  // namespace host

RT_DEV void rt_mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16) {
  host::mma_m16n8k16<f16>(d, a, b);
}
RT_DEV void rt_mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16) {
  host::mma_m16n8k16<bf16>(d, a, b);
}

template <class T> RT_DEV uint32_t rt_pair(float low, float high) {
  return uint32_t(rt_put<T>(low).bits) | uint32_t(rt_put<T>(high).bits) << 16;
}
