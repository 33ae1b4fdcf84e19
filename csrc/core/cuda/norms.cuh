// Step 1 in two parts, of which the second one rides along with what follows.
#pragma once

#include "rows.cuh"
#include "sums.cuh"

namespace cgsv::cuda {

// Rows are cut into chunks of columns, fixed by (n, d) alone.
struct NormChunks {
  int64_t columns, count;
  NormChunks(int64_t n, int64_t d) {
    constexpr int64_t tasks = limit(16384, 4), least = 4096;
    columns = std::max(least, round_up(ceil_div(d * n, tasks), least));
    count = std::max<int64_t>(1, ceil_div(d, columns));
  }
};

// partial[i · count + c] = Σ x² over chunk c of row i.
cudaError_t sum_squares(const RowView<const std::byte>& updates, DType dtype, double* partial,
                        const Stream& stream);

// ‖Δw_i‖ from row i's partial sums, by a whole block.
__device__ inline double norm_of(const double* partial, int64_t count) {
  double sum = 0;
  for (int64_t c = threadIdx.x; c < count; c += blockDim.x) sum += partial[c];
  return sqrt(block_sum(sum));
}

}  // namespace cgsv::cuda
