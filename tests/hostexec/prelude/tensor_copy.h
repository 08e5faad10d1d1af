// Stands for templates/device/tensor_copy.cuh.

using RtTensorMap = host::TensorMap;
#define RT_TENSOR_MAP const RtTensorMap

RT_DEV void rt_fetch_map(const RtTensorMap&) {}
RT_DEV void rt_copy_tile(uint32_t to, const RtTensorMap& map, int x, int y, int z, uint32_t barrier) {
  host::copy_tile(to, map, x, y, z, barrier);
}
RT_DEV void rt_copy_box(uint32_t to, const RtTensorMap& map, int x, int y, int z, int w, uint32_t barrier) {
  host::copy_box(to, map, {x, y, z, w, 0}, barrier);
}
RT_DEV void rt_copy_columns(uint32_t to, const RtTensorMap& map, int x, int vector, int z, uint32_t barrier) {
  host::copy_box(to, map, {x, 0, vector, 0, z}, barrier);
}
RT_DEV void rt_copy_pixels(uint32_t to, const RtTensorMap& map, int channel, int x, int y, int image, int shift_x, int shift_y, uint32_t barrier) {
  host::copy_pixels(to, map, {channel, x, y, image}, {shift_x, shift_y}, barrier);
}
template <int kRegisters> RT_DEV void rt_release_registers(RT_SITE) { host::exchange_registers(kRegisters, site); }
template <int kRegisters> RT_DEV void rt_claim_registers(RT_SITE) { host::exchange_registers(kRegisters, site); }
