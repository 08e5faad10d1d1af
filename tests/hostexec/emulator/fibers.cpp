// One fiber per thread of a block, barriers of the block and of a warp, and deadlocks.
#include "emulator.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__)
// Callee-saved registers go on the stack, and the stack is exchanged. ucontext would make a
// system call for each exchange.
extern "C" void host_switch(void** from, void* to);
asm(R"(
.text
.globl host_switch
host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#else
#include <ucontext.h>
#endif

namespace host {

namespace {

struct Barrier {
  int arrived = 0;
  unsigned generation = 0;
  Wait what = Wait::kBlock;
  Site site = {"", 0};
};

struct Fiber : Thread {
#if defined(__x86_64__)
  void* stack_pointer;
#else
  ucontext_t context;
#endif
  bool done;
  // The counter that has to change, and where the thread waits for it.
  const unsigned* waits_for;
  unsigned seen;
  Wait what;
  Site site;
};

Fiber fibers[kMaxThreads];
Barrier block_barrier, warp_barriers[kMaxWarps];
int alive;
void (*body)();
std::mt19937 random_order(1);

#if defined(__x86_64__)
void* scheduler;
void resume(Fiber& fiber) { host_switch(&scheduler, fiber.stack_pointer); }
void yield() { host_switch(&static_cast<Fiber*>(current)->stack_pointer, scheduler); }
#else
ucontext_t scheduler;
void resume(Fiber& fiber) { swapcontext(&scheduler, &fiber.context); }
void yield() { swapcontext(&static_cast<Fiber*>(current)->context, &scheduler); }
#endif

void entry() {
  body();
  Fiber& own = *static_cast<Fiber*>(current);
  own.done = true;
  alive--;
  yield();
  abort();
}

void prepare(Fiber& fiber, unsigned char* stack) {
#if defined(__x86_64__)
  // As after a call: eight bytes off a multiple of sixteen.
  void** top = (void**)(stack + kStackBytes) - 1;
  *top = nullptr;
  *--top = (void*)entry;
  for (int i = 0; i < 6; i++) *--top = nullptr;
  fiber.stack_pointer = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = &scheduler;
  makecontext(&fiber.context, entry, 0);
#endif
}

const char* name(Wait what) {
  switch (what) {
    case Wait::kBlock: return "barrier of the block";
    case Wait::kWarp: return "barrier of the warp";
    case Wait::kShuffle: return "shuffle";
    case Wait::kLdmatrix: return "ldmatrix";
    case Wait::kStmatrix: return "stmatrix";
    case Wait::kMma: return "mma";
    case Wait::kWgmma: return "wgmma";
    case Wait::kPhase: return "phase of a barrier";
    case Wait::kRegisters: return "registers";
    case Wait::kCluster: return "cluster";
  }
  return "";
}

std::string describe(Wait what, Site site) {
  return std::string(name(what)) + " at " + site.file + ":" + std::to_string(site.line);
}

// All threads of a barrier come from the same place, as the hardware's own barriers want.
void arrive(Barrier& barrier, int needed, Wait what, Site site) {
  if (barrier.arrived == 0) {
    barrier.what = what;
    barrier.site = site;
  } else if (barrier.what != what || barrier.site.line != site.line || strcmp(barrier.site.file, site.file) != 0) {
    fail("thread arrives at %s while others wait at %s", describe(what, site).c_str(),
         describe(barrier.what, barrier.site).c_str());
  }
  if (++barrier.arrived == needed) {
    barrier.arrived = 0;
    barrier.generation++;
    if (what == Wait::kBlock) block_epoch++;
    if (what == Wait::kWarp) warp_epoch[warp()]++;
    return;
  }
  wait_for_change(barrier.generation, what, site);
}

bool can_go_on(const Fiber& fiber) {
  return !fiber.done && (!fiber.waits_for || *fiber.waits_for != fiber.seen);
}

// Which threads wait where, in runs of neighbours.
[[noreturn]] void report_deadlock() {
  std::map<std::string, std::string> places;
  for (int i = 0; i < n_threads;) {
    auto place = [](const Fiber& f) {
      return f.done ? std::string("have ended") : "wait at " + describe(f.what, f.site);
    };
    const std::string own = place(fibers[i]);
    int end = i;
    while (end < n_threads && place(fibers[end]) == own) end++;
    std::string& text = places[own];
    text += (text.empty() ? "threads " : ", ") + std::to_string(i) + "-" + std::to_string(end - 1);
    i = end;
  }
  std::string message;
  for (const auto& [place, threads] : places) message += "\n  " + threads + " " + place;
  current = nullptr;
  fail("deadlock in block %u,%u,%u:%s", block_index.x, block_index.y, block_index.z, message.c_str());
}

// Whether all that is left of a block waits for the others of its cluster.
bool waits_for_cluster() {
  const auto is_done = [](const Fiber& fiber) {
    return fiber.done || (fiber.waits_for && fiber.what == Wait::kCluster && *fiber.waits_for == fiber.seen);
  };
  return alive > 0 && std::all_of(fibers, fibers + n_threads, is_done);
}

void run_block(const Launch& launch) {
  for (int i = 0; i < n_threads; i++) {
    Fiber& fiber = fibers[i];
    const unsigned x = launch.block.x, y = launch.block.y;
    fiber.index = dim3(i % x, i / x % y, i / (x * y));
    fiber.linear = i;
    fiber.done = false;
    fiber.waits_for = nullptr;
    prepare(fiber, stacks + i * kStackBytes);
  }
  block_barrier = Barrier();
  for (Barrier& barrier : warp_barriers) barrier = Barrier();
  alive = n_threads;
  block_epoch++;
  start_block_memory(launch);
  start_block_barriers();
  std::vector<int> order(n_threads);
  for (int i = 0; i < n_threads; i++) order[i] = i;
  while (alive > 0) {
    std::shuffle(order.begin(), order.end(), random_order);
    bool ran = false;
    for (int i : order) {
      if (!can_go_on(fibers[i])) continue;
      current = &fibers[i];
      ran = true;
      resume(fibers[i]);
    }
    current = nullptr;
    // Copies arrive at any time.
    const bool arrives = !ran || random_order() % 3 == 0;
    if (arrives && finish_tile_copy(random_order())) ran = true;
    if (!ran && is_rehearsed() && waits_for_cluster()) {
      keep_announced();
      break;
    }
    if (!ran) report_deadlock();
  }
  end_block_barriers();
  end_block_memory();
}

// Every block once up to where it waits for the others, then as a whole.
void run_cluster(const Launch& launch, const dim3& first) {
  start_cluster(launch.cluster);
  for (Pass pass : {Pass::kUntilAnnounced, Pass::kWhole}) {
    for (int rank = 0; rank < launch.cluster; rank++) {
      block_index = dim3(first.x + unsigned(rank), first.y, first.z);
      start_block_of_cluster(rank, pass);
      run_block(launch);
      if (pass == Pass::kWhole) end_block_of_cluster();
    }
  }
  end_cluster();
}

}  // namespace

Thread* current;
int n_alive() { return alive; }
dim3 block_index, block_dim, grid_dim;
int n_threads;
unsigned char* stacks;
uint32_t block_epoch = 1, warp_epoch[kMaxWarps];

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  if (current) {
    fprintf(stderr, "\n  by thread %d of block %u,%u,%u", current->linear, block_index.x, block_index.y, block_index.z);
  }
  fprintf(stderr, "\n");
  _exit(3);
}

void wait_for_change(const unsigned& counter, Wait what, Site site) {
  Fiber& own = *static_cast<Fiber*>(current);
  own.seen = counter;
  own.waits_for = &counter;
  own.what = what;
  own.site = site;
  yield();
  own.waits_for = nullptr;
}

void give_way() { yield(); }

void wait_block(Site site) { arrive(block_barrier, n_threads, Wait::kBlock, site); }
void wait_warp(Site site) { wait_for_warp(Wait::kWarp, site); }
void wait_for_warp(Wait what, Site site) { arrive(warp_barriers[warp()], warp_size(), what, site); }

void launch(const Launch& launch) {
  if (!stacks) {
    stacks = (unsigned char*)mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (int i = 0; i < kMaxThreads; i++) mprotect(stacks + i * kStackBytes, 4096, PROT_NONE);
  }
  body = launch.body;
  grid_dim = launch.grid;
  block_dim = launch.block;
  n_threads = int(launch.block.x * launch.block.y * launch.block.z);
  if (n_threads < 1 || n_threads > kMaxThreads) fail("%d threads in a block", n_threads);
  start_memory(launch);
  std::vector<dim3> blocks;
  for (unsigned z = 0; z < launch.grid.z; z++)
    for (unsigned y = 0; y < launch.grid.y; y++)
      for (unsigned x = 0; x < launch.grid.x; x += unsigned(launch.cluster)) blocks.push_back(dim3(x, y, z));
  std::shuffle(blocks.begin(), blocks.end(), random_order);
  if (launch.grid.x % unsigned(launch.cluster) != 0) fail("clusters of %d of %u blocks", launch.cluster, launch.grid.x);
  for (const dim3& block : blocks) {
    block_index = block;
    if (launch.cluster > 1) run_cluster(launch, block);
    else run_block(launch);
  }
}

}  // namespace host
