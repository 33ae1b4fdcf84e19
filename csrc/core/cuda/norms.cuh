// Step 1 in two parts, of which the second one rides along with what follows.
#pragma once

#include "rows.cuh"
#include "sums.cuh"

namespace cgsv::cuda {

// Rows are cut into chunks of columns, fixed by d alone: a row has the same norm in any matrix, and as it
// is packed. A block takes a chunk, so one long row has up to 2048 blocks, more than a GPU of 132
// multiprocessors holds at once. Many rows have many more; none of them has less than 16 columns a
// thread to pay for its start, but in rows that are shorter.
struct NormChunks {
  int64_t columns, count;
  explicit NormChunks(int64_t d) {
    constexpr int64_t most = limit(2048, 2), least = 4096;
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
