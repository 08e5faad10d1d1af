// Matrix instructions of groups of four warps. They read shared memory when they are waited for,
// as late as the hardware may; until then the sums are not-a-number.
#include "emulator.h"

#include <cstring>
#include <deque>
#include <vector>

namespace host {

namespace {

constexpr int kDepthBytes = 32, kRowBytes = 128, kChunkRows = 8;

struct Sums {
  void* place;
  // Bits of floats or integers.
  std::vector<uint32_t> value;
  int n_open;
};

struct Instruction {
  Wgmma what;
  void* place;
  // Where the instruction has the rows of a in registers, those of this thread's warp.
  bool in_registers;
  uint32_t registers[32][4];
};

struct ThreadState {
  std::vector<Sums> sums;
  std::vector<Instruction> open;
  std::deque<std::vector<Instruction>> groups;
  // Whether rt_wgmma_begin came after the thread could touch its sums.
  bool has_begun;
  size_t n_issued;
};
ThreadState states[kMaxThreads];
// What the four warps of a group execute, which is the same.
std::vector<Wgmma> issued[kMaxWarps / 4];

ThreadState& own_state() { return states[current->linear]; }

Sums& sums_at(ThreadState& state, void* place) {
  for (Sums& sums : state.sums) {
    if (sums.place == place) return sums;
  }
  state.sums.push_back({place, {}, 0});
  return state.sums.back();
}

bool is_same(const Wgmma& a, const Wgmma& b) {
  return a.element == b.element && a.columns == b.columns && a.across_a == b.across_a && a.across_b == b.across_b &&
         a.a == b.a && a.b == b.b && a.keep == b.keep;
}

void check_group(const Wgmma& what, size_t number) {
  std::vector<Wgmma>& own = issued[current->linear / 128];
  if (number == own.size()) own.push_back(what);
  if (!is_same(own[number], what)) fail("warps of a group execute different matrix instructions");
}

int bytes_of(Element element) { return element == Element::kS8 || element == Element::kE4m3 ? 1 : 2; }

// An element of a tile that a descriptor describes.
float element_at(uint64_t matrix, bool across, Element element, int row, int k) {
  const uint32_t start = uint32_t(matrix & 0x3fff) << 4;
  const uint32_t leading = uint32_t(matrix >> 16 & 0x3fff) << 4, stride = uint32_t(matrix >> 32 & 0x3fff) << 4;
  if (matrix >> 62 == 0) {
    constexpr int kChunkBytes = 16;
    if (across) fail("a matrix of chunks that is transposed");
    const int byte = k * bytes_of(element);
    const uint32_t place = row / kChunkRows * stride + row % kChunkRows * kChunkBytes + byte / kChunkBytes * leading + byte % kChunkBytes;
    return bytes_of(element) == 1 ? byte_value(read_matrix_byte(start + place), element) : half_value(read_matrix_half(start + place), element);
  }
  if (matrix >> 62 != 1) fail("a matrix that is not swizzled over 128 bytes");
  const auto swizzled = [&](uint32_t place) { return (start + place) ^ ((start + place) >> 7 & 7) << 4; };
  if (bytes_of(element) == 1) {
    if (across) fail("an instruction that transposes bytes");
    return byte_value(read_matrix_byte(swizzled(row / kChunkRows * stride + row % kChunkRows * kRowBytes + k)), element);
  }
  const int in_row = kRowBytes / 2;
  const uint32_t place = across ? row / in_row * leading + row % in_row * 2 + k / kChunkRows * stride + k % kChunkRows * kRowBytes
                                : row / kChunkRows * stride + row % kChunkRows * kRowBytes + k * 2;
  return half_value(read_matrix_half(swizzled(place)), element);
}

// Element k of row `row` or row + 8 of 16-bit fragments: registers are rows, rows + 8, and both for
// the upper half of k.
float in_fragment(const Instruction& instruction, int row, int half, int k) {
  float pair[2];
  unpack(pair, instruction.registers[row * 4 + k % 8 / 2][half + k / 8 * 2], instruction.what.element);
  return pair[k % 2];
}

// Sums of 8-bit floats keep about 14 bits between instructions, rounded towards zero; here exactly so many.
uint32_t as_kept(uint32_t sum, Element element) {
  constexpr uint32_t kLostBits = 24 - 14;
  return element == Element::kE4m3 ? sum >> kLostBits << kLostBits : sum;
}

void execute(ThreadState& state, const Instruction& instruction) {
  const Wgmma& what = instruction.what;
  Sums& sums = sums_at(state, instruction.place);
  const int l = lane(), first_row = warp() % 4 * 16 + l / 4;
  float a[2][kDepthBytes], b[kDepthBytes];
  const int depth = kDepthBytes / bytes_of(what.element);
  for (int half = 0; half < 2; half++) {
    for (int k = 0; k < depth; k++) {
      a[half][k] = instruction.in_registers ? in_fragment(instruction, l / 4, half, k)
                                            : element_at(what.a, what.across_a, what.element, first_row + half * 8, k);
    }
  }
  for (int i = 0; i < what.columns / 4; i++) {
    const int column = i / 2 * 8 + l % 4 * 2 + i % 2;
    for (int k = 0; k < depth; k++) b[k] = element_at(what.b, what.across_b, what.element, column, k);
    for (int half = 0; half < 2; half++) {
      uint32_t& sum = sums.value[i / 2 * 4 + half * 2 + i % 2];
      if (!what.keep) sum = 0;
      for (int k = 0; k < depth; k++) sum = plus_term(sum, a[half][k] * b[k], what.element);
      sum = as_kept(sum, what.element);
    }
  }
  if (--sums.n_open == 0) {
    memcpy(sums.place, sums.value.data(), sums.value.size() * 4);
    state.has_begun = false;
  }
}

}  // namespace

void start_block_wgmma() {
  for (ThreadState& state : states) state = ThreadState();
  for (auto& group : issued) group.clear();
}

void end_block_wgmma() {
  for (int i = 0; i < n_threads; i++) {
    if (!states[i].groups.empty() || !states[i].open.empty()) {
      fail("thread %d ends with matrix instructions that nobody waited for", i);
    }
    if (states[i].n_issued != issued[i / 128].size()) fail("thread %d misses matrix instructions of its group", i);
  }
}

void wgmma_begin(Site site) {
  wait_for_warp(Wait::kWgmma, site);
  own_state().has_begun = true;
}

void wgmma(void* place, const Wgmma& what, const uint32_t* rows, Site site) {
  static uint32_t shown[kMaxThreads][4];
  if (rows != nullptr) memcpy(shown[current->linear], rows, sizeof shown[0]);
  wait_for_warp(Wait::kWgmma, site);
  ThreadState& state = own_state();
  check_group(what, state.n_issued++);
  Sums& sums = sums_at(state, place);
  const size_t n = size_t(what.columns / 2);
  if (sums.n_open++ == 0) {
    if (!state.has_begun) fail("a matrix instruction on sums that were touched since rt_wgmma_begin");
    sums.value.assign((uint32_t*)place, (uint32_t*)place + n);
    memset(place, 0xff, n * 4);
  }
  state.open.push_back({what, place, rows != nullptr, {}});
  memcpy(state.open.back().registers, shown[warp() * 32], sizeof state.open.back().registers);
  // Nobody shows others before all have looked.
  wait_for_warp(Wait::kWgmma, site);
}

void wgmma_commit(Site site) {
  wait_for_warp(Wait::kWgmma, site);
  ThreadState& state = own_state();
  state.groups.push_back(state.open);
  state.open.clear();
}

void wgmma_wait(int open, Site site) {
  ThreadState& state = own_state();
  while (int(state.groups.size()) > open) {
    for (const Instruction& instruction : state.groups.front()) execute(state, instruction);
    state.groups.pop_front();
  }
  wait_for_warp(Wait::kWgmma, site);
}

}  // namespace host
