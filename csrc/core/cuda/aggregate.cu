// Steps 2 and 3: the aggregate u_N and, from the same read of the updates, each agent's cosine.
//
// Reads N·D elements once, writes D of the aggregate, and N + 1 partial sums of 8 bytes for each chunk of
// columns, of which there are at most 8192 up to 16 agents, 2048 up to 256, and 1024. Who finishes the
// cosines reads these once, and those of u_N for each agent; `weigh` reads those of the norms.
//
// The dot products need u_N complete for their columns, so a block keeps a tile of all rows in registers: a
// thread holds 16 bytes of up to 12 rows. N > 1536 rows do not fit: they are read twice, chunk by chunk, and
// only where D is small does the second read find the first one's in the caches. u_N is summed in float64
// and rounded once; products with it are summed in float32 within 16 bytes, in float64 from there on.
#include "aggregate.cuh"

#include "dots.cuh"

namespace cgsv::cuda {
namespace {

constexpr int threads = 256;
constexpr int64_t most_groups = limit(128, 32);

__global__ void __launch_bounds__(threads)
    weigh_kernel(RowView<const std::byte> updates, Weighing w) {
  const int64_t i = blockIdx.x, n = updates.n, thread = i * threads + threadIdx.x;
  const int64_t all_threads = int64_t(gridDim.x) * threads;
  if (w.table) {
    for (int64_t b = thread; b < first_digits; b += all_threads) w.table[b] = 0;
  }
  if (w.ticket && thread == 0) *w.ticket = 0;
  for (int64_t k = n + thread; k < w.row_count; k += all_threads) w.rows[k] = {nullptr, 0};

  int any = 0;
  if (w.first_round) {
    for (int64_t k = threadIdx.x; k < n; k += threads) {
      const double value = value_at(w.weights, k);
      any |= isfinite(value) && value != 0;
    }
  }
  any = __syncthreads_or(any);
  const double norm = w.partial ? sqrt(sum_of(w.partial + i * w.partial_count, w.partial_count))
                                : value_at(w.given_norms, i);
  if (threadIdx.x != 0) return;
  const bool valid = is_valid(norm);
  double weight = w.first_round && !any ? 1.0 / double(n) : value_at(w.weights, i);
  if (!isfinite(weight)) weight = 0;
  w.norms[i] = norm;
  if (w.valid) w.valid[i] = valid;
  w.rows[i] = {nullptr, 0};
  if (valid) w.rows[i] = {updates.row<std::byte>(i), weight * w.gamma / norm};
}

// The sum of x over a group's lanes, in the group's first lane. `sums` holds a double a warp.
__device__ double lanes_sum(double x, int lanes, double* sums) {
  x = warp_sum(x, min(lanes, warp_size));
  if (lanes <= warp_size) return x;
  const int warp = int(threadIdx.x) / warp_size;
  __syncthreads();
  if (threadIdx.x % warp_size == 0) sums[warp] = x;
  __syncthreads();
  x = 0;
#pragma unroll 1  // what more would take registers from the rows
  for (int k = 0; k < lanes / warp_size; ++k)
    x += sums[(int(threadIdx.x) / lanes) * (lanes / warp_size) + k];
  return x;
}

template <class T, int kRows>
struct Tile {
  static constexpr int columns = Pack<T>::columns;
  Pack<T> x[kRows];

  // Zeros where a row takes no part, or there is none, or no such column. The whole warp calls.
  __device__ void load(const Row* rows, int64_t j, int count, int alignment) {
    if (!__all_sync(all_lanes, count == columns)) {
      load_first(rows, j, count);
    } else if (alignment >= 16) {
      load_whole<uint4>(rows, j);
    } else if (alignment >= 8 || sizeof(T) == 8) {
      load_whole<uint2>(rows, j);
    } else if (alignment >= 4 || sizeof(T) == 4) {
      load_whole<unsigned>(rows, j);
    } else {
      load_whole<T>(rows, j);
    }
  }
  // No load waits for that of another row: first all addresses, then all packs, without branches.
  template <class Piece>
  __device__ void load_whole(const Row* rows, int64_t j) {
    const T* row[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) row[r] = reinterpret_cast<const T*>(rows[r].data);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      x[r] = {make_uint4(0, 0, 0, 0)};
      if (row[r]) x[r] = load_pieces<Piece>(row[r] + j);
    }
  }
  // The first `count` columns of each pack.
  __device__ void load_first(const Row* rows, int64_t j, int count) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r % 6 == 0) __syncwarp();  // or the compiler keeps all the rows' addresses in registers
      const T* row = reinterpret_cast<const T*>(rows[r].data);
      x[r] = load_pack(row + j, int(sizeof(T)), row ? count : 0);
    }
  }
  __device__ void add_to(double (&u)[columns], const Row* rows) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const double coefficient = rows[r].coefficient;
#pragma unroll
      for (int k = 0; k < columns; ++k) {
        // Rounded one by one: then x and -x cancel.
        u[k] = __dadd_rn(u[k], __dmul_rn(coefficient, double(x[r][k])));
      }
    }
  }
  __device__ void dots_with(const Wide<T> (&u)[columns], double (&dots)[kRows]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) dots[r] += dot<true>(x[r], u);
  }
};

// What each group adds to each column of a tile, in shared memory: the first column of every thread, then the
// second of every thread, and so on, each of these a few words longer than it must be. So neither threads that
// write side by side nor those that read columns side by side meet in a bank.
template <int kColumns>
struct PartSums {
  static constexpr int stride = threads + warp_size / 2 / kColumns, count = stride * kColumns;
  double* sums;
  int lanes;

  __device__ double& own(int k) const { return sums[k * stride + int(threadIdx.x)]; }
  __device__ double& at(int group, int column) const {
    return sums[column % kColumns * stride + group * lanes + column / kColumns];
  }
  // Adds them up to those of fewer groups, and returns how many: where the threads outnumber the columns,
  // some share a column.
  __device__ int fold(int groups) const {
    constexpr int most = 8;  // about as many as each has to add up
    const int columns = lanes * kColumns, sharing = min(most, threads / columns);
    if (sharing <= 1) return groups;
    const int first = int(threadIdx.x) / columns, column = int(threadIdx.x) % columns;
    if (first < sharing) {
      double sum = 0;
      // What a thread overwrites, no other one reads.
      for (int g = first; g < groups; g += sharing) sum += at(g, column);
      at(first, column) = sum;
    }
    __syncthreads();
    return sharing;
  }
};

// The first `count` of a thread's entries, at an address aligned to 16 bytes.
template <class A, int kColumns>
__device__ void store(A* to, const A (&u)[kColumns], int count) {
  constexpr int each = Pack<A>::columns;
  if (count == kColumns) {
#pragma unroll
    for (int k = 0; k < kColumns; k += each) {
      uint4 bits;
      memcpy(&bits, u + k, 16);
      *reinterpret_cast<uint4*>(to + k) = bits;
    }
  } else {
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      if (k < count) to[k] = u[k];
    }
  }
}

// Blocks on a multiprocessor at once: as many as leave each thread the registers for its rows.
template <class T, int kRows>
constexpr int blocks = kRows > 4 || (kRows > 2 && sizeof(T) == 2) ? 2
                       : sizeof(T) == 2                           ? 3
                                                                  : 4;

// Chunks from the last to the first, of which the norms left the last in the cache; tile by tile.
template <class T, int kRows>
__global__ void __launch_bounds__(threads, blocks<T, kRows>)
    aggregate_kernel(const Row* rows, int64_t n, int64_t d, int alignment, Tiling tiling,
                     Wide<T>* aggregate, double* partial, Count* table) {
  using A = Wide<T>;
  constexpr int columns = Pack<T>::columns;
  // Shared: the counters; a double a warp; and, with several groups, u_N's parts by group and u_N.
  unsigned* counters = reinterpret_cast<unsigned*>(dynamic_shared);
  double* sums = reinterpret_cast<double*>(counters + (table ? first_digits : 0));
  const PartSums<columns> parts = {sums + most_warps, tiling.lanes};
  A* whole = reinterpret_cast<A*>(parts.sums + parts.count);

  const int group = int(threadIdx.x) / tiling.lanes, lane = int(threadIdx.x) & (tiling.lanes - 1);
  const int first_row = group * kRows, batch_rows = tiling.groups * kRows;

  if (table) {
    clear(counters, first_digits);
    __syncthreads();
  }
  double square = 0;
  const auto digit = [](A u) { return unsigned(key_of(u) >> (KeyOf<A>::bits - first_digit_bits)); };
  // Takes note of one entry of u_N; the whole warp calls.
  const auto observe = [&](A u, bool present) {
    if (present) square = fma(double(u), double(u), square);
    if (table) count(counters, digit(u), present);
  };

  // How many of the thread's columns of a tile there are.
  const auto columns_at = [&](int64_t first, int64_t end) {
    return max(0, min(int(min(end - first, tiling.columns)) - lane * columns, columns));
  };

  Tile<T, kRows> tile;
  for (int c = int(tiling.chunks) - 1 - int(blockIdx.x); c >= 0; c -= int(gridDim.x)) {
    const int64_t begin = tiling.begin(c), end = min(d, begin + tiling.reach);
    double dots[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) dots[r] = 0;
    square = 0;

    for (int64_t first = begin; first < end; first += tiling.stride) {
      const int64_t j = first + lane * columns;
      const int present = columns_at(first, end);
      double sum[columns] = {};
      for (int batch = 0; batch < tiling.batches; ++batch) {
        tile.load(rows + batch * batch_rows + first_row, j, present, alignment);
        tile.add_to(sum, rows + batch * batch_rows + first_row);
      }
      A u[columns];
      if (tiling.groups == 1) {
#pragma unroll
        for (int k = 0; k < columns; ++k) u[k] = A(sum[k]);
        // First the products, which end the rows' stay in the registers.
        if (tiling.batches == 1) tile.dots_with(u, dots);
        store(aggregate + j, u, present);
        // One look at the pack: where few lanes have the first one's digit, all of them may queue.
        const bool complete = table && __all_sync(all_lanes, present == columns);
        const unsigned first_digit = __shfl_sync(all_lanes, digit(u[0]), 0);
        const unsigned sharing = __ballot_sync(all_lanes, digit(u[0]) == first_digit);
        if (complete && __popc(sharing) < 4) {
#pragma unroll
          for (int k = 0; k < columns; ++k) {
            square = fma(double(u[k]), double(u[k]), square);
            atomicAdd(counters + digit(u[k]), 1u);
          }
        } else {
#pragma unroll
          for (int k = 0; k < columns; ++k) observe(u[k], k < present);
        }
      } else {
#pragma unroll
        for (int k = 0; k < columns; ++k) parts.own(k) = sum[k];
        __syncthreads();
        const int left = parts.fold(tiling.groups);
        for (int from = 0; from < tiling.columns; from += threads) {
          const int column = from + int(threadIdx.x);
          const bool here = column < tiling.columns;
          double total = 0;
          for (int g = 0; here && g < left; ++g) total += parts.at(g, column);
          const bool column_present = here && first + column < end;
          if (here) whole[column] = A(total);
          if (column_present) aggregate[first + column] = A(total);
          observe(A(total), column_present);
        }
        __syncthreads();
        constexpr int each = Pack<A>::columns;
#pragma unroll
        for (int k = 0; k < columns; k += each) {
          const Pack<A> pack = load_pack(whole + lane * columns + k, 16, each);
#pragma unroll
          for (int e = 0; e < each; ++e) u[k + e] = pack[e];
        }
        if (tiling.batches == 1) tile.dots_with(u, dots);
      }
    }

    for (int batch = 0; batch < tiling.batches; ++batch) {
      const int row = batch * batch_rows + first_row;
      // The chunk of u_N is complete since the last tile's barrier: read the rows again.
      if (tiling.batches > 1) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) dots[r] = 0;
        for (int64_t first = tiling.begin(c); first < end; first += tiling.stride) {
          const int64_t j = first + lane * columns;
          const int present = columns_at(first, end);
          A u[columns];
#pragma unroll
          for (int k = 0; k < columns; ++k) u[k] = k < present ? aggregate[j + k] : A(0);
          tile.load(rows + row, j, present, alignment);
          tile.dots_with(u, dots);
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const double total = lanes_sum(dots[r], tiling.lanes, sums);
        if (lane == 0 && row + r < n) partial[(row + r) * tiling.chunks + c] = total;
      }
    }
    square = block_sum(square);
    if (threadIdx.x == 0) partial[n * tiling.chunks + c] = square;
  }

  // Every count is in front of block_sum's barriers.
  if (table) flush(counters, first_digits, table);
}

__global__ void __launch_bounds__(threads)
    finish_cosines_kernel(int64_t n, const double* partial, int64_t chunks, const double* norms,
                          double* cosines) {
  const int64_t i = blockIdx.x;
  const double cosine = cosine_of(i, n, partial, chunks, norms[i]);
  if (threadIdx.x == 0) cosines[i] = cosine;
}

template <class T, int kRows>
cudaError_t run(const RowView<const std::byte>& updates, const Row* rows, const Tiling& tiling,
                void* aggregate, double* partial, Count* table, const Stream& stream) {
  const auto kernel = aggregate_kernel<T, kRows>;
  const int64_t counters = table ? first_digits * int64_t(sizeof(unsigned)) : 0;
  const int64_t tile = tiling.groups == 1
                           ? 0
                           : PartSums<Pack<T>::columns>::count * int64_t(sizeof(double)) +
                                 tiling.columns * int64_t(sizeof(Wide<T>));
  const int64_t shared = counters + most_warps * int64_t(sizeof(double)) + tile;
  int64_t resident;
  CGSV_TRY(resident_blocks(kernel, threads, shared, &resident));
  return launch(stream, {std::min(resident, tiling.chunks), threads, shared}, kernel, rows,
                updates.n, updates.d, updates.alignment, tiling, static_cast<Wide<T>*>(aggregate),
                partial, table);
}

}  // namespace

Tiling tiling(int64_t n, int64_t d, DType updates) {
  Tiling t;
  t.groups = 1;  // the fewest of the fewest rows
  for (t.rows = 2; int64_t(t.groups) * t.rows < n && t.groups < most_groups;) {
    if (t.rows < 8) {
      t.rows *= 2;
    } else if (t.rows < 12) {
      t.rows += 2;
    } else {
      t.rows = 8;
      t.groups *= 2;
    }
  }
  if (int64_t(t.groups) * t.rows < n) t.rows = 12;
  t.lanes = threads / t.groups;
  t.batches = int(ceil_div(n, int64_t(t.groups) * t.rows));
  t.columns = t.lanes * (16 / size_of(updates));
  // Many, for an even load; few enough that their sums are little beside the updates.
  const int64_t most_chunks = limit(n <= 16 ? 8192 : n <= 256 ? 2048 : 1024, 8);
  const int64_t all = std::max<int64_t>(1, ceil_div(d, t.columns)), side = Tiling::side_by_side;
  const int64_t tiles = ceil_div(all, most_chunks);  // of a chunk; fewer in the last region
  const int64_t full = (all - 1) / (side * tiles);   // regions in front of that
  t.chunks = full * side + std::min(side, all - full * side * tiles);
  t.stride = side * t.columns;
  t.reach = tiles * t.stride;
  return t;
}

cudaError_t weigh(const RowView<const std::byte>& updates, const Weighing& weighing,
                  const Stream& stream) {
  return launch(stream, {updates.n, threads}, weigh_kernel, updates, weighing);
}

cudaError_t aggregate_chunks(const RowView<const std::byte>& updates, DType dtype, const Row* rows,
                             void* aggregate, double* partial, Count* table, const Stream& stream) {
  const Tiling tiling = cuda::tiling(updates.n, updates.d, dtype);
  return with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto run = tiling.rows == 2    ? cuda::run<T, 2>
                     : tiling.rows == 4  ? cuda::run<T, 4>
                     : tiling.rows == 8  ? cuda::run<T, 8>
                     : tiling.rows == 10 ? cuda::run<T, 10>
                                         : cuda::run<T, 12>;
    return run(updates, rows, tiling, aggregate, partial, table, stream);
  });
}

namespace {

// u_N, the norms, given or measured, and, by chunks, what the dots are the sums of.
struct Summed {
  const double* partial;
  int64_t chunks;
};
cudaError_t sum(const Rows& updates, const Values& weights, const Values* given_norms, double gamma,
                void* aggregate, double* norms, Summed* summed, const Stream& stream) {
  const int64_t n = updates.n;
  const NormChunks norm_chunks(updates.d);
  const Tiling tiling = cuda::tiling(n, updates.d, updates.dtype);
  int64_t* table;
  double* partial;
  Row* row_table;
  Scratch scratch;
  scratch.reserve(&table, table_size(updates));
  scratch.reserve(&row_table, tiling.row_count());
  // Of the norms, then of the aggregation.
  scratch.reserve(&partial,
                  std::max(given_norms ? 0 : n * norm_chunks.count, (n + 1) * tiling.chunks));
  if (norms == nullptr) scratch.reserve(&norms, n);
  CGSV_TRY(scratch.allocate(stream));

  RowView<const std::byte> rows;
  CGSV_TRY(view(updates, table, stream, &rows));
  Weighing weighing = {};
  if (given_norms) {
    weighing.given_norms = *given_norms;
  } else {
    weighing.partial = partial;
    weighing.partial_count = norm_chunks.count;
    CGSV_TRY(sum_squares(rows, updates.dtype, partial, stream));
  }
  weighing.weights = weights;
  weighing.gamma = gamma;
  weighing.norms = norms;
  weighing.rows = row_table;
  weighing.row_count = tiling.row_count();
  CGSV_TRY(weigh(rows, weighing, stream));
  *summed = {partial, tiling.chunks};
  return aggregate_chunks(rows, updates.dtype, row_table, aggregate, partial, nullptr, stream);
}

}  // namespace

cudaError_t aggregate(const Rows& updates, const Values& weights, const Values* given_norms,
                      double gamma, void* aggregate, double* cosines, double* norms,
                      const Stream& stream) {
  Summed summed;
  CGSV_TRY(sum(updates, weights, given_norms, gamma, aggregate, norms, &summed, stream));
  return launch(stream, {updates.n, threads}, finish_cosines_kernel, updates.n, summed.partial,
                summed.chunks, norms, cosines);
}

cudaError_t partial_aggregate(const Rows& updates, const Values& weights, const Values& norms,
                              double gamma, void* aggregate, double* dots, const Stream& stream) {
  Summed summed;
  CGSV_TRY(sum(updates, weights, &norms, gamma, aggregate, nullptr, &summed, stream));
  return finish_sums(summed.partial, updates.n + 1, summed.chunks, false, dots, stream);
}

}  // namespace cgsv::cuda
