// The inner loops of the wire. Sets of positions are words of 64 bits, the first position lowest.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cgsv::cpu {

// Positions that are looked at together: their words and values stay in the L1 cache.
constexpr int64_t wire_tile = 4096;
constexpr int64_t wire_words = wire_tile / 64;
// Room for a tile's places, and for those that kernels write in vain.
constexpr int64_t wire_places = wire_tile + 8;

// By the bytes of a value, 2 (bfloat16) or 4 (float32).
struct WireValueKernels {
  // Bit j of words: whether any bit of value j is set, for count ≤ wire_tile values.
  void (*nonzero)(const void* values, int64_t count, uint64_t* words);
  // The values at the set positions, one after the other.
  void (*gather)(const void* values, const uint64_t* words, int64_t n, std::byte* out);
  // elements[places[k]] = values[k], or elements[k], for values at any address.
  void (*scatter)(const std::byte* values, const uint16_t* places, int64_t n, float* elements);
  void (*widen)(const std::byte* values, int64_t n, float* elements);
};

struct WireKernels {
  // Bit j of words: whether key_j > threshold (signed), for count ≤ wire_tile elements of an aggregate
  // in f64 or f32, by DType.
  void (*above[2])(const void* u, int64_t count, int64_t threshold, uint64_t* words);
  int64_t (*count)(const uint64_t* words, int64_t n);
  // Of `bits`, those at the positions set in `open`, close together; how many.
  int64_t (*pack)(const uint64_t* bits, const uint64_t* open, int64_t n, uint64_t* packed);
  // places = the positions that are set, and how many.
  int64_t (*places)(const uint64_t* words, int64_t n, uint16_t* places);
  // The inverse of pack: packed bits, from bit `first` of so many bytes at any address, belong to the
  // positions set in `open`, which must not be more than there are bits left. places = where they are
  // set; those leave `open`. Returns how many.
  int64_t (*spread)(const std::byte* packed, int64_t bytes, int64_t first, uint64_t* open,
                    int64_t n, uint16_t* places);
  WireValueKernels two, four;
};

}  // namespace cgsv::cpu
