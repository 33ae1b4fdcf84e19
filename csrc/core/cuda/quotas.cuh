// Step 5 for one block of threads, so that it can follow the importance in its launch.
#pragma once

#include "rows.cuh"
#include "sums.cuh"

namespace cgsv::cuda {

// tanh(β r); for β = ∞ the sign of r, with nothing for nothing.
__device__ inline double altruistic(double beta, double r) {
  return r == 0 || !isfinite(r) ? 0 : copysign(tanh(beta * fabs(r)), r);
}

__device__ inline void quotas_in_block(int64_t n, const Values& importance, const Parts& segments,
                                       double beta, int64_t* quotas) {
  double largest = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    largest = fmax(largest, altruistic(beta, value_at(importance, i)));
  }
  largest = block_max(largest);
  // Neighbours share an agent's segments: each has its tanh, which is what takes the time.
  int lanes = 1;
  while (lanes < warp_size && lanes < segments.count) lanes *= 2;
  for (int64_t i = threadIdx.x / lanes; i < n; i += blockDim.x / lanes) {
    const double t = altruistic(beta, value_at(importance, i));
    const double ratio = largest > 0 ? t / largest : 0;
    for (int64_t l = threadIdx.x % lanes; l < segments.count; l += lanes) {
      const int64_t size = segments.size(l);
      const double share = floor(double(size) * ratio);
      quotas[i * segments.count + l] = share >= double(size) ? size
                                       : share > 0           ? int64_t(share)
                                                             : 0;
    }
  }
}

}  // namespace cgsv::cuda
