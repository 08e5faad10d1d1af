// Runs cases: reads their inputs from files, launches them, and writes their outputs.
#include "emulator.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace host {

namespace {

FILE *in, *out;
// A kernel that runs longer than this hangs.
constexpr int kSeconds = 60;

// Memory that ends at a page nobody may touch.
unsigned char* allocate(size_t bytes, int fill, Role role) {
  const size_t page = 4096;
  const size_t padded = (bytes + 15) / 16 * 16;
  const size_t pages = (padded + page - 1) / page;
  auto* base = (unsigned char*)mmap(nullptr, (pages + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(base + page, pages * page, PROT_READ | PROT_WRITE);
  unsigned char* start = base + (pages + 1) * page - padded;
  memset(start, fill, padded);
  add_operand(start, bytes, role);
  return start;
}

FILE* open(const char* stem, int number, const char* mode) {
  FILE* file = fopen((stem + std::to_string(number)).c_str(), mode);
  if (!file) fail("no file `%s%d`", stem, number);
  return file;
}

}  // namespace

void begin(int number, const char* label) {
  fprintf(stderr, "running %s\n", label);
  forget_operands();
  conflicts = Conflicts();
  in = open("in", number, "rb");
  out = open("out", number, "wb");
  alarm(kSeconds);
}

Any input(size_t bytes, bool is_weight) {
  unsigned char* data = allocate(bytes, 0, is_weight ? Role::kWeight : Role::kInput);
  if (fread(data, 1, bytes, in) != bytes) fail("too few bytes of inputs");
  return {data};
}
Any output(size_t bytes, int poison) { return {allocate(bytes, poison, Role::kWritable)}; }
Any workspace(size_t bytes) { return {allocate(bytes, 0, Role::kWritable)}; }

void write_output(Any data, size_t bytes) { fwrite(data.pointer, 1, bytes, out); }

// The outputs are followed by the counts of bank conflicts.
void finish() {
  const int64_t counts[] = {conflicts.ldmatrix, conflicts.async_copy, conflicts.word, conflicts.load, conflicts.store};
  fwrite(counts, 1, sizeof counts, out);
  fclose(in);
  fclose(out);
}

// All cases, or the one whose number is the argument.
int run(int argc, char** argv, void (*const* cases)(), int n_cases) {
  if (argc > 1) {
    cases[atoi(argv[1])]();
    return 0;
  }
  for (int i = 0; i < n_cases; i++) cases[i]();
  return 0;
}

}  // namespace host
