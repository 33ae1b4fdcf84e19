// Step 4 for one block of threads, so that it can follow the cosines in their launch.
#pragma once

#include "rows.cuh"
#include "sums.cuh"

namespace cgsv::cuda {

struct ImportanceUpdate {
  Values importance;
  double alpha, floor;
  double* result;
};

// `cosines` may have been written by other blocks of this launch.
__device__ inline void update_importance_in_block(int64_t n, const ImportanceUpdate& update,
                                                  const Values& cosines) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const double before = value_at(update.importance, i), cosine = value_at(cosines, i);
    // Rounded one by one, so that equal inputs give equal bits in every kernel.
    const double value = __dadd_rn(__dmul_rn(update.alpha, isfinite(before) ? before : 0),
                                   __dmul_rn(1 - update.alpha, isfinite(cosine) ? cosine : 0));
    update.result[i] = fmax(update.floor, value);
    sum += update.result[i];
  }
  sum = block_sum(sum);
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    update.result[i] = sum > 0 ? update.result[i] / sum : 0;
  }
}

}  // namespace cgsv::cuda
