// What the emulator's own files share.
#pragma once

#include "host.h"

namespace host {

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

constexpr int kMaxThreads = 1024;
constexpr int kMaxWarps = kMaxThreads / 32;
constexpr size_t kStackBytes = 128 * 1024;

extern unsigned char* stacks;
extern int n_threads;
inline int warp() { return current->linear / 32; }
inline int warp_size() { return n_threads - warp() * 32 < 32 ? n_threads - warp() * 32 : 32; }

enum class Wait { kBlock, kWarp, kShuffle, kLdmatrix, kStmatrix, kMma, kWgmma, kPhase, kRegisters, kCluster };
void wait_for_warp(Wait what, Site site);
// Until the counter has another value; others run meanwhile.
void wait_for_change(const unsigned& counter, Wait what, Site site);
// Others run once.
void give_way();

// Threads see each other's writes after a barrier of the block or of their warp. Both
// counters only grow, over all blocks and launches.
extern uint32_t block_epoch, warp_epoch[kMaxWarps];

void start_memory(const Launch& launch);
void start_block_memory(const Launch& launch);
void end_block_memory();
void read_matrix_row(uint32_t address);
void write_matrix_word(uint32_t address, uint32_t word);
uint16_t read_matrix_half(uint32_t address);
uint8_t read_matrix_byte(uint32_t address);
// Bytes of a copy to shared memory: on their way, and there for threads that have seen that
// many phases of the barrier end.
void begin_copy_to(uint32_t address, size_t bytes);
void end_copy_to(uint32_t address, size_t bytes, int barrier, unsigned phases);
void touch_barrier(uint32_t address, bool write);
const unsigned char* operand_bytes(const void* from, size_t bytes);

// Barriers with phases, copies of tiles, and registers (mbarrier.cpp).
void start_block_barriers();
void end_block_barriers();
// Whether one was in flight, drawn by `random`.
bool finish_tile_copy(unsigned random);
// Phases of a barrier that the current thread has seen end.
unsigned phases_seen(int barrier);

// Matrix instructions of groups of warps (wgmma.cpp).
void start_block_wgmma();
void end_block_wgmma();
float half_value(uint16_t bits, Element element);
// The elements of one register of a fragment, the first in its low bits.
void unpack(float* to, uint32_t word, Element element);
float byte_value(uint8_t bits, Element element);
// `sum` plus a term that is exact where sums are integers.
uint32_t plus_term(uint32_t sum, float term, Element element);

// Clusters (cluster.cpp), whose blocks run one at a time like all others: each once up to where it waits for the
// others' announcements, and once more as a whole.
enum class Pass { kUntilAnnounced, kWhole };
void start_cluster(int blocks);
void start_block_of_cluster(int rank, Pass pass);
// Whether the current thread's block runs only up to the first wait, before which nothing is stored in operands.
bool is_rehearsed();
// Those of a block's threads that have not ended wait for the others of the cluster: keeps what they announced.
void keep_announced();
void end_block_of_cluster();
void end_cluster();
// How many threads have not ended.
int n_alive();
// The current block's shared memory, and whether the bytes have been written.
bool is_written(uint32_t address, size_t bytes);
size_t dynamic_bytes();

// What an operand is to a kernel: weights are never written, and can be read at any time.
enum class Role { kWeight, kInput, kWritable };
void add_operand(const void* begin, size_t bytes, Role role);
// The current thread begins to have an operand read.
void begin_read(const void* operand);
void forget_operands();

// How often shared memory was accessed more often than its banks allow.
struct Conflicts {
  long ldmatrix, async_copy, word, load, store;
};
extern Conflicts conflicts;
void count_conflicts(long& count, const uint32_t* addresses, int n, int bytes);

}  // namespace host
