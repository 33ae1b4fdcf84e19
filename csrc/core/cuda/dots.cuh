// Products with the aggregate, of 16 bytes of a row at a time.
#pragma once

#include "elements.cuh"

namespace cgsv::cuda {

// Σ x·u over 16 bytes: in float32 where the sum is within [1e-30, 1e30]. kZerosAreNone: an all-zero pack
// gives 0 even where u is infinite, since zeros may stand for a row that takes no part.
template <bool kZerosAreNone, class T>
__device__ inline double dot(const Pack<T>& x, const Wide<T> (&u)[Pack<T>::columns]) {
  if constexpr (!std::is_same_v<T, double>) {
    float sum = 0;
#pragma unroll
    for (int k = 0; k < Pack<T>::columns; ++k) sum = fmaf(x[k], u[k], sum);
    if (fabsf(sum) >= 1e-30f && fabsf(sum) <= 1e30f) return double(sum);
  }
  if (kZerosAreNone && (x.bits.x | x.bits.y | x.bits.z | x.bits.w) == 0) return 0;
  double sum = 0;
#pragma unroll
  for (int k = 0; k < Pack<T>::columns; ++k) {
    sum = fma(double(x[k]), double(u[k]), sum);
  }
  return sum;
}

}  // namespace cgsv::cuda
