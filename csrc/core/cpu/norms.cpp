// Step 1: the length of every update.
#include "norms.h"

#include <cmath>
#include <limits>
#include <vector>

namespace cgsv {

bool is_valid(double norm) { return norm > 0 && std::isfinite(norm); }

namespace cpu {

// The upper half of the lanes is added to the lower until one is left.
double Squares::total() const {
  double sums[square_lanes];
  std::copy(lanes_, lanes_ + square_lanes, sums);
  for (int half = square_lanes / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) sums[l] += sums[l + half];
  }
  return sums[0];
}

double sum_of(const double* totals, int64_t count, int64_t stride) {
  double sum = 0;
  for (int64_t c = 0; c < count; ++c) sum += totals[c * stride];
  // Which NaN a sum of two gives depends on the compiler's order of them.
  return std::isnan(sum) ? std::numeric_limits<double>::quiet_NaN() : sum;
}

void partial_norms(const Rows& updates, double* squares, const Threads& threads) {
  const int64_t n = updates.n;
  const Chunks chunks = norm_chunks(updates.d);
  const int64_t bytes = size_of(updates.dtype);
  const bool far = is_far(n * updates.d * bytes);
  std::vector<double> totals(chunks.count * n);

  const int64_t tasks = chunks.count * n;
  for_each(threads, slots_for(threads, tasks, n * updates.d), tasks, [&](int64_t task, int) {
    const int64_t c = task / n, i = task % n;
    Squares chunk(updates.dtype);
    chunk.add(updates.row(i) + chunks.begin(c) * bytes, chunks.size(c), far);
    totals[task] = chunk.total();
  });
  for (int64_t i = 0; i < n; ++i) squares[i] = sum_of(totals.data() + i, chunks.count, n);
}

void norms(const Rows& updates, double* norms, const Threads& threads) {
  partial_norms(updates, norms, threads);
  for (int64_t i = 0; i < updates.n; ++i) norms[i] = std::sqrt(norms[i]);
}

}  // namespace cpu
}  // namespace cgsv
