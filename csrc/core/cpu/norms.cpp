// Step 1: the length of every update.
#include <cmath>
#include <vector>

#include "parallel.h"

namespace cgsv {

bool is_valid(double norm) { return norm > 0 && std::isfinite(norm); }

namespace cpu {

void norms(const Rows& updates, double* norms, const Threads& threads) {
  const int64_t n = updates.n;
  const Chunks chunks(updates.d);
  const auto sum_squares = kernels().updates[int(updates.dtype)].sum_squares;
  const int64_t bytes = size_of(updates.dtype);
  std::vector<double> partial(chunks.count * n);

  for_each(threads, slots_for(threads, chunks.count, n * updates.d), chunks.count,
           [&](int64_t c, int) {
             for (int64_t i = 0; i < n; ++i) {
               partial[c * n + i] =
                   sum_squares(updates.row(i) + chunks.begin(c) * bytes, chunks.size(c));
             }
           });

  for (int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (int64_t c = 0; c < chunks.count; ++c) sum += partial[c * n + i];
    norms[i] = std::sqrt(sum);
  }
}

}  // namespace cpu
}  // namespace cgsv
