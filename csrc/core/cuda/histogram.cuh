// Counting digits of keys: shared counters for a block, tables for the grid.
#pragma once

#include <cuda_runtime.h>

#include "../key.h"
#include "sums.cuh"

namespace cgsv::cuda {

using Count = unsigned long long;

// The leading digit of a key, the exponent and what follows it: 8192 counters, 32 KB.
constexpr int first_digit_bits = 13;
constexpr int first_digits = 1 << first_digit_bits;

// Lists of prefixes, by a hash of all bits: rounded values have low bits in common, layers high ones.
constexpr int head_bits = 11, heads = 1 << head_bits;
template <class K>
__device__ unsigned head_of(K prefix) {
  const unsigned folded = unsigned(prefix) ^ unsigned(uint64_t(prefix) >> 32);
  return folded * 2654435769u >> (32 - head_bits);
}

// add(bin, how many) for the lanes with `counted`; the whole warp calls. Lanes that share a bin add
// up first: otherwise vectors of few distinct values would queue at one address.
template <class F>
__device__ inline void count(unsigned bin, bool counted, const F& add) {
  constexpr int crowd = 4;  // fewer lanes than this may queue
  unsigned left = __ballot_sync(all_lanes, counted);
  while (left != 0) {
    const int leader = __ffs(int(left)) - 1;
    const unsigned theirs = __shfl_sync(all_lanes, bin, leader);
    const unsigned same = __ballot_sync(all_lanes, counted && bin == theirs);
    const int sharing = __popc(same);
    if (sharing < crowd) break;
    if (int(threadIdx.x) % warp_size == leader) add(theirs, unsigned(sharing));
    counted = counted && bin != theirs;
    left &= ~same;
  }
  if (counted) add(bin, 1u);
}

// counters[bin] += 1 for every lane with `counted`.
__device__ inline void count(unsigned* counters, unsigned bin, bool counted) {
  count(bin, counted, [=](unsigned b, unsigned many) { atomicAdd(counters + b, many); });
}

__device__ inline void clear(unsigned* counters, int size) {
  for (int b = int(threadIdx.x); b < size; b += int(blockDim.x)) counters[b] = 0;
}

// Adds a block's counters to the grid's table. Each is the same thread's as in `clear`, which may follow
// without a barrier.
__device__ inline void flush(const unsigned* counters, int size, Count* table) {
  for (int b = int(threadIdx.x); b < size; b += int(blockDim.x)) {
    if (counters[b] != 0) atomicAdd(table + b, Count(counters[b]));
  }
}

}  // namespace cgsv::cuda
