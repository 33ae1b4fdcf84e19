// Sums of products of rows with the aggregate, chunk by chunk.
#pragma once

#include <vector>

#include "norms.h"
#include "parallel.h"

namespace cgsv::cpu {

// What is taken of each row at a time. The longer that is, the more the memory delivers. A tile of u stays
// in the L1 cache; those of the rows, where they are read twice, in L2, of hundreds of agents in L3.
constexpr int64_t tile_bytes = 4096;

class Dots {
 public:
  // Of n rows, whose columns are in `chunks` parts.
  Dots(int64_t n, int64_t chunks, int slots)
      : n_(n),
        chunks_(chunks),
        stride_(n * dot_sums + cache_line / int64_t(sizeof(double))),
        lanes_(slots * stride_),
        partial_(chunks * n) {}

  // What a thread adds a chunk's products to: dot_sums lanes a row.
  double* start(int slot) {
    double* const lanes = &lanes_[slot * stride_];
    std::fill_n(lanes, n_ * dot_sums, 0);
    return lanes;
  }
  void finish(int64_t chunk, int slot) {
    for (int64_t i = 0; i < n_; ++i) {
      const double* const lanes = &lanes_[slot * stride_ + i * dot_sums];
      partial_[chunk * n_ + i] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    }
  }
  double total(int64_t i) const { return sum_of(partial_.data() + i, chunks_, n_); }

 private:
  int64_t n_, chunks_, stride_;  // a cache line between what one thread writes and the next one
  std::vector<double> lanes_, partial_;
};

}  // namespace cgsv::cpu
