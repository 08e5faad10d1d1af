// What a kernel compiled by g++ sees of the emulator. Blocks run one at a time, in random
// order; a block's threads are fibers, resumed in random order after every barrier.
#pragma once

#include <cstddef>
#include <cstdint>

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace host {

// Where a thread waits, for messages.
struct Site {
  const char* file;
  int line;
};

struct Thread {
  dim3 index;
  int linear;
};

extern Thread* current;
extern dim3 block_index, block_dim, grid_dim;
extern unsigned char* dynamic_shared;

// Barriers and collectives (fibers.cpp, collective.cpp).
void wait_block(Site site);
void wait_warp(Site site);
void exchange(void* value, size_t bytes, int source, Site site);
enum class Element { kF16, kBf16, kTf32, kS8, kE4m3 };
void ldmatrix(uint32_t* to, uint32_t row, bool transposed, Site site);
void stmatrix(uint32_t row, const uint32_t* from, Site site);
// Sums are int32_t for kS8 and float for all others.
void mma(void* sum, const uint32_t* a, const uint32_t* b, Element element, Site site);
unsigned atomic_add(unsigned* to, unsigned value);
inline int lane() { return current->linear & 31; }

// Shared memory by its own addresses, and copies into it (memory.cpp).
uint32_t shared_word(uint32_t address);
// A thread touches operands only after it, but for weights.
void await_predecessors();
void async_copy(uint32_t to, const void* from, bool valid);
void async_commit();
void async_wait(int open);

// Barriers with phases, copies of tiles, and registers (mbarrier.cpp).
struct TensorMap {
  const unsigned char* base;
  int element_bytes;
  // Innermost first; strides in bytes of all axes but that one.
  long dims[5], strides[4];
  int tile[5];
  // Of a box of pixels along axes 1 and 2; the end counts from the image's own.
  bool is_pixels;
  int lower[2], upper[2], steps[2];
};
void barrier_init(uint32_t barrier, int arrivals);
void barrier_publish();
void barrier_arrive(uint32_t barrier);
void barrier_expect(uint32_t barrier, int bytes);
void barrier_wait(uint32_t barrier, int parity, Site site);
void copy_tile(uint32_t to, const TensorMap& map, int x, int y, int z, uint32_t barrier);
void copy_box(uint32_t to, const TensorMap& map, const int (&at)[5], uint32_t barrier);
void copy_pixels(uint32_t to, const TensorMap& map, const int (&at)[4], const int (&shift)[2], uint32_t barrier);
// Registers per thread that a warp has from now on.
void exchange_registers(int wanted, Site site);

// Matrix instructions of groups of warps (wgmma.cpp).
struct Wgmma {
  Element element;
  int columns;
  bool across_a, across_b;
  uint64_t a, b;
  bool keep;
};
void wgmma_begin(Site site);
// `rows` are the four registers of a where it is not in shared memory.
void wgmma(void* sums, const Wgmma& instruction, const uint32_t* rows, Site site);
void wgmma_commit(Site site);
void wgmma_wait(int open, Site site);

// Shared memory of other blocks of a cluster (cluster.cpp).
void cluster_announce(Site site);
void cluster_wait(Site site);
void peer_load(void* to, size_t bytes, uint32_t address, int block);

// Running a case (main.cpp).

// A pointer argument of any element type.
struct Any {
  void* pointer;
  template <class T> operator T*() const { return (T*)pointer; }
};

struct Launch {
  dim3 grid, block;
  // Neighbouring blocks that read each other's shared memory.
  int cluster;
  unsigned shared_bytes;
  // Bytes of shared memory that are told apart.
  int granule;
  // What memory holds before it is written.
  int poison;
  void (*body)();
};

void begin(int number, const char* label);
Any input(size_t bytes, bool is_weight);
Any output(size_t bytes, int poison);
Any workspace(size_t bytes);
void launch(const Launch& launch);
void write_output(Any data, size_t bytes);
void finish();
int run(int argc, char** argv, void (*const* cases)(), int n_cases);

}  // namespace host
