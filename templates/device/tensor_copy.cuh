// Copies of whole tiles to shared memory by the copy engine (sm_90 and later), and registers
// that warps of one kind leave to those of another.

// As the driver encodes it; a kernel parameter.
struct alignas(64) RtTensorMap {
  uint64_t opaque[16];
};
#define RT_TENSOR_MAP const __grid_constant__ RtTensorMap

// Has a map brought to where copies look for it; what it describes is not touched.
RT_DEV void rt_fetch_map(const RtTensorMap& map) { asm volatile("prefetch.tensormap [%0];" : : "l"(&map) : "memory"); }

// Begins the copy of the tile at (x, y, z), innermost axis first, to a multiple of 1024 bytes.
// Elements outside of the tensor are zero. Its bytes arrive at the barrier.
RT_DEV void rt_copy_tile(uint32_t to, const RtTensorMap& map, int x, int y, int z, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
               : : "r"(to), "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier) : "memory");
}

// The same for a tensor of four axes.
RT_DEV void rt_copy_box(uint32_t to, const RtTensorMap& map, int x, int y, int z, int w, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];"
               : : "r"(to), "l"(&map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(barrier) : "memory");
}

// Begins the copy of columns from vector number `vector` on, in the order of their view (columns_view in
// src/kernel/gemm/tiled.rs), k and another coordinate being `x` and `z`.
RT_DEV void rt_copy_columns(uint32_t to, const RtTensorMap& map, int x, int vector, int z, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %3, %5}], [%6];"
               : : "r"(to), "l"(&map), "r"(x), "r"(0), "r"(vector), "r"(z), "r"(barrier) : "memory");
}

// Begins the copy of pixels in a row, from (x, y, image) of the map's box on and shifted by a tap
// of a filter, with the channels from `channel` on.
RT_DEV void rt_copy_pixels(uint32_t to, const RtTensorMap& map, int channel, int x, int y, int image, int shift_x, int shift_y, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6], {%7, %8};"
               : : "r"(to), "l"(&map), "r"(channel), "r"(x), "r"(y), "r"(image), "r"(barrier), "h"(uint16_t(shift_x)), "h"(uint16_t(shift_y)) : "memory");
}

// All warps of a group of four give registers back, down to kRegisters per thread, or take
// them, waiting until there are enough.
template <int kRegisters> RT_DEV void rt_release_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(kRegisters));
}
template <int kRegisters> RT_DEV void rt_claim_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(kRegisters));
}
