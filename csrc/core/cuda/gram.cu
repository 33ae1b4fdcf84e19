// The Gram matrix of the unit updates: all there is to know of their coalitions' cosines.
//
// Reads N·D elements 1 + 1.5 (G − 1) times, with G = N / 8 groups of agents: each group by itself, and with
// every 4 rows of those before it, 12 at a time and soon after each other. Writes N² / 2 partial sums for
// each chunk of columns, of which there are 4096 / G² at most, and reads them once. A thread holds 16 bytes
// of 8 rows, and of 4 more, and sums all their products in float64: some 4 of them for an element, which up
// to some 16 agents takes no longer than the reading.
#include "rows.cuh"
#include "sums.cuh"

namespace cgsv::cuda {
namespace {

constexpr int threads = 256, warps = threads / warp_size;
constexpr int rows = 8,
              others = 4;  // a group of rows, and those of earlier groups it meets at a time

// Chunks of columns, fixed by (n, d) alone: about as many tasks for any number of agents.
struct GramChunks {
  int64_t groups;  // of rows
  int64_t columns, count;
  CGSV_HOST_DEVICE int64_t meetings() const { return groups * (groups - 1) / 2 * (rows / others); }
  GramChunks(int64_t n, int64_t d) : groups(ceil_div(n, int64_t(rows))) {
    constexpr int64_t tasks = limit(4096, 4), least = 4096;
    columns = round_up(ceil_div(d * groups * groups, tasks), least);
    columns = std::max(least, std::min(columns, round_up(d, least)));
    count = std::max<int64_t>(1, ceil_div(d, columns));
  }
};

// Products of a group of rows with itself, or with the rows of earlier groups.
template <class T, bool kSame>
__global__ void __launch_bounds__(threads)
    gram_kernel(RowView<const std::byte> updates, GramChunks chunks, double* partial) {
  constexpr int columns = Pack<T>::columns;
  constexpr int pairs = kSame ? rows * (rows + 1) / 2 : rows * others;
  __shared__ double sums[warps][pairs];

  const int64_t n = updates.n;
  const int64_t units = kSame ? chunks.groups : chunks.meetings();
  const int64_t c = blockIdx.x / units, unit = blockIdx.x % units;
  int64_t first_a = unit * rows, first_b = first_a;
  if (!kSame) {
    first_b = unit * others;
    for (first_a = rows; first_b >= first_a; first_a += rows) first_b -= first_a;
  }
  const int64_t begin = c * chunks.columns, end = min(updates.d, begin + chunks.columns);

  const auto load = [&](auto& x, int64_t first, int64_t j) {
    const int count = int(max(int64_t(0), min(end - j, int64_t(columns))));
#pragma unroll
    for (int r = 0; r < int(sizeof(x) / sizeof(x[0])); ++r) {
      if (r % 4 == 0) __syncwarp();  // or the compiler keeps all the rows' addresses in registers
      const int64_t i = min(first + r, n - 1);
      x[r] = load_pack(updates.row<T>(i) + j, updates.alignment, first + r < n ? count : 0);
    }
  };

  double sum[pairs] = {};
  for (int64_t first = begin; first < end; first += threads * columns) {
    const int64_t j = first + int(threadIdx.x) * columns;
    Pack<T> a[rows], b[others];
    load(a, first_a, j);
    if (!kSame) load(b, first_b, j);
#pragma unroll
    for (int k = 0; k < columns; ++k) {
      constexpr int width = kSame ? rows : others;
      double x[rows], y[width];
#pragma unroll
      for (int r = 0; r < rows; ++r) x[r] = double(a[r][k]);
#pragma unroll
      for (int s = 0; s < width; ++s) y[s] = kSame ? x[s] : double(b[s % others][k]);
      int pair = 0;
#pragma unroll
      for (int r = 0; r < rows; ++r) {
#pragma unroll
        for (int s = 0; s < (kSame ? r + 1 : width); ++s, ++pair) {
          sum[pair] = fma(x[r], y[s], sum[pair]);
        }
      }
    }
  }

  const int warp = int(threadIdx.x) / warp_size;
#pragma unroll
  for (int pair = 0; pair < pairs; ++pair) {
    const double total = warp_sum(sum[pair]);
    if (threadIdx.x % warp_size == 0) sums[warp][pair] = total;
  }
  __syncthreads();
  const int pair = int(threadIdx.x);
  if (pair >= pairs) return;
  int r = pair / others, s = pair % others;
  if (kSame) {
    for (r = 0, s = pair; s > r; ++r) s -= r + 1;
  }
  if (first_a + r >= n || first_b + s >= n) return;
  double total = 0;
  for (int w = 0; w < warps; ++w) total += sums[w][pair];
  partial[((first_a + r) * n + first_b + s) * chunks.count + c] = total;
}

// Row by row of the lower triangle, a warp a product.
__global__ void __launch_bounds__(threads)
    sum_gram_kernel(int64_t n, const double* partial, int64_t count, double* products) {
  const int64_t k = blockIdx.x * int64_t(warps) + threadIdx.x / warp_size;
  const int lane = int(threadIdx.x) % warp_size;
  if (k >= n * n || k % n > k / n) return;
  double sum = 0;
  for (int64_t c = lane; c < count; c += warp_size) sum += partial[k * count + c];
  sum = warp_sum(sum);
  if (lane == 0) products[k] = sum;
}

// Divides by the lengths. An agent that takes no part has a row and a column of zeros.
__global__ void __launch_bounds__(threads)
    finish_gram_kernel(int64_t n, const double* products, double* gram) {
  const int64_t k = blockIdx.x * int64_t(threads) + threadIdx.x;
  if (k >= n * n) return;
  const int64_t i = max(k / n, k % n), j = min(k / n, k % n);
  const double a = sqrt(products[i * n + i]), b = sqrt(products[j * n + j]);
  const bool valid = is_valid(a) && is_valid(b);
  // The longer one first, so that the order of the agents changes no bit.
  const double unit = products[i * n + j] / fmax(a, b) / fmin(a, b);
  const double cosine = i == j ? 1 : fmin(1.0, fmax(-1.0, unit));
  gram[k] = valid ? cosine : 0;
}

}  // namespace

cudaError_t gram(const Rows& updates, double* gram, const Stream& stream) {
  const int64_t n = updates.n;
  const GramChunks chunks(n, updates.d);
  int64_t* table;
  double *partial, *products;
  Scratch scratch;
  scratch.reserve(&table, table_size(updates));
  scratch.reserve(&partial, n * n * chunks.count);
  scratch.reserve(&products, n * n);
  CGSV_TRY(scratch.allocate(stream));

  RowView<const std::byte> view_of_updates;
  CGSV_TRY(view(updates, table, stream, &view_of_updates));
  CGSV_TRY(with_type(updates.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    CGSV_TRY(launch(stream, {chunks.count * chunks.groups, threads}, gram_kernel<T, true>,
                    view_of_updates, chunks, partial));
    if (chunks.groups == 1) return cudaSuccess;
    return launch(stream, {chunks.count * chunks.meetings(), threads}, gram_kernel<T, false>,
                  view_of_updates, chunks, partial);
  }));
  CGSV_TRY(launch(stream, {ceil_div(n * n, int64_t(warps)), threads}, sum_gram_kernel, n, partial,
                  chunks.count, products));
  return launch(stream, {ceil_div(n * n, int64_t(threads)), threads}, finish_gram_kernel, n,
                products, gram);
}

}  // namespace cgsv::cuda
