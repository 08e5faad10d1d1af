// Clusters of blocks. They run one after the other, and each twice: first up to where it waits for the others, which
// keeps what it has in shared memory, then as a whole, reading what was kept of the others. Nothing is stored in
// operands before that wait, so that the first run leaves no trace.
#include "emulator.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace host {

namespace {

struct Block {
  // Shared memory when the block announced it, which of it was written, and which the others have read.
  std::vector<unsigned char> announced;
  std::vector<bool> written, read;
  // And when it waits for them to have read.
  std::vector<unsigned char> at_end;
};
std::vector<Block> blocks;
int rank;
Pass pass;
// Waits of the current block that have ended, how many of its threads have announced since, and for every thread
// which wait its announcement is for.
unsigned waits;
int announcements;
constexpr int kNone = -1;
std::vector<int> announced_for;

std::vector<unsigned char> shared_memory() { return {dynamic_shared, dynamic_shared + dynamic_bytes()}; }

}  // namespace

void start_cluster(int n) { blocks.assign(size_t(n), Block()); }

void start_block_of_cluster(int own_rank, Pass own_pass) {
  rank = own_rank;
  pass = own_pass;
  waits = 0;
  announcements = 0;
  announced_for.assign(size_t(n_threads), kNone);
}

bool is_rehearsed() { return blocks.size() > 1 && pass == Pass::kUntilAnnounced; }

void keep_announced() {
  Block& own = blocks[size_t(rank)];
  own.announced = shared_memory();
  own.written.assign(own.announced.size(), false);
  own.read.assign(own.announced.size(), false);
  for (size_t at = 0; at < own.written.size(); at += 4) {
    const bool is = is_written(uint32_t(at), 4);
    for (size_t i = at; i < std::min(at + 4, own.written.size()); i++) own.written[i] = is;
  }
}

void cluster_announce(Site) {
  if (blocks.size() < 2) fail("a block of no cluster announces what it has written");
  if (announced_for[size_t(current->linear)] != kNone) fail("a thread announces twice without a wait");
  announced_for[size_t(current->linear)] = int(waits);
  announcements++;
}

void cluster_wait(Site site) {
  int& own = announced_for[size_t(current->linear)];
  if (own == kNone) fail("a thread waits for its cluster without an announcement");
  const unsigned before = unsigned(own);
  own = kNone;
  // The others of the block announce, or end.
  while (waits == before && announcements < n_alive()) give_way();
  if (is_rehearsed()) wait_for_change(waits, Wait::kCluster, site);
  if (waits == before) {
    waits++;
    announcements = 0;
    block_epoch++;
    if (waits == 2) blocks[size_t(rank)].at_end = shared_memory();
    if (waits > 2) fail("a cluster waits more than twice");
  }
}

void peer_load(void* to, size_t bytes, uint32_t address, int block) {
  if (waits != 1) fail("shared memory of another block read %s", waits == 0 ? "before it is announced" : "after its end");
  if (block < 0 || size_t(block) >= blocks.size()) fail("block %d of a cluster of %zu", block, blocks.size());
  if (address % bytes != 0) fail("%zu bytes of another block at %u", bytes, address);
  Block& peer = blocks[size_t(block)];
  if (address + bytes > peer.announced.size()) fail("%zu bytes at %u of another block's shared memory", bytes, address);
  for (size_t i = address; i < address + bytes; i++) {
    if (!peer.written[i]) fail("byte %zu of another block's shared memory: read but never written", i);
    peer.read[i] = true;
  }
  memcpy(to, peer.announced.data() + address, bytes);
}

void end_block_of_cluster() {
  if (waits != 2) fail("a block of a cluster ends after %u of two waits", waits);
}

// What others read stays as it was announced until all have read.
void end_cluster() {
  for (const Block& block : blocks) {
    for (size_t i = 0; i < block.read.size(); i++) {
      if (block.read[i] && block.at_end[i] != block.announced[i]) fail("byte %zu is overwritten while other blocks read it", i);
    }
  }
  blocks.clear();
}

}  // namespace host
