// The parts of an update become one row, and its norm comes along.
#include <cmath>
#include <vector>

#include "norms.h"

namespace cgsv::cpu {
namespace {

// Columns that are packed, and summed as they stand in the row, while they are in the L1 cache. The sum
// never sees where a part ends.
constexpr int64_t block_columns = 2048;
static_assert(block_columns % square_lanes == 0, "blocks that a sum can go on over");

}  // namespace

void pack_row(const PartList& parts, const MutableRows& row, double* norm, const Threads& threads) {
  const auto& convert = kernels().convert;
  const int to = int(row.dtype);
  const int64_t bytes = size_of(row.dtype);
  std::byte* const out = row.row(0);
  std::vector<int64_t> starts(parts.count + 1);
  for (int64_t p = 0; p < parts.count; ++p) starts[p + 1] = starts[p] + parts.parts[p].size;

  // A task is a chunk, however many parts or how little of one it holds.
  const Chunks chunks = norm_chunks(row.d);
  std::vector<double> totals(chunks.count);
  for_each(threads, slots_for(threads, chunks.count, row.d), chunks.count, [&](int64_t c, int) {
    Squares squares(row.dtype);
    const int64_t end = chunks.end(c);
    int64_t p =
        std::upper_bound(starts.begin(), starts.end(), chunks.begin(c)) - starts.begin() - 1;
    for (int64_t block = chunks.begin(c); block < end; block += block_columns) {
      const int64_t block_end = std::min(end, block + block_columns);
      for (int64_t j = block; j < block_end;) {
        while (starts[p + 1] <= j) ++p;
        const Part& part = parts.parts[p];
        const int64_t next = std::min(block_end, starts[p + 1]);
        convert[int(part.dtype)][to](part.data + (j - starts[p]) * size_of(part.dtype), next - j,
                                     out + j * bytes);
        j = next;
      }
      squares.add(out + block * bytes, block_end - block);
    }
    totals[c] = squares.total();
  });
  *norm = std::sqrt(sum_of(totals.data(), chunks.count, 1));
}

}  // namespace cgsv::cpu
