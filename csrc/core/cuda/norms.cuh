// Step 1 in two parts, of which the second one rides along with what follows.
#pragma once

#include "rows.cuh"
#include "sums.cuh"

namespace cgsv::cuda {

// Rows are cut into chunks of columns, fixed by d alone: a row has the same norm in any matrix, and as it
// is packed. A block takes a chunk, so one long row has up to 1920 blocks, more than a GPU of 132
// multiprocessors holds at once. Many rows have many more, their sums being 63 MB for 4096; all but a
// row's last give a thread 16 columns or more, to pay for the block's start.
struct NormChunks {
  int64_t columns, count;
  explicit NormChunks(int64_t d) {
    constexpr int64_t most = limit(1920, 2), least = 4096;
    columns = std::max(least, round_up(ceil_div(d, most), least));
    count = std::max<int64_t>(1, ceil_div(d, columns));
  }
};

constexpr int norm_threads = 256;  // of the blocks that sum over a chunk: they fix its order

// Σ x² of 16 bytes: in float32 where that is exact enough, that is within [1e-30, 1e30].
template <class T>
__device__ inline double sum_squares(const Pack<T>& x) {
  if constexpr (!std::is_same_v<T, double>) {
    float sum = 0;
#pragma unroll
    for (int k = 0; k < Pack<T>::columns; ++k) sum = fmaf(x[k], x[k], sum);
    if (sum >= 1e-30f && sum <= 1e30f) return double(sum);
  }
  double sum = 0;
#pragma unroll
  for (int k = 0; k < Pack<T>::columns; ++k) {
    const double v = double(x[k]);
    sum = fma(v, v, sum);
  }
  return sum;
}

// partial[i · count + c] = Σ term(x, j, count) over the 16 bytes at each column j, of which the first `count`
// are the row's. One block a chunk of one row, chunk by chunk so that neighbours in time are neighbours in
// memory across all rows.
template <class T, class F>
__device__ inline void sum_chunk(const RowView<const std::byte>& updates, const NormChunks& chunks,
                                 double* partial, const F& term) {
  const int64_t c = blockIdx.x / updates.n, i = blockIdx.x % updates.n;
  const T* row = updates.row<T>(i);
  const int64_t end = min(updates.d, (c + 1) * chunks.columns);
  constexpr int columns = Pack<T>::columns, step = norm_threads * columns;

  double sum = 0;
  int64_t j = c * chunks.columns + int64_t(threadIdx.x) * columns;
  for (; j + 3 * step + columns <= end; j += 4 * step) {
    Pack<T> x[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) x[k] = load_pack(row + j + k * step, updates.alignment, columns);
#pragma unroll
    for (int k = 0; k < 4; ++k) sum += term(x[k], j + k * step, columns);
  }
  for (; j < end; j += step) {
    const int count = int(min(end - j, int64_t(columns)));
    sum += term(load_pack(row + j, updates.alignment, count), j, count);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[i * chunks.count + c] = sum;
}

// partial[i · count + c] = Σ x² over chunk c of row i.
cudaError_t sum_squares(const RowView<const std::byte>& updates, DType dtype, double* partial,
                        const Stream& stream);

// sums[i] of partial[i · count .. (i + 1) · count), or its root.
cudaError_t finish_sums(const double* partial, int64_t n, int64_t count, bool root, double* sums,
                        const Stream& stream);

// The sum over a row's chunks, by a whole block.
__device__ inline double sum_of(const double* partial, int64_t count) {
  double sum = 0;
  for (int64_t c = threadIdx.x; c < count; c += blockDim.x) sum += partial[c];
  return block_sum(sum);
}

}  // namespace cgsv::cuda
