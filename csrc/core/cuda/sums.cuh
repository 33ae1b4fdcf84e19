// Sums over the threads of a warp and of a block, each in one fixed order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace cgsv::cuda {

constexpr unsigned all_lanes = 0xffffffffu;
constexpr int warp_size = 32;
constexpr int most_warps = 32;

// Over groups of `width` neighbouring lanes, a power of two; every lane gets its group's sum.
__device__ inline double warp_sum(double x, int width = warp_size) {
  for (int lanes = width / 2; lanes > 0; lanes /= 2) {
    x += __shfl_xor_sync(all_lanes, x, lanes);
  }
  return x;
}

// Over a block of whole warps; every thread gets the sum.
__device__ inline double block_sum(double x) {
  __shared__ double sums[most_warps];
  const int warp = int(threadIdx.x) / warp_size, lane = int(threadIdx.x) % warp_size;
  x = warp_sum(x);
  __syncthreads();
  if (lane == 0) sums[warp] = x;
  __syncthreads();
  const int warps = int(blockDim.x) / warp_size;
  return warp_sum(lane < warps ? sums[lane] : 0);
}

// The same for the largest, once in a kernel: a second call might overwrite what the first one still reads.
__device__ inline double block_max(double x) {
  __shared__ double largest[most_warps];
  const int warp = int(threadIdx.x) / warp_size, lane = int(threadIdx.x) % warp_size;
  for (int lanes = warp_size / 2; lanes > 0; lanes /= 2) {
    x = fmax(x, __shfl_xor_sync(all_lanes, x, lanes));
  }
  if (lane == 0) largest[warp] = x;
  __syncthreads();
  const int warps = int(blockDim.x) / warp_size;
  x = largest[lane < warps ? lane : 0];
  for (int lanes = warp_size / 2; lanes > 0; lanes /= 2) {
    x = fmax(x, __shfl_xor_sync(all_lanes, x, lanes));
  }
  return x;
}

// For each lane, the sum of its own and all lower lanes' counts.
__device__ inline int64_t warp_scan(int64_t x) {
  const int lane = int(threadIdx.x) % warp_size;
  for (int lanes = 1; lanes < warp_size; lanes *= 2) {
    const long long below = __shfl_up_sync(all_lanes, static_cast<long long>(x), lanes);
    if (lane >= lanes) x += below;
  }
  return x;
}

}  // namespace cgsv::cuda
