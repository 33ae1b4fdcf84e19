// Step 6: where the q_i largest of |u| end, exactly, for all agents at once.
//
// A radix selection on the keys (the bits of |u|), from the top digit down, in one cooperative launch:
//
//   count   the next digit of the entries that share a target's prefix, in shared memory, then in a
//           table of the whole grid
//   place   each target: the digit in which its rank falls, and its rank among those that have it
//
// and when no digit is left, the prefix is the magnitude, and the rank counts its ties by index:
//
//   ties    counted by block, along with the last digit; then in slices of the block's columns where
//           the rank falls
//   locate  the entry within the slice
//
// Reads D elements of the aggregate for every digit but the one that came with the aggregation: twice
// in float32 up to 16 agents (9 bits at a time), more often for more agents, whose digits are shorter
// since they share the counters. The ties take up to N·S / blocks times D more, mostly from the cache: for
// every target the columns that one block has of its segment. A block adds its counters, 32 KB at most, to
// the grid's table for every digit, and keeps those of the last one. Only counts are added across threads,
// so nothing depends on order.
#include "select.cuh"

#include <cooperative_groups.h>

namespace cgsv::cuda {
namespace {

constexpr int threads = 512, warps = threads / warp_size;
constexpr int64_t most_agents = 4096;  // in one launch
// Columns worth a block of their own.
constexpr int64_t least_columns = 4096;
// Short: in the end a warp goes through a slice, 32 columns at a time, and waits for each 32.
constexpr int64_t slice_columns = 256, most_slices = 1 << 22;

// An agent's quota in one segment, on its way to an entry.
template <class A>
struct Target {
  int64_t rank;   // among the entries that share the prefix, from 1; 0: keeps nothing
  Key<A> prefix;  // the key's digits so far
  int32_t slot;   // the first agent with this prefix in this segment, whose counters they share;
                  // in the end the block among whose columns the entry is
};

// How keys are cut into digits.
struct Digits {
  int table_bits;  // counters a segment has
  int first_bits, bits;
  int levels;  // after the first
  int key_bits;

  // What a prefix of so many levels lacks of the key.
  CGSV_HOST_DEVICE int shift(int level) const {
    const int left = key_bits - first_bits - level * bits;
    return left > 0 ? left : 0;
  }
  CGSV_HOST_DEVICE int bits_of(int level) const { return shift(level - 1) - shift(level); }
};

template <class A>
struct Selecting {
  const A* u;
  int64_t d;
  int alignment;
  Parts segments;
  int64_t n;
  const int64_t* quotas;
  bool counted;  // the first digit is in tables[0]

  Digits digits;
  int64_t share;           // columns of a block
  int64_t slices, slice;   // of a block's columns, and their columns
  Count* tables[2];        // by turns; each one for every segment
  unsigned* pieces;        // a block's counters for its part of a segment, at the last digit
  Target<A>* targets[2];   // by turns, agent by agent, in these by segment
  unsigned* slice_counts;  // by target

  A* magnitude;
  int64_t* last_index;

  __device__ int64_t at(int64_t i, int64_t l) const { return i * segments.count + l; }
  __device__ Count* table(int level, int64_t l) const {
    return tables[level % 2] + (l << digits.table_bits);
  }
  // From piece to piece block or segment rises and neither falls, so block + l is unique.
  __device__ unsigned* piece(int64_t block, int64_t l) const {
    return pieces + ((block + l) << digits.table_bits);
  }
  __device__ int64_t quota(int64_t i, int64_t l) const {
    return max(int64_t(0), min(quotas[at(i, l)], segments.size(l)));
  }
};

// What a block shares.
struct Shared {
  unsigned* counters;     // 1 << table_bits
  unsigned* heads;        // per hash of a prefix, 1 + the first slot in its list
  unsigned short* nexts;  // per slot, 1 + the next one
  void* prefixes;         // per slot, if they fit
  __device__ explicit Shared(const Digits& digits)
      : counters(reinterpret_cast<unsigned*>(dynamic_shared)),
        heads(counters + (1 << digits.table_bits)),
        nexts(reinterpret_cast<unsigned short*>(heads + cuda::heads)),
        prefixes(heads + cuda::heads + most_cached / 2) {}
  static constexpr int most_cached = 256;
  static int64_t bytes(const Digits& digits, int64_t n) {
    return (int64_t(1) << digits.table_bits) * 4 + cuda::heads * 4 +
           (n <= most_cached ? most_cached * 10 : n * 2);
  }
};

// f(segment, begin, end) for the parts of segments among this block's columns.
template <class A, class F>
__device__ void for_each_piece(const Selecting<A>& s, const F& f) {
  int64_t begin = blockIdx.x * s.share;
  const int64_t end = min(s.d, begin + s.share);
  for (int64_t l = begin < end ? s.segments.of(begin) : 0; begin < end; ++l) {
    const int64_t piece_end = min(end, s.segments.end(l));
    if (begin < piece_end) f(l, begin, piece_end);
    begin = piece_end;
  }
}

// f(keys of a whole pack) where all of a warp's columns are in the piece, else g(key, present) one by one.
template <class A, class F, class G>
__device__ void for_each_pack(const Selecting<A>& s, int64_t begin, int64_t end, const F& f,
                              const G& g) {
  constexpr int columns = Pack<A>::columns, packs = 3, tile = packs * threads * columns;
  int64_t first = begin / columns * columns;
  for (; first < end; first += tile) {
    if (first >= begin && first + tile <= end && s.alignment == 16) {
      Pack<A> pack[packs];
      const uint4* from = reinterpret_cast<const uint4*>(s.u + first) + threadIdx.x;
#pragma unroll
      for (int p = 0; p < packs; ++p) pack[p].bits = from[p * threads];
#pragma unroll
      for (int p = 0; p < packs; ++p) f(pack[p]);
    } else {
#pragma unroll 1
      for (int p = 0; p < packs; ++p) {
        const int64_t j = first + (p * threads + int(threadIdx.x)) * columns;
        const Pack<A> pack = load_pack(s.u + j, s.alignment, int(min(end - j, int64_t(columns))));
#pragma unroll
        for (int k = 0; k < columns; ++k) g(key_of(pack[k]), j + k >= begin && j + k < end);
      }
    }
  }
}

// f(key, present) for all columns of a piece, by the whole block; whole warps call f.
template <class A, class F>
__device__ void for_each_key(const Selecting<A>& s, int64_t begin, int64_t end, const F& f) {
  constexpr int columns = Pack<A>::columns, packs = 2;
  for (int64_t first = begin / columns * columns; first < end; first += packs * threads * columns) {
    Pack<A> pack[packs];
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const int64_t j = first + (p * threads + int(threadIdx.x)) * columns;
      pack[p] = load_pack(s.u + j, s.alignment, int(min(end - j, int64_t(columns))));
    }
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const int64_t j = first + (p * threads + int(threadIdx.x)) * columns;
#pragma unroll
      for (int k = 0; k < columns; ++k) f(key_of(pack[p][k]), j + k >= begin && j + k < end);
    }
  }
}

__device__ inline void clear_tables(Count* table, int64_t size) {  // by the grid
  for (int64_t b = blockIdx.x * int64_t(threads) + threadIdx.x; b < size;
       b += int64_t(gridDim.x) * threads) {
    table[b] = 0;
  }
}

// ------------------------------------------------------------------------------------------ count

template <class A>
__device__ void count_first_digit(const Selecting<A>& s) {
  const Shared shared(s.digits);
  const int size = 1 << s.digits.first_bits, shift = s.digits.shift(0);
  for_each_piece(s, [&](int64_t l, int64_t begin, int64_t end) {
    clear(shared.counters, size);
    __syncthreads();
    for_each_key(s, begin, end, [&](Key<A> key, bool present) {
      count(shared.counters, unsigned(key >> shift), present);
    });
    __syncthreads();
    flush(shared.counters, size, s.table(0, l));
  });
}

template <class A>
__device__ void count_digit(const Selecting<A>& s, int level) {
  const Shared shared(s.digits);
  const int shift = s.digits.shift(level), bits = s.digits.bits_of(level);
  const int size = int(s.n) << bits;
  const Key<A> mask = (Key<A>(1) << bits) - 1;
  const Target<A>* targets = s.targets[(level - 1) % 2];

  for_each_piece(s, [&](int64_t l, int64_t begin, int64_t end) {
    clear(shared.counters, size);
    clear(shared.heads, heads);
    __syncthreads();
    for (int i = int(threadIdx.x); i < s.n; i += threads) {
      const Target<A>& target = targets[s.at(i, l)];
      if (target.rank == 0 || target.slot != i) continue;
      const unsigned next = atomicExch(&shared.heads[head_of(target.prefix)], unsigned(i + 1));
      shared.nexts[i] = (unsigned short)(next);
      if (s.n <= Shared::most_cached) static_cast<Key<A>*>(shared.prefixes)[i] = target.prefix;
    }
    __syncthreads();
    const auto* prefixes = static_cast<const Key<A>*>(shared.prefixes);
    const bool cached = s.n <= Shared::most_cached;
    const auto find_slot = [&](Key<A> prefix) {
      unsigned slot = shared.heads[head_of(prefix)];
      while (slot != 0 &&
             (cached ? prefixes[slot - 1] : targets[s.at(slot - 1, l)].prefix) != prefix)
        slot = shared.nexts[slot - 1];
      return slot;
    };
    const auto digit = [&](Key<A> key, unsigned slot) {
      return ((slot - 1) << bits) | unsigned((key >> shift) & mask);
    };
    const auto one = [&](Key<A> key, bool present) {
      const unsigned slot = present ? find_slot(key >> shift >> bits) : 0;
      count(shared.counters, digit(key, slot), slot != 0);
    };
    for_each_pack(
        s, begin, end,
        [&](const Pack<A>& pack) {
          constexpr int columns = Pack<A>::columns;
          const unsigned own = shared.heads[head_of(Key<A>(key_of(pack[0]) >> shift >> bits))];
          const unsigned theirs = __shfl_sync(all_lanes, own, 0);
          if (__popc(__ballot_sync(all_lanes, own != 0 && own == theirs)) >= 8) {
#pragma unroll
            for (int k = 0; k < columns; ++k) one(key_of(pack[k]), true);
          } else {
#pragma unroll
            for (int k = 0; k < columns; ++k) {
              const Key<A> key = key_of(pack[k]), prefix = key >> shift >> bits;
              if (shared.heads[head_of(prefix)] == 0) continue;
              const unsigned slot = find_slot(prefix);
              if (slot != 0) atomicAdd(shared.counters + digit(key, slot), 1u);
            }
          }
        },
        one);
    __syncthreads();
    flush(shared.counters, size, s.table(level, l));
    if (level == s.digits.levels) {
      unsigned* piece = s.piece(blockIdx.x, l);
      for (int b = int(threadIdx.x); b < size; b += threads) piece[b] = shared.counters[b];
    }
  });
}

// ------------------------------------------------------------------------------------------ place

struct Place {
  int64_t position;  // of a counter
  int64_t before;    // the sum of those in front of it
  int64_t count;
};

// The first of `size` counters at which their sum reaches the rank, by a warp, and 32 parts at a time.
template <class F>
__device__ Place find(int64_t size, int64_t rank, const F& counter) {
  const int lane = int(threadIdx.x) % warp_size;
  Place place = {0, 0, 0};
  for (int64_t width = size;;) {
    const int64_t each = (width + warp_size - 1) / warp_size;
    int64_t sum = 0;
    for (int64_t k = lane * each; k < min(width, (lane + 1) * each); ++k) {
      sum += counter(place.position + k);
    }
    const long long through = warp_scan(sum);
    const unsigned reached = __ballot_sync(all_lanes, place.before + through >= rank);
    const int there = reached ? __ffs(int(reached)) - 1 : warp_size - 1;
    place.before += __shfl_sync(all_lanes, through - sum, there);
    place.count = __shfl_sync(all_lanes, (long long)(sum), there);
    place.position += there * each;
    if (each == 1) return place;
    width = min(each, size - place.position);
  }
}

// Moves agent i's target on to the digit in which its rank falls. parent(k) is agent k's rank if its
// prefix so far is the same, else 0.
template <class A, class F>
__device__ Target<A> advance(const Selecting<A>& s, Key<A> prefix, int bits, int64_t rank,
                             const Place& place, const F& parent) {
  const int lane = int(threadIdx.x) % warp_size;
  Target<A> target;
  target.rank = rank - place.before;
  // Counters are looked through from the greatest digit down.
  target.prefix = prefix << bits | Key<A>((int64_t(1) << bits) - 1 - place.position);
  target.slot = 0;
  for (int first = 0; first < s.n; first += warp_size) {
    const int k = first + lane;
    const int64_t other = k < s.n ? parent(k) : 0;
    const unsigned same =
        __ballot_sync(all_lanes, other > place.before && other <= place.before + place.count);
    if (same == 0) continue;
    target.slot = first + __ffs(int(same)) - 1;
    break;
  }
  return target;
}

// Blocks share out the agents of every segment.
template <class A>
__device__ void place_first_digit(const Selecting<A>& s) {
  Count* through =
      reinterpret_cast<Count*>(dynamic_shared);  // sums of groups, from the greatest on
  const int warp = int(threadIdx.x) / warp_size, lane = int(threadIdx.x) % warp_size;
  const int64_t size = int64_t(1) << s.digits.first_bits;
  const int64_t group = max(int64_t(1), size / threads), groups = size / group;
  const int64_t parts =
      max(int64_t(1), min(gridDim.x / s.segments.count, (s.n + warps - 1) / warps));

  for (int64_t unit = blockIdx.x; unit < s.segments.count * parts; unit += gridDim.x) {
    const int64_t l = unit / parts, part = unit % parts;
    const Count* table = s.table(0, l);
    const auto counter = [&](int64_t position) { return __ldcg(table + size - 1 - position); };
    Count sum = 0;
    for (int64_t k = 0; int64_t(threadIdx.x) < groups && k < group; ++k) {
      sum += counter(threadIdx.x * group + k);
    }
    through[threadIdx.x] = sum;
    __syncthreads();
    // Each warp sums what the earlier ones hold.
    Count before = 0;
    for (int k = lane; k < warp * warp_size; k += warp_size) before += through[k];
    const Count sum_through =
        Count(warp_scan(int64_t(sum))) +
        Count(__shfl_sync(all_lanes, warp_scan(int64_t(before)), warp_size - 1));
    __syncthreads();
    through[threadIdx.x] = sum_through;
    __syncthreads();

    for (int64_t i = part * warps + warp; i < s.n; i += parts * warps) {
      const int64_t rank = s.quota(i, l), t = s.at(i, l);
      if (rank == 0) {
        if (lane == 0) {
          s.targets[0][t] = {0, 0, 0};
          s.magnitude[t] = A(INFINITY);
          s.last_index[t] = -1;
        }
        continue;
      }
      // The group, by halving; then the counter in it.
      int64_t low = 0, high = groups - 1;
      while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (int64_t(through[middle]) >= rank) {
          high = middle;
        } else {
          low = middle + 1;
        }
      }
      const int64_t passed = low > 0 ? int64_t(through[low - 1]) : 0;
      Place place = find(group, rank - passed, [&](int64_t position) {
        return int64_t(counter(low * group + position));
      });
      place.position += low * group;
      place.before += passed;
      const Target<A> target =
          advance<A>(s, 0, s.digits.first_bits, rank, place, [&](int k) { return s.quota(k, l); });
      if (lane == 0) s.targets[0][t] = target;
    }
    __syncthreads();
  }
}

// Where the rank falls among the blocks that a segment lies in, by ties with the last digit's counter.
template <class A>
__device__ Place find_block(const Selecting<A>& s, int64_t l, int64_t entry, int64_t rank) {
  const int64_t first = s.segments.begin(l) / s.share, last = (s.segments.end(l) - 1) / s.share;
  Place place = find(last - first + 1, rank, [&](int64_t position) {
    return int64_t(__ldcg(s.piece(first + position, l) + entry));
  });
  place.position += first;
  return place;
}

template <class A>
__device__ A magnitude_of(Key<A> key) {
  if (key > KeyOf<A>::infinity) return A(NAN);
  A magnitude;
  memcpy(&magnitude, &key, sizeof(key));
  return magnitude;
}

// f(agent, segment, target) for every target that keeps anything, a warp each.
template <class A, class F>
__device__ void for_each_target(const Selecting<A>& s, int level, const F& f) {
  const int64_t all_warps = int64_t(gridDim.x) * warps;
  const int64_t count = s.n * s.segments.count;
  for (int64_t t = blockIdx.x * int64_t(warps) + threadIdx.x / warp_size; t < count;
       t += all_warps) {
    f(t / s.segments.count, t % s.segments.count, s.targets[level % 2][t]);
  }
}

template <class A>
__device__ void place_digit(const Selecting<A>& s, int level) {
  const int lane = int(threadIdx.x) % warp_size, bits = s.digits.bits_of(level);
  const Target<A>* before = s.targets[(level - 1) % 2];
  for_each_target(s, level - 1, [&](int64_t i, int64_t l, Target<A> target) {
    const int64_t t = s.at(i, l);
    if (target.rank != 0) {
      const int64_t last = (int64_t(1) << bits) - 1, counters = int64_t(target.slot) << bits;
      const Count* table = s.table(level, l) + counters;
      const Place place = find(last + 1, target.rank, [&](int64_t position) {
        return int64_t(__ldcg(table + last - position));
      });
      const int32_t slot = target.slot;
      target = advance<A>(s, target.prefix, bits, target.rank, place, [&](int k) {
        const Target<A>& other = before[s.at(k, l)];
        return other.slot == slot ? other.rank : 0;
      });
      if (level == s.digits.levels) {
        const Place block = find_block(s, l, counters + last - place.position, target.rank);
        target.rank -= block.before;
        target.slot = int32_t(block.position);
        if (lane == 0) s.magnitude[t] = magnitude_of<A>(target.prefix);
      }
    }
    if (lane == 0) s.targets[level % 2][t] = target;
  });
}

// ------------------------------------------------------------------------------------- ties, locate

struct Span {
  int64_t begin, end;
};
template <class A>
__device__ Span slice_of(const Selecting<A>& s, int64_t l, const Target<A>& target, int64_t slice) {
  const int64_t block_begin = max(s.segments.begin(l), target.slot * s.share);
  const int64_t block_end = min(s.segments.end(l), (target.slot + 1) * s.share);
  const int64_t begin = min(block_end, block_begin + slice * s.slice);
  return {begin, min(block_end, begin + s.slice)};
}

template <class A>
__device__ void count_ties(const Selecting<A>& s) {
  const int lane = int(threadIdx.x) % warp_size;
  const int64_t all_warps = int64_t(gridDim.x) * warps;
  const int64_t tasks = s.n * s.segments.count * s.slices;
  const Target<A>* targets = s.targets[s.digits.levels % 2];
  for (int64_t task = blockIdx.x * int64_t(warps) + threadIdx.x / warp_size; task < tasks;
       task += all_warps) {
    const int64_t t = task / s.slices;
    const Target<A> target = targets[t];
    if (target.rank == 0) continue;
    const Span span = slice_of(s, t % s.segments.count, target, task % s.slices);
    int64_t ties = 0;
#pragma unroll 8
    for (int64_t j = span.begin + lane; j < span.end; j += warp_size) {
      ties += key_of(s.u[j]) == target.prefix;
    }
    ties = __shfl_sync(all_lanes, (long long)(warp_scan(ties)), warp_size - 1);
    if (lane == 0) s.slice_counts[task] = unsigned(ties);
  }
}

template <class A>
__device__ void locate(const Selecting<A>& s) {
  const int lane = int(threadIdx.x) % warp_size;
  for_each_target(s, s.digits.levels, [&](int64_t i, int64_t l, const Target<A>& target) {
    if (target.rank == 0) return;
    const int64_t t = s.at(i, l);
    const Place slice = find(s.slices, target.rank, [&](int64_t position) {
      return int64_t(__ldcg(s.slice_counts + t * s.slices + position));
    });
    const Span span = slice_of(s, l, target, slice.position);
    int64_t rank = target.rank - slice.before;
    for (int64_t first = span.begin; first < span.end; first += warp_size) {
      const int64_t j = first + lane;
      unsigned ties = __ballot_sync(all_lanes, j < span.end && key_of(s.u[j]) == target.prefix);
      if (__popc(ties) < rank) {
        rank -= __popc(ties);
        continue;
      }
      for (; rank > 1; --rank) ties &= ties - 1;
      if (lane == 0) s.last_index[t] = first + __ffs(int(ties)) - 1;
      break;
    }
  });
}

template <class A>
__global__ void __launch_bounds__(threads, sizeof(A) == 4 ? 2 : 1) select_kernel(Selecting<A> s) {
  const auto grid = cooperative_groups::this_grid();
  const int64_t size = s.segments.count << s.digits.table_bits;
  clear_tables(s.tables[1], size);
  if (!s.counted) {
    clear_tables(s.tables[0], size);
    grid.sync();
    count_first_digit(s);
    grid.sync();
  }
  place_first_digit(s);
  for (int level = 1; level <= s.digits.levels; ++level) {
    grid.sync();
    if (level < s.digits.levels) clear_tables(s.tables[(level + 1) % 2], size);
    count_digit(s, level);
    grid.sync();
    place_digit(s, level);
  }
  grid.sync();
  count_ties(s);
  grid.sync();
  locate(s);
}

int log2_of(int64_t x) { return x <= 1 ? 0 : 1 + log2_of(x / 2); }

Digits digits_for(int64_t n, int64_t segments, int key_bits) {
  constexpr int64_t most_counters = 1 << 21;  // of all segments, 16 MB
  const int least = 1 + log2_of(2 * n - 1);   // two for each agent
  Digits digits;
  digits.table_bits =
      std::max(least, std::min(first_digit_bits, log2_of(most_counters / segments)));
  digits.first_bits = digits.table_bits;
  digits.key_bits = key_bits;
  const int left = key_bits - digits.first_bits, most = digits.table_bits - (least - 1);
  digits.levels = int(ceil_div(left, most));
  digits.bits = int(ceil_div(left, digits.levels));
  return digits;
}

// Cuts the work of a launch, for up to most_agents agents.
template <class A>
cudaError_t divide(Selecting<A>& s, int64_t* shared, int64_t* blocks) {
  const int64_t targets = s.n * s.segments.count;
  s.digits = digits_for(s.n, s.segments.count, KeyOf<A>::bits);
  *shared = Shared::bytes(s.digits, s.n);
  CGSV_TRY(resident_blocks(select_kernel<A>, threads, *shared, blocks));
  *blocks = std::min(*blocks, std::max(ceil_div(s.d, least_columns), ceil_div(targets, warps)));
  s.share = std::max<int64_t>(1, ceil_div(s.d, *blocks * 4)) * 4;
  s.slice =
      std::max(slice_columns, round_up(ceil_div(s.share * targets, most_slices), slice_columns));
  s.slices = ceil_div(s.share, s.slice);
  return cudaSuccess;
}

template <class A>
void reserve(Selecting<A>& s, int64_t blocks, Scratch& scratch) {
  const int64_t segments = s.segments.count, targets = s.n * segments;
  const int64_t counters = int64_t(1) << s.digits.table_bits;
  scratch.reserve(&s.tables[1], segments * counters);
  if (!s.counted) scratch.reserve(&s.tables[0], segments * counters);
  scratch.reserve(&s.pieces, (blocks + segments) * counters);
  scratch.reserve(&s.targets[0], targets);
  scratch.reserve(&s.targets[1], targets);
  scratch.reserve(&s.slice_counts, targets * s.slices);
}

template <class A>
cudaError_t run(Selecting<A> s, Count* table, const Stream& stream) {
  int64_t shared, blocks;
  s.counted = table != nullptr;
  CGSV_TRY(divide(s, &shared, &blocks));
  Scratch scratch;
  reserve(s, blocks, scratch);
  CGSV_TRY(scratch.allocate(stream));
  if (table) s.tables[0] = table;
  return launch(stream, {blocks, threads, shared, 1, true}, select_kernel<A>, s);
}

}  // namespace

bool selects_at_once(int64_t n) { return n <= most_agents; }

cudaError_t select_scratch(const Aggregate& aggregate, int64_t n, int64_t segments, bool counted,
                           int64_t* bytes) {
  return with_aggregate_type(aggregate.dtype, [&](auto type) {
    Selecting<typename decltype(type)::type> s = {};
    s.d = aggregate.d;
    s.segments.count = segments;
    s.n = std::min(n, most_agents);
    s.counted = counted;
    int64_t shared, blocks;
    CGSV_TRY(divide(s, &shared, &blocks));
    Scratch scratch;
    reserve(s, blocks, scratch);
    *bytes = scratch.size();
    return cudaSuccess;
  });
}

cudaError_t select(const Aggregate& aggregate, int64_t n, const int64_t* quotas,
                   const Parts& segments, Count* table, void* magnitude, int64_t* last_index,
                   const Stream& stream) {
  return with_aggregate_type(aggregate.dtype, [&](auto type) {
    using A = typename decltype(type)::type;
    for (int64_t first = 0; first < n; first += most_agents) {
      const int64_t offset = first * segments.count;
      Selecting<A> s = {};
      s.u = static_cast<const A*>(aggregate.data);
      s.d = aggregate.d;
      s.alignment = alignment_of(aggregate.data);
      s.segments = segments;
      s.n = std::min(n - first, most_agents);
      s.quotas = quotas + offset;
      s.magnitude = static_cast<A*>(magnitude) + offset;
      s.last_index = last_index + offset;
      CGSV_TRY(run(s, selects_at_once(n) ? table : nullptr, stream));
    }
    return cudaSuccess;
  });
}

cudaError_t select(const Aggregate& aggregate, int64_t n, const int64_t* quotas,
                   const Segments& segments, void* magnitude, int64_t* last_index,
                   const Stream& stream) {
  Parts parts;
  CGSV_TRY(view(segments, aggregate.d, stream, &parts));
  return select(aggregate, n, quotas, parts, nullptr, magnitude, last_index, stream);
}

}  // namespace cgsv::cuda
