// How step 1 cuts a row and adds up its squares, for those who have the row at hand anyway.
#pragma once

#include "parallel.h"

namespace cgsv::cpu {

// The chunks of a row of d elements, fixed by d alone: long parts, on which the hardware's prefetcher
// reaches full speed; parts of 16 thousand took 1.4 times as long.
inline Chunks norm_chunks(int64_t d) { return Chunks(d, 1 << 17); }

// Σ x² of one chunk, of elements that come in consecutive pieces.
class Squares {
 public:
  explicit Squares(DType dtype) : add_(kernels().updates[int(dtype)].add_squares) {}
  // The next elements; every piece but the last has a multiple of square_lanes.
  void add(const void* x, int64_t count, bool far = false) { add_(x, count, lanes_, far); }
  double total() const;

 private:
  void (*add_)(const void* x, int64_t count, double* lanes, bool far);
  double lanes_[square_lanes] = {};
};

// The sum over `count` chunks, each `stride` after the one before; one NaN for all.
double sum_of(const double* totals, int64_t count, int64_t stride);

}  // namespace cgsv::cpu
