// Products of rows with an aggregate that is there already, as where others hold other agents' rows.
#include "dots.h"

namespace cgsv::cpu {
namespace {

constexpr int64_t most_rows = 64;  // a call of the kernel

}  // namespace

void partial_dots(const Rows& updates, const Aggregate& aggregate, double* dots,
                  const Threads& threads) {
  const Chunks chunks(updates.d);
  const UpdateKernels& kernel = kernels().updates[int(updates.dtype)];
  const int64_t n = updates.n, bytes = size_of(updates.dtype);
  const bool far = is_far(n * updates.d * bytes);
  const std::byte* const u = static_cast<const std::byte*>(aggregate.data);
  const int64_t tile = tile_bytes / bytes;
  const int slots = slots_for(threads, chunks.count, n * updates.d);
  Dots sums(n, chunks.count, slots);

  for_each(threads, slots, chunks.count, [&](int64_t c, int slot) {
    double* const lanes = sums.start(slot);
    for (int64_t j = chunks.begin(c); j < chunks.end(c); j += tile) {
      const int64_t count = std::min(tile, chunks.end(c) - j);
      for (int64_t i = 0; i < n; i += most_rows) {
        const void* x[most_rows];
        const int64_t rows = std::min(most_rows, n - i);
        for (int64_t k = 0; k < rows; ++k) x[k] = updates.row(i + k) + j * bytes;
        kernel.wide_dots(x, rows, u + j * size_of(aggregate.dtype), count, lanes + i * dot_sums,
                         far);
      }
    }
    sums.finish(c, slot);
  });
  for (int64_t i = 0; i < n; ++i) dots[i] = sums.total(i);
}

}  // namespace cgsv::cpu
