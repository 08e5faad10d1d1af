// What the threads of a warp do together: shuffles, and matrix fragments element by element.
#include "emulator.h"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace host {

namespace {

struct Lane {
  unsigned char value[32];
  uint32_t address;
  float a[16], b[8];
};
Lane lanes[kMaxWarps][32];

Lane* own_warp() { return lanes[warp()]; }

float f16_value(uint16_t bits) {
  _Float16 x;
  memcpy(&x, &bits, 2);
  return float(x);
}

float f32_value(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

float e4m3_value(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if ((bits & 0x7f) == 0x7f) return NAN;
  const float size = exponent == 0 ? ldexpf(mantissa, -9) : ldexpf(8 + mantissa, exponent - 10);
  return bits & 0x80 ? -size : size;
}

int in_word(Element element) {
  switch (element) {
    case Element::kF16:
    case Element::kBf16: return 2;
    case Element::kTf32: return 1;
    case Element::kS8:
    case Element::kE4m3: return 4;
  }
  return 0;
}

}  // namespace

void unpack(float* to, uint32_t word, Element element) {
  switch (element) {
    case Element::kF16:
      to[0] = f16_value(uint16_t(word));
      to[1] = f16_value(uint16_t(word >> 16));
      return;
    case Element::kBf16:
      to[0] = f32_value(word << 16);
      to[1] = f32_value(word & 0xffff0000u);
      return;
    case Element::kTf32:
      // The nearest value of 10 bits of mantissa, ties away from zero.
      to[0] = f32_value((word + 0x1000u) & ~0x1fffu);
      return;
    case Element::kS8:
    case Element::kE4m3:
      for (int i = 0; i < 4; i++) to[i] = byte_value(uint8_t(word >> i * 8), element);
      return;
  }
}

float half_value(uint16_t bits, Element element) {
  return element == Element::kF16 ? f16_value(bits) : f32_value(uint32_t(bits) << 16);
}

float byte_value(uint8_t bits, Element element) {
  return element == Element::kS8 ? float(int8_t(bits)) : e4m3_value(bits);
}

uint32_t plus_term(uint32_t sum, float term, Element element) {
  if (element == Element::kS8) return sum + uint32_t(int32_t(term));
  const float total = f32_value(sum) + term;
  memcpy(&sum, &total, 4);
  return sum;
}

void exchange(void* value, size_t bytes, int source, Site site) {
  if (bytes > sizeof lanes[0][0].value) fail("shuffle of %zu bytes", bytes);
  if (source < 0 || source >= warp_size()) fail("shuffle from lane %d of %d", source, warp_size());
  memcpy(own_warp()[lane()].value, value, bytes);
  wait_for_warp(Wait::kShuffle, site);
  memcpy(value, own_warp()[source].value, bytes);
  wait_for_warp(Wait::kShuffle, site);
}

void ldmatrix(uint32_t* to, uint32_t row, bool transposed, Site site) {
  if (row % 16 != 0) fail("ldmatrix row at %u", row);
  read_matrix_row(row);
  own_warp()[lane()].address = row;
  wait_for_warp(Wait::kLdmatrix, site);
  const Lane* all = own_warp();
  const int l = lane();
  for (int matrix = 0; matrix < 4; matrix++) {
    uint16_t half[2];
    for (int e = 0; e < 2; e++) {
      const int r = transposed ? l % 4 * 2 + e : l / 4;
      const int c = transposed ? l / 4 : l % 4 * 2 + e;
      memcpy(&half[e], dynamic_shared + all[matrix * 8 + r].address + 2 * c, 2);
    }
    to[matrix] = half[0] | uint32_t(half[1]) << 16;
  }
  if (l == 0) {
    for (int matrix = 0; matrix < 4; matrix++) {
      uint32_t rows[8];
      for (int r = 0; r < 8; r++) rows[r] = all[matrix * 8 + r].address;
      count_conflicts(conflicts.ldmatrix, rows, 8, 16);
    }
  }
  wait_for_warp(Wait::kLdmatrix, site);
}

void stmatrix(uint32_t row, const uint32_t* from, Site site) {
  if (row % 16 != 0) fail("stmatrix row at %u", row);
  own_warp()[lane()].address = row;
  wait_for_warp(Wait::kStmatrix, site);
  const Lane* all = own_warp();
  const int l = lane();
  for (int matrix = 0; matrix < 4; matrix++) {
    write_matrix_word(all[matrix * 8 + l / 4].address + l % 4 * 4, from[matrix]);
  }
  if (l == 0) {
    for (int matrix = 0; matrix < 4; matrix++) {
      uint32_t rows[8];
      for (int r = 0; r < 8; r++) rows[r] = all[matrix * 8 + r].address;
      count_conflicts(conflicts.store, rows, 8, 16);
    }
  }
  wait_for_warp(Wait::kStmatrix, site);
}

void mma(void* sums, const uint32_t* a, const uint32_t* b, Element element, Site site) {
  const int in_word = host::in_word(element);
  auto* const sum = (uint32_t*)sums;
  Lane& own = own_warp()[lane()];
  for (int i = 0; i < 4; i++) unpack(own.a + i * in_word, a[i], element);
  for (int i = 0; i < 2; i++) unpack(own.b + i * in_word, b[i], element);
  wait_for_warp(Wait::kMma, site);
  const Lane* all = own_warp();
  const int l = lane();
  for (int i = 0; i < 4; i++) {
    const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
    // Registers of a: rows, then rows + 8, then both for the upper half of k.
    for (int half = 0; half < 2; half++) {
      for (int quad = 0; quad < 4; quad++) {
        const Lane& from_a = all[row % 8 * 4 + quad];
        const Lane& from_b = all[column * 4 + quad];
        for (int e = 0; e < in_word; e++) {
          sum[i] = plus_term(sum[i], from_a.a[(row / 8 + half * 2) * in_word + e] * from_b.b[half * in_word + e], element);
        }
      }
    }
  }
  wait_for_warp(Wait::kMma, site);
}

// Blocks run one at a time, so that nothing comes between.
unsigned atomic_add(unsigned* to, unsigned value) {
  const unsigned before = *to;
  *to += value;
  return before;
}

}  // namespace host
