// Barriers with phases in shared memory, copies of tiles that arrive at them at random times,
// and the registers that warps exchange.
#include "emulator.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

namespace host {

namespace {

struct PhaseBarrier {
  uint32_t address;
  int arrivals, pending;
  // Announced and not yet there.
  long bytes;
  // How many have ended.
  unsigned phases;
  bool is_published;
  // Phases of every barrier that those know to have ended who arrived in this phase, and in ended ones.
  std::vector<unsigned> brought, told;
};
std::deque<PhaseBarrier> barriers;
// Phases by barrier and thread: whose end the thread has waited for, and which it knows to have
// ended, since others had waited for them before they arrived where it waited.
std::vector<std::vector<unsigned>> seen, known;

struct TileCopy {
  TensorMap map;
  uint32_t to;
  long at[5];
  int shift[2];
  int barrier;
};
std::vector<TileCopy> in_flight;

int registers[kMaxWarps], free_registers;
unsigned releases;

int number_of(uint32_t address) {
  for (size_t i = 0; i < barriers.size(); i++) {
    if (barriers[i].address == address) return int(i);
  }
  fail("no barrier was initialized at %u of shared memory", address);
}

PhaseBarrier& used(uint32_t address) {
  const int number = number_of(address);
  touch_barrier(address, false);
  return barriers[number];
}

void keep_latest(std::vector<unsigned>& phases, size_t barrier, unsigned ended) {
  if (phases.size() <= barrier) phases.resize(barrier + 1, 0u);
  phases[barrier] = std::max(phases[barrier], ended);
}

void end_phase_if_complete(PhaseBarrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  for (size_t i = 0; i < barrier.brought.size(); i++) keep_latest(barrier.told, i, barrier.brought[i]);
  barrier.phases++;
  barrier.pending = barrier.arrivals;
}

void arrive(PhaseBarrier& barrier) {
  if (barrier.pending == 0) fail("one arrival too many at the barrier at %u", barrier.address);
  barrier.pending--;
  for (size_t i = 0; i < known.size(); i++) keep_latest(barrier.brought, i, known[i][current->linear]);
}

size_t row_bytes(const TensorMap& map) { return size_t(map.tile[0]) * map.element_bytes; }

size_t tile_bytes(const TensorMap& map) { return row_bytes(map) * map.tile[1] * map.tile[2] * map.tile[3] * map.tile[4]; }

// Sixteen bytes go where the number of their row of 128, modulo eight, exchanges them.
uint32_t swizzled(uint32_t address) { return address ^ ((address >> 7 & 7) << 4); }

// The row of channels or of columns at these coordinates of the other axes.
void write_row(const TileCopy& copy, uint32_t to, const long (&at)[4]) {
  const TensorMap& map = copy.map;
  bool is_inside = true;
  long from = 0;
  for (int i = 0; i < 4; i++) {
    is_inside = is_inside && at[i] >= 0 && at[i] < map.dims[i + 1];
    from += at[i] * map.strides[i];
  }
  for (int x = 0; x < map.tile[0]; x++) {
    const long column = copy.at[0] + x;
    unsigned char* place = dynamic_shared + swizzled(to + x * map.element_bytes);
    if (is_inside && column >= 0 && column < map.dims[0]) {
      memcpy(place, map.base + from + column * map.element_bytes, map.element_bytes);
    } else {
      memset(place, 0, map.element_bytes);
    }
  }
}

void check_source(const TensorMap& map) {
  if (uintptr_t(map.base) % 16 != 0) fail("tensor map of an address that is not a multiple of 16");
  size_t reach = size_t(map.dims[0]) * map.element_bytes;
  for (int i = 0; i < 4; i++) {
    if (map.strides[i] % 16 != 0) fail("tensor map with strides that are not multiples of 16");
    reach += size_t(map.dims[i + 1] - 1) * map.strides[i];
  }
  if (row_bytes(map) != 128) fail("tiles with rows of %zu bytes", row_bytes(map));
  operand_bytes(map.base, reach);
}

void write_tile(const TileCopy& copy) {
  uint32_t to = copy.to;
  const int (&tile)[5] = copy.map.tile;
  for (int v = 0; v < tile[4]; v++) {
    for (int w = 0; w < tile[3]; w++) {
      for (int z = 0; z < tile[2]; z++) {
        for (int y = 0; y < tile[1]; y++, to += row_bytes(copy.map)) {
          write_row(copy, to, {copy.at[1] + y, copy.at[2] + z, copy.at[3] + w, copy.at[4] + v});
        }
      }
    }
  }
}

// Pixels along x, then along y, then of the next image.
void write_pixels(const TileCopy& copy) {
  const TensorMap& map = copy.map;
  uint32_t to = copy.to;
  long x = copy.at[1], y = copy.at[2], image = copy.at[3];
  for (int i = 0; i < map.tile[1]; i++, to += row_bytes(map)) {
    write_row(copy, to, {x + copy.shift[0], y + copy.shift[1], image, 0});
    x += map.steps[0];
    if (x < map.dims[1] + map.upper[0]) continue;
    x = map.lower[0];
    y += map.steps[1];
    if (y < map.dims[2] + map.upper[1]) continue;
    y = map.lower[1];
    image++;
  }
}

void begin_copy(const TileCopy& copy) {
  begin_read(copy.map.base);
  if (!used(barriers[copy.barrier].address).is_published) fail("a copy arrives at a barrier that is not published");
  if (copy.to % 128 != 0) fail("copy of a tile to %u", copy.to);
  check_source(copy.map);
  begin_copy_to(copy.to, tile_bytes(copy.map));
  in_flight.push_back(copy);
}

}  // namespace

void start_block_barriers() {
  barriers.clear();
  seen.clear();
  known.clear();
  in_flight.clear();
  releases = 0;
  free_registers = 0;
  std::fill(registers, registers + kMaxWarps, std::min(255, 65536 / n_threads) / 8 * 8);
  start_block_wgmma();
}

void end_block_barriers() {
  if (!in_flight.empty()) fail("the block ends with %zu copies of tiles in flight", in_flight.size());
  end_block_wgmma();
}

unsigned phases_seen(int barrier) { return seen[barrier][current->linear]; }

void barrier_init(uint32_t barrier, int arrivals) {
  touch_barrier(barrier, true);
  for (const PhaseBarrier& other : barriers) {
    if (other.address == barrier) fail("the barrier at %u is initialized twice", barrier);
  }
  barriers.push_back({barrier, arrivals, arrivals, 0, 0, false, {}, {}});
  seen.emplace_back(n_threads, 0u);
  known.emplace_back(n_threads, 0u);
}

void barrier_publish() {
  for (PhaseBarrier& barrier : barriers) barrier.is_published = true;
}

void barrier_arrive(uint32_t barrier) {
  PhaseBarrier& own = used(barrier);
  arrive(own);
  end_phase_if_complete(own);
  give_way();
}

void barrier_expect(uint32_t barrier, int bytes) {
  PhaseBarrier& own = used(barrier);
  own.bytes += bytes;
  arrive(own);
  end_phase_if_complete(own);
}

void barrier_wait(uint32_t barrier, int parity, Site site) {
  const int number = number_of(barrier);
  used(barrier);
  const unsigned& phases = barriers[number].phases;
  // A parity names the phase after the last one that the thread knows of, or its own next one, of which it
  // was told before it waited for it; with another one it could take an earlier phase for its own.
  const unsigned waited = seen[number][current->linear], last = known[number][current->linear];
  const bool is_next = int(last & 1) == parity, is_first = last == 0 && parity == 1;
  const bool is_told = int(waited & 1) == parity && last == waited + 1 && phases == last;
  if (!is_next && !is_first && !is_told) fail("a wait for a phase of the barrier at %u, before which the thread knows of no end", barrier);
  while (int(phases & 1) == parity) wait_for_change(phases, Wait::kPhase, site);
  seen[number][current->linear] = phases;
  known[number][current->linear] = std::max(last, phases);
  const std::vector<unsigned>& told = barriers[number].told;
  for (size_t i = 0; i < told.size(); i++) known[i][current->linear] = std::max(known[i][current->linear], told[i]);
}

void copy_tile(uint32_t to, const TensorMap& map, int x, int y, int z, uint32_t barrier) {
  if (map.is_pixels) fail("pixels copied as a tile");
  begin_copy({map, to, {x, y, z, 0, 0}, {0, 0}, number_of(barrier)});
}

void copy_box(uint32_t to, const TensorMap& map, const int (&at)[5], uint32_t barrier) {
  if (map.is_pixels) fail("pixels copied as a tile");
  begin_copy({map, to, {at[0], at[1], at[2], at[3], at[4]}, {0, 0}, number_of(barrier)});
}

void copy_pixels(uint32_t to, const TensorMap& map, const int (&at)[4], const int (&shift)[2], uint32_t barrier) {
  if (!map.is_pixels) fail("a tile copied as pixels");
  for (int i = 0; i < 2; i++) {
    if (shift[i] < 0 || shift[i] > 255) fail("pixels shifted by %d", shift[i]);
    if ((at[i + 1] - map.lower[i]) % map.steps[i] != 0) fail("a pixel at %d, between the steps of its box", at[i + 1]);
  }
  begin_copy({map, to, {at[0], at[1], at[2], at[3], 0}, {shift[0], shift[1]}, number_of(barrier)});
}

bool finish_tile_copy(unsigned random) {
  if (in_flight.empty()) return false;
  const size_t drawn = random % in_flight.size();
  const TileCopy copy = in_flight[drawn];
  in_flight.erase(in_flight.begin() + long(drawn));
  const TensorMap& map = copy.map;
  if (map.is_pixels) write_pixels(copy);
  else write_tile(copy);
  PhaseBarrier& barrier = barriers[copy.barrier];
  end_copy_to(copy.to, tile_bytes(map), copy.barrier, barrier.phases + 1);
  barrier.bytes -= long(tile_bytes(map));
  end_phase_if_complete(barrier);
  return true;
}

void exchange_registers(int wanted, Site site) {
  if (wanted % 8 != 0 || wanted < 24 || wanted > 256) fail("%d registers per thread", wanted);
  wait_for_warp(Wait::kRegisters, site);
  if (lane() == 0) {
    int& own = registers[warp()];
    while (free_registers < (wanted - own) * 32) wait_for_change(releases, Wait::kRegisters, site);
    free_registers -= (wanted - own) * 32;
    if (wanted < own) releases++;
    own = wanted;
  }
  wait_for_warp(Wait::kRegisters, site);
}

}  // namespace host
