// Stands for templates/device/tensor_copy.cuh.

using RtTensorMap = host::TensorMap;
#define RT_TENSOR_MAP const RtTensorMap

RT_DEV void rt_copy_tile(uint32_t to, const RtTensorMap& map, int x, int y, int z, uint32_t barrier) {
  host::copy_tile(to, map, x, y, z, barrier);
}
template <int kRegisters> RT_DEV void rt_release_registers(RT_SITE) { host::exchange_registers(kRegisters, site); }
template <int kRegisters> RT_DEV void rt_claim_registers(RT_SITE) { host::exchange_registers(kRegisters, site); }
