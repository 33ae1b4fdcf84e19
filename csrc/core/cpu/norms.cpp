// Step 1: the length of every update.
#include <cmath>
#include <vector>

#include "parallel.h"

namespace cgsv {

bool is_valid(double norm) { return norm > 0 && std::isfinite(norm); }

namespace cpu {

namespace {

// Columns a task: long parts of a row, on which the hardware's prefetcher reaches full speed; parts of
// 16 thousand took 1.4 times as long.
constexpr int64_t least_columns = 1 << 17;

}  // namespace

void norms(const Rows& updates, double* norms, const Threads& threads) {
  const int64_t n = updates.n;
  const Chunks chunks(updates.d, least_columns);
  const auto sum_squares = kernels().updates[int(updates.dtype)].sum_squares;
  const int64_t bytes = size_of(updates.dtype);
  std::vector<double> partial(chunks.count * n);

  const int64_t tasks = chunks.count * n;
  for_each(threads, slots_for(threads, tasks, n * updates.d), tasks, [&](int64_t task, int) {
    const int64_t c = task / n, i = task % n;
    partial[task] = sum_squares(updates.row(i) + chunks.begin(c) * bytes, chunks.size(c));
  });

  for (int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (int64_t c = 0; c < chunks.count; ++c) sum += partial[c * n + i];
    norms[i] = std::sqrt(sum);
  }
}

}  // namespace cpu
}  // namespace cgsv
