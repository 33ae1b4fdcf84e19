// A digit of the radix selection for those who hold a part of the entries: counted here, added up and
// placed elsewhere.
//
//   prepare  zero counts; for each prefix, the first one equal to it in its segment
//   count    entries under those, in a block's shared memory as far as it goes, past it in the result
//   copy     their counts to the others that are equal
//
// Reads D elements of the aggregate, once for every most_prefixes prefixes; writes N·S·2^bits counts of 8
// bytes, adds to those that a block has found, and copies those of equal prefixes. Only counts are added
// across threads, so nothing depends on order.
#include "histogram.cuh"
#include "rows.cuh"

namespace cgsv::cuda {
namespace {

constexpr int threads = 512;
constexpr int64_t most_prefixes = limit(1024, 5);  // in one launch
constexpr int64_t least_columns = 4096;            // worth a block of their own

struct Counting {
  const void* u;
  int64_t d;
  int alignment;
  Parts segments;
  const int64_t* prefixes;  // (n, segments)
  int n, shift, bits;
  int in_shared;   // prefixes whose counters fit there
  int64_t share;   // columns of a block
  int32_t* first;  // by prefix, the first equal one of its segment
  Count* counts;

  __device__ int64_t at(int64_t p, int64_t l) const { return p * segments.count + l; }
  __device__ Count* counts_of(int64_t p, int64_t l) const { return counts + (at(p, l) << bits); }
};

// What a block shares. Places are those of different prefixes, in the order in which threads came.
struct Shared {
  int64_t* prefixes;       // by prefix
  unsigned* counters;      // by place below in_shared and digit
  unsigned* heads;         // by hash of a prefix, 1 + the first in its list
  unsigned short* nexts;   // by prefix, 1 + the next one
  unsigned short* places;  // by prefix
  unsigned short* owners;  // by place, the prefix
  __device__ explicit Shared(const Counting& c)
      : prefixes(reinterpret_cast<int64_t*>(dynamic_shared)),
        counters(reinterpret_cast<unsigned*>(prefixes + c.n)),
        heads(counters + (int64_t(c.in_shared) << c.bits)),
        nexts(reinterpret_cast<unsigned short*>(heads + cuda::heads)),
        places(nexts + c.n),
        owners(places + c.n) {}
  static int64_t bytes(int64_t n, int64_t counters) {
    return n * 8 + counters * 4 + cuda::heads * 4 + n * 6;
  }
};

__global__ void __launch_bounds__(threads) prepare_kernel(Counting c) {
  const int64_t thread = blockIdx.x * int64_t(threads) + threadIdx.x;
  const int64_t all = int64_t(gridDim.x) * threads, count = int64_t(c.n) * c.segments.count;
  for (int64_t k = thread; k < (count << c.bits); k += all) c.counts[k] = 0;
  for (int64_t k = thread; k < count; k += all) {
    const int64_t prefix = c.prefixes[k], l = k % c.segments.count;
    int first = 0;
    while (c.prefixes[c.at(first, l)] != prefix) ++first;
    c.first[k] = first;
  }
}

template <class A>
__global__ void __launch_bounds__(threads) count_kernel(Counting c) {
  constexpr int columns = Pack<A>::columns;
  const Shared shared(c);
  __shared__ int used;
  const A* u = static_cast<const A*>(c.u);
  const unsigned mask = (1u << c.bits) - 1;

  int64_t begin = blockIdx.x * c.share;
  const int64_t end = min(c.d, begin + c.share);
  for (int64_t l = begin < end ? c.segments.of(begin) : 0; begin < end; ++l) {
    const int64_t piece_end = min(end, c.segments.end(l));
    if (begin >= piece_end) continue;
    clear(shared.counters, c.in_shared << c.bits);
    clear(shared.heads, heads);
    if (threadIdx.x == 0) used = 0;
    __syncthreads();
    for (int p = int(threadIdx.x); p < c.n; p += threads) {
      if (c.first[c.at(p, l)] != p) continue;
      const int64_t prefix = c.prefixes[c.at(p, l)];
      const int place = atomicAdd(&used, 1);
      shared.prefixes[p] = prefix;
      shared.places[p] = (unsigned short)(place);
      shared.owners[place] = (unsigned short)(p);
      const unsigned next = atomicExch(&shared.heads[head_of(prefix)], unsigned(p + 1));
      shared.nexts[p] = (unsigned short)(next);
    }
    __syncthreads();

    const auto add = [&](unsigned counter, unsigned many) {
      const unsigned owner = counter >> c.bits, digit = counter & mask;
      const int place = shared.places[owner];
      if (place < c.in_shared) {
        atomicAdd(shared.counters + (place << c.bits | int(digit)), many);
      } else {
        atomicAdd(c.counts_of(owner, l) + digit, Count(many));
      }
    };
    for (int64_t from = begin / columns * columns; from < piece_end; from += threads * columns) {
      const int64_t j = from + int(threadIdx.x) * columns;
      const Pack<A> pack = load_pack(u + j, c.alignment, int(min(piece_end - j, int64_t(columns))));
#pragma unroll
      for (int k = 0; k < columns; ++k) {
        const Key<A> key = key_of(pack[k]);
        const int64_t prefix = int64_t(key >> c.shift >> c.bits);
        const bool present = j + k >= begin && j + k < piece_end;
        unsigned p = present ? shared.heads[head_of(prefix)] : 0;
        while (p != 0 && shared.prefixes[p - 1] != prefix) p = shared.nexts[p - 1];
        count((p - 1) << c.bits | (unsigned(key >> c.shift) & mask), p != 0, add);
      }
    }
    __syncthreads();
    for (int place = 0; place < min(used, c.in_shared); ++place) {
      flush(shared.counters + (place << c.bits), 1 << c.bits, c.counts_of(shared.owners[place], l));
    }
    __syncthreads();
    begin = piece_end;
  }
}

__global__ void __launch_bounds__(threads) copy_kernel(Counting c) {
  const int64_t count = int64_t(c.n) * c.segments.count << c.bits;
  for (int64_t k = blockIdx.x * int64_t(threads) + threadIdx.x; k < count;
       k += int64_t(gridDim.x) * threads) {
    const int64_t at = k >> c.bits, p = at / c.segments.count, l = at % c.segments.count;
    const int first = c.first[at];
    if (first != p) c.counts[k] = c.counts_of(first, l)[k & ((1 << c.bits) - 1)];
  }
}

// For up to most_prefixes prefixes.
template <class A>
cudaError_t run(Counting c, const Stream& stream) {
  const int64_t count = c.n * c.segments.count, digits = int64_t(1) << c.bits;
  Scratch scratch;
  scratch.reserve(&c.first, count);
  CGSV_TRY(scratch.allocate(stream));

  const int64_t left = default_shared - Shared::bytes(c.n, 0);
  c.in_shared = int(std::min({int64_t(c.n), left / (4 * digits), limit(most_prefixes, 2)}));
  const int64_t shared = Shared::bytes(c.n, c.in_shared * digits);
  int64_t blocks;
  CGSV_TRY(resident_blocks(count_kernel<A>, threads, shared, &blocks));
  blocks = std::min(blocks, ceil_div(c.d, least_columns));
  c.share = ceil_div(c.d, blocks * 4) * 4;
  const int64_t wide = std::min<int64_t>(ceil_div(count * digits, threads), 4096);
  CGSV_TRY(launch(stream, {wide, threads}, prepare_kernel, c));
  CGSV_TRY(launch(stream, {blocks, threads, shared}, count_kernel<A>, c));
  return launch(stream, {wide, threads}, copy_kernel, c);
}

}  // namespace

cudaError_t histogram(const Aggregate& aggregate, const Prefixes& prefixes,
                      const Segments& segments, int64_t* counts, const Stream& stream) {
  Parts parts;
  CGSV_TRY(view(segments, aggregate.d, stream, &parts));
  for (int64_t first = 0; first < prefixes.n; first += most_prefixes) {
    Counting c = {};
    c.u = aggregate.data;
    c.d = aggregate.d;
    c.alignment = alignment_of(aggregate.data);
    c.segments = parts;
    c.n = int(std::min(prefixes.n - first, most_prefixes));
    c.prefixes = prefixes.data + first * segments.count;
    c.shift = prefixes.shift;
    c.bits = prefixes.bits;
    c.counts = reinterpret_cast<Count*>(counts) + (first * segments.count << prefixes.bits);
    CGSV_TRY(with_aggregate_type(
        aggregate.dtype, [&](auto type) { return run<typename decltype(type)::type>(c, stream); }));
  }
  return cudaSuccess;
}

}  // namespace cgsv::cuda
