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

enum class Wait { kBlock, kWarp, kShuffle, kLdmatrix, kMma };
void wait_for_warp(Wait what, Site site);

// Threads see each other's writes after a barrier of the block or of their warp. Both
// counters only grow, over all blocks and launches.
extern uint32_t block_epoch, warp_epoch[kMaxWarps];

void start_memory(const Launch& launch);
void start_block_memory(const Launch& launch);
void end_block_memory();
void read_matrix_row(uint32_t address);
void add_operand(const void* begin, size_t bytes, bool writable);
void forget_operands();

// How often shared memory was accessed more often than its banks allow.
struct Conflicts {
  long ldmatrix, async_copy, word, load, store;
};
extern Conflicts conflicts;
void count_conflicts(long& count, const uint32_t* addresses, int n, int bytes);

}  // namespace host
