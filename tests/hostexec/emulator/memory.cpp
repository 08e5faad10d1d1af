// Every access of a kernel to memory. Kernels are compiled with -fsanitize=thread, whose calls
// come here instead of to its library: operands and shared memory have exact bounds, shared
// memory is written before it is read, and what two threads access, one of them writing, has
// a barrier between.
#include "emulator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

extern "C" {
extern char __executable_start, _end;
// Static shared memory of all kernels of the program; absent where none has any.
extern unsigned char __start_rt_shared __attribute__((weak)), __stop_rt_shared __attribute__((weak));
}

namespace host {

namespace {

constexpr size_t kLargest = 228 * 1024, kZone = 64 * 1024;
alignas(1024) unsigned char dynamic_zone[kZone + kLargest + kZone];

constexpr int16_t kNobody = -1, kSeveral = -2;

// What happened to some neighbouring bytes of shared memory.
struct Cell {
  uint32_t written, written_warp, read, read_warp;
  int16_t writer, reader, reader_warp;
  bool in_flight;
  // The barrier at which the bytes arrived, if by a copy of a tile, and how many of its phases
  // a thread has to have seen end.
  int barrier;
  unsigned phases;
};

struct Region {
  unsigned char* begin;
  size_t bytes;
  std::vector<Cell> cells;
};
Region dynamic_region, static_region;
int granule;
uint32_t block_start;

struct Operand {
  uintptr_t begin, end;
  Role role;
};
std::vector<Operand> operands;
bool has_awaited[kMaxThreads];

struct AsyncCopy {
  uint32_t to;
  const void* from;
};
struct AsyncQueue {
  std::vector<AsyncCopy> open;
  std::vector<std::vector<AsyncCopy>> groups;
};
AsyncQueue queues[kMaxThreads];

// What the threads of one block did with dynamic shared memory, by instruction.
struct Access {
  uint32_t address;
  int bytes;
};
enum class Path { kAsyncCopy, kWord, kLoad, kStore };
using Instruction = std::pair<Path, const void*>;
std::map<Instruction, std::vector<Access>> trace[kMaxThreads];
bool traced;

void remember(Path path, const void* instruction, uint32_t address, int bytes) {
  if (traced) trace[current->linear][{path, instruction}].push_back({address, bytes});
}

const char* where(const Region& region) { return &region == &dynamic_region ? "dynamic" : "static"; }

[[noreturn]] void fail_at(const Region& region, size_t offset, const char* what, int other) {
  fail("%s shared memory, byte %zu: %s thread %d", where(region), offset, what, other);
}

// Whether an event of another thread comes before what the current one does.
bool is_ordered(uint32_t epoch, uint32_t own_warp_epoch, int other_warp) {
  if (epoch < block_epoch) return true;
  return other_warp == warp() && own_warp_epoch < warp_epoch[warp()];
}

void note_read(Region& region, size_t offset, Cell& cell, bool may_be_poison) {
  const int16_t own = int16_t(current->linear);
  if (cell.in_flight) fail_at(region, offset, "read before the copy has arrived, begun by", cell.writer);
  const bool is_written = cell.written >= block_start;
  if (is_written && cell.barrier >= 0) {
    if (phases_seen(cell.barrier) < cell.phases) fail_at(region, offset, "read without a wait for the copy of", cell.writer);
    return;
  }
  if (!is_written && !may_be_poison) fail("%s shared memory, byte %zu: read but never written", where(region), offset);
  if (is_written && cell.writer != own && !is_ordered(cell.written, cell.written_warp, cell.writer / 32)) {
    fail_at(region, offset, "read without a barrier after the write of", cell.writer);
  }
  const uint32_t now_warp = warp_epoch[warp()];
  const bool same_time = cell.read == block_epoch && (cell.reader_warp != warp() || cell.read_warp == now_warp);
  if (same_time && cell.reader != own) {
    cell.reader = kSeveral;
    if (cell.reader_warp != warp()) cell.reader_warp = kSeveral;
  } else {
    cell.reader = own;
    cell.reader_warp = int16_t(warp());
  }
  cell.read = block_epoch;
  cell.read_warp = now_warp;
}

void note_write(Region& region, size_t offset, Cell& cell) {
  const int16_t own = int16_t(current->linear);
  if (cell.in_flight) fail_at(region, offset, "written while a copy is in flight, begun by", cell.writer);
  const bool is_new = cell.written < block_start;
  if (!is_new && cell.writer != own && !is_ordered(cell.written, cell.written_warp, cell.writer / 32)) {
    fail_at(region, offset, "written without a barrier after the write of", cell.writer);
  }
  if (cell.read >= block_start && cell.reader != own && !is_ordered(cell.read, cell.read_warp, cell.reader_warp)) {
    fail_at(region, offset, "written without a barrier after the read of", cell.reader);
  }
  cell.writer = own;
  cell.written = block_epoch;
  cell.written_warp = warp_epoch[warp()];
  cell.barrier = -1;
}

void access(Region& region, size_t offset, size_t bytes, bool write, bool may_be_poison = false) {
  if (offset + bytes > region.bytes) {
    fail("%zu bytes at %ld of %zu bytes of %s shared memory", bytes, long(offset), region.bytes, where(region));
  }
  const size_t last = (offset + bytes - 1) / granule;
  for (size_t i = offset / granule; i <= last; i++) {
    if (write) note_write(region, i * granule, region.cells[i]);
    else note_read(region, i * granule, region.cells[i], may_be_poison);
  }
}

// What earlier kernels may write, a thread touches only after it has waited for them.
void check_awaited(bool is_weight) {
  if (!is_weight && !has_awaited[current->linear]) fail("operand touched before the kernel awaits its predecessors");
}

const Operand* operand_at(uintptr_t address, size_t bytes) {
  for (const Operand& operand : operands) {
    if (address >= operand.begin && address + bytes <= operand.end) return &operand;
  }
  return nullptr;
}

bool is_operand(uintptr_t address, size_t bytes, bool write) {
  const Operand* const operand = operand_at(address, bytes);
  if (!operand) return false;
  if (write && is_rehearsed()) fail("an operand is written before the cluster waits");
  if (write && operand->role != Role::kWritable) fail("an input is written, %zu bytes at %zu", bytes, size_t(address - operand->begin));
  check_awaited(operand->role == Role::kWeight);
  return true;
}

[[noreturn]] void report_outside(uintptr_t address, size_t bytes, bool write) {
  long nearest = 0;
  size_t extent = 0;
  for (const Operand& operand : operands) {
    const long distance = long(address) - long(operand.begin);
    if (extent == 0 || std::abs(distance) < std::abs(nearest)) nearest = distance, extent = operand.end - operand.begin;
  }
  fail("%s of %zu bytes outside all memory, at %ld of an operand of %zu", write ? "write" : "read", bytes, nearest, extent);
}

void touch(const void* pointer, size_t bytes, bool write, const void* instruction) {
  if (!current) return;
  const uintptr_t address = uintptr_t(pointer);
  if (address - uintptr_t(stacks) < kMaxThreads * kStackBytes) return;
  const bool is_power = (bytes & (bytes - 1)) == 0;
  if (is_power && address % bytes != 0) fail("access of %zu bytes at an address that is not a multiple", bytes);
  const uintptr_t offset = address - uintptr_t(dynamic_zone);
  if (offset < sizeof dynamic_zone) {
    access(dynamic_region, offset - kZone, bytes, write);
    remember(write ? Path::kStore : Path::kLoad, instruction, uint32_t(offset - kZone), int(bytes));
    return;
  }
  if (address - uintptr_t(static_region.begin) < static_region.bytes) {
    access(static_region, address - uintptr_t(static_region.begin), bytes, write);
    return;
  }
  if (address - uintptr_t(&__executable_start) < size_t(&_end - &__executable_start)) return;
  if (!is_operand(address, bytes, write)) report_outside(address, bytes, write);
}

// The k-th time an instruction runs is the same time for all lanes of a warp.
void count_traced() {
  for (int first = 0; first < n_threads; first += 32) {
    const int n = std::min(32, n_threads - first);
    for (const auto& [instruction, accesses] : trace[first]) {
      for (size_t k = 0; k < accesses.size(); k++) {
        const int bytes = accesses[k].bytes, at_once = 32 / std::max(1, bytes / 4);
        std::vector<uint32_t> addresses;
        for (int lane = 0; lane < n; lane++) {
          const auto own = trace[first + lane].find(instruction);
          if (own != trace[first + lane].end() && k < own->second.size()) addresses.push_back(own->second[k].address);
          if (int(addresses.size()) == at_once || lane + 1 == n) {
            long* const counts[] = {&conflicts.async_copy, &conflicts.word, &conflicts.load, &conflicts.store};
            count_conflicts(*counts[int(instruction.first)], addresses.data(), int(addresses.size()), bytes);
            addresses.clear();
          }
        }
      }
    }
  }
}

}  // namespace

unsigned char* dynamic_shared = dynamic_zone + kZone;
Conflicts conflicts;

// Adds how many passes beyond the first the banks, four bytes wide each, need.
void count_conflicts(long& count, const uint32_t* addresses, int n, int bytes) {
  std::vector<uint32_t> words[32];
  size_t most = 1;
  for (int i = 0; i < n; i++) {
    for (uint32_t word = addresses[i] / 4; word < (addresses[i] + bytes + 3) / 4; word++) {
      auto& bank = words[word % 32];
      if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
      most = std::max(most, bank.size());
    }
  }
  count += long(most) - 1;
}

void start_memory(const Launch& launch) {
  granule = launch.granule;
  if (launch.shared_bytes > kLargest) fail("%u bytes of shared memory", launch.shared_bytes);
  dynamic_region.begin = dynamic_shared;
  dynamic_region.bytes = launch.shared_bytes;
  static_region.begin = &__start_rt_shared;
  static_region.bytes = size_t(&__stop_rt_shared - &__start_rt_shared);
  for (Region* region : {&dynamic_region, &static_region}) {
    region->cells.assign(region->bytes / granule + 1, Cell{0, 0, 0, 0, kNobody, kNobody, kNobody, false, -1, 0});
  }
  traced = true;
}

void start_block_memory(const Launch& launch) {
  block_start = block_epoch;
  std::fill(has_awaited, has_awaited + n_threads, false);
  for (Region* region : {&dynamic_region, &static_region}) memset(region->begin, launch.poison, region->bytes);
}

void end_block_memory() {
  for (int i = 0; i < n_threads; i++) {
    size_t n_open = queues[i].open.size();
    for (const auto& group : queues[i].groups) n_open += group.size();
    if (n_open > 0) fail("thread %d ends with %zu copies that nobody waited for", i, n_open);
    queues[i].groups.clear();
  }
  if (!traced) return;
  count_traced();
  for (int i = 0; i < n_threads; i++) trace[i].clear();
  traced = false;
}

// A matrix may have rows or columns that nothing is done with; their poison stays in sums of
// its own row or column.
void read_matrix_row(uint32_t address) { access(dynamic_region, address, 16, false, true); }

void write_matrix_word(uint32_t address, uint32_t word) {
  access(dynamic_region, address, 4, true);
  memcpy(dynamic_shared + address, &word, 4);
}

uint16_t read_matrix_half(uint32_t address) {
  access(dynamic_region, address, 2, false);
  uint16_t half;
  memcpy(&half, dynamic_shared + address, 2);
  return half;
}

uint8_t read_matrix_byte(uint32_t address) {
  access(dynamic_region, address, 1, false);
  return dynamic_shared[address];
}

void begin_copy_to(uint32_t address, size_t bytes) {
  if (address + bytes > dynamic_region.bytes) {
    fail("copy of %zu bytes to %u of %zu bytes of shared memory", bytes, address, dynamic_region.bytes);
  }
  for (size_t at = address; at < address + bytes; at += granule) {
    Cell& cell = dynamic_region.cells[at / granule];
    if (cell.in_flight) fail_at(dynamic_region, at, "written while a copy is in flight, begun by", cell.writer);
    cell.in_flight = true;
    cell.writer = int16_t(current->linear);
  }
  memset(dynamic_shared + address, 0xff, bytes);
}

void end_copy_to(uint32_t address, size_t bytes, int barrier, unsigned phases) {
  for (size_t at = address; at < address + bytes; at += granule) {
    Cell& cell = dynamic_region.cells[at / granule];
    cell.in_flight = false;
    cell.written = block_epoch;
    cell.barrier = barrier;
    cell.phases = phases;
  }
}

size_t dynamic_bytes() { return dynamic_region.bytes; }

bool is_written(uint32_t address, size_t bytes) {
  for (size_t at = address; at < address + bytes; at += granule) {
    const Cell& cell = dynamic_region.cells[at / granule];
    if (cell.in_flight || cell.written < block_start) return false;
  }
  return true;
}

void touch_barrier(uint32_t address, bool write) {
  if (address % 8 != 0) fail("barrier at %u", address);
  access(dynamic_region, address, 8, write);
}

void begin_read(const void* operand) {
  const Operand* const own = operand_at(uintptr_t(operand), 1);
  if (!own) report_outside(uintptr_t(operand), 1, false);
  check_awaited(own->role == Role::kWeight);
}

const unsigned char* operand_bytes(const void* from, size_t bytes) {
  if (!operand_at(uintptr_t(from), bytes)) report_outside(uintptr_t(from), bytes, false);
  return (const unsigned char*)from;
}

uint32_t shared_word(uint32_t address) {
  if (address % 4 != 0) fail("word of shared memory at %u", address);
  access(dynamic_region, address, 4, false);
  remember(Path::kWord, __builtin_return_address(0), address, 4);
  uint32_t word;
  memcpy(&word, dynamic_shared + address, 4);
  return word;
}

// Bytes arrive when they are waited for, and are not-a-number until then.
void async_copy(uint32_t to, const void* from, bool valid) {
  if (to % 16 != 0) fail("copy of 16 bytes to %u", to);
  if (valid && uintptr_t(from) % 16 != 0) fail("copy of 16 bytes from an address that is not a multiple");
  if (valid && !is_operand(uintptr_t(from), 16, false)) report_outside(uintptr_t(from), 16, false);
  access(dynamic_region, to, 16, true);
  remember(Path::kAsyncCopy, __builtin_return_address(0), to, 16);
  for (int i = 0; i < 16; i += granule) dynamic_region.cells[(to + i) / granule].in_flight = true;
  memset(dynamic_shared + to, 0xff, 16);
  queues[current->linear].open.push_back({to, valid ? from : nullptr});
}

void async_commit() {
  AsyncQueue& queue = queues[current->linear];
  queue.groups.push_back(queue.open);
  queue.open.clear();
}

void async_wait(int open) {
  auto& groups = queues[current->linear].groups;
  while (int(groups.size()) > open) {
    for (const AsyncCopy& copy : groups.front()) {
      if (copy.from) memcpy(dynamic_shared + copy.to, copy.from, 16);
      else memset(dynamic_shared + copy.to, 0, 16);
      for (int i = 0; i < 16; i += granule) {
        Cell& cell = dynamic_region.cells[(copy.to + i) / granule];
        cell.in_flight = false;
        cell.written = block_epoch;
        cell.written_warp = warp_epoch[warp()];
      }
    }
    groups.erase(groups.begin());
  }
}

void await_predecessors() { has_awaited[current->linear] = true; }

void add_operand(const void* begin, size_t bytes, Role role) {
  operands.push_back({uintptr_t(begin), uintptr_t(begin) + bytes, role});
}
void forget_operands() { operands.clear(); }

}  // namespace host

// The calls of code compiled with -fsanitize=thread.
#define RT_HOOKS(bytes)                                                                                     \
  void __tsan_read##bytes(void* p) { host::touch(p, bytes, false, __builtin_return_address(0)); }           \
  void __tsan_write##bytes(void* p) { host::touch(p, bytes, true, __builtin_return_address(0)); }           \
  void __tsan_unaligned_read##bytes(void* p) { host::touch(p, bytes, false, __builtin_return_address(0)); } \
  void __tsan_unaligned_write##bytes(void* p) { host::touch(p, bytes, true, __builtin_return_address(0)); }
extern "C" {
RT_HOOKS(1)
RT_HOOKS(2)
RT_HOOKS(4)
RT_HOOKS(8)
RT_HOOKS(16)
void __tsan_read_range(void* p, size_t bytes) { host::touch(p, bytes, false, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t bytes) { host::touch(p, bytes, true, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
