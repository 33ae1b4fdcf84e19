// The Gram matrix of the unit updates: all there is to know of their coalitions' cosines.
//
// Up to 32 agents the updates are read once: all products of a tile of columns are formed while it is in
// cache, 4 rows with 4 others at a time, and the lengths to divide by are those on the diagonal. More agents
// meet in parcels of 32, and the arithmetic takes longer than the reading.
#include <cmath>
#include <vector>

#include "parallel.h"

namespace cgsv::cpu {
namespace {

constexpr int64_t parcel_groups = 8, parcel_rows = parcel_groups * gram_rows;
constexpr int64_t block_sums = gram_rows * gram_rows * gram_lanes;  // of a group with a group

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Columns a chunk at least, so that the chunks' products take no more than some 16 MB.
int64_t least_columns(int64_t n, int64_t d) {
  constexpr int64_t most_products = 1 << 21, unit = 512;
  return std::max<int64_t>(unit, ceil_div(ceil_div(d * n, most_products) * n, unit) * unit);
}

// Columns at a time, of the rows that meet: they should stay in the L1 cache.
int64_t tile_columns(int64_t rows, int64_t bytes) {
  constexpr int64_t cached = 32 << 10, unit = 128, most = 2048;
  return std::clamp(cached / (rows * bytes) / unit * unit, unit, most);
}

// The agents [begin, end), in groups.
struct Parcel {
  int64_t begin, end;
  Parcel(int64_t k, int64_t n) : begin(k * parcel_rows), end(std::min(n, begin + parcel_rows)) {}
  int64_t groups() const { return ceil_div(end - begin, gram_rows); }
  int64_t first(int64_t group) const { return begin + group * gram_rows; }
  int size(int64_t group) const {
    return int(std::min(gram_rows + first(group), end) - first(group));
  }
};

}  // namespace

void gram(const Rows& updates, double* gram, const Threads& threads) {
  const int64_t n = updates.n, bytes = size_of(updates.dtype);
  const bool far = is_far(n * updates.d * bytes);
  const Chunks chunks(updates.d, least_columns(n, updates.d));
  const int64_t parcels = ceil_div(n, parcel_rows), meetings = parcels * (parcels + 1) / 2;
  const int64_t tile = tile_columns(std::min(n, 2 * parcel_rows), bytes);
  const UpdateKernels& kernel = kernels().updates[int(updates.dtype)];

  const int64_t tasks = chunks.count * meetings;
  const int slots = slots_for(threads, tasks, n * updates.d);
  const int64_t most_groups = std::min(ceil_div(n, gram_rows), parcel_groups);
  const int64_t stride = most_groups * most_groups * block_sums + cache_line;
  std::vector<double> sums_of(slots * stride);
  std::vector<double> partial(chunks.count * n * n);

  for_each(threads, slots, tasks, [&](int64_t task, int slot) {
    const int64_t c = task / meetings;
    int64_t later = 0, earlier = task % meetings;
    while (earlier > later) earlier -= ++later;
    const Parcel rows(later, n), others(earlier, n);
    const bool same = later == earlier;
    double* const sums = &sums_of[slot * stride];
    const auto block = [&](int64_t g, int64_t h) {
      return sums + (g * others.groups() + h) * block_sums;
    };
    std::fill_n(sums, rows.groups() * others.groups() * block_sums, 0);

    for (int64_t j = chunks.begin(c); j < chunks.end(c); j += tile) {
      const int64_t count = std::min(tile, chunks.end(c) - j);
      const void *x[parcel_rows], *y[parcel_rows];
      for (int64_t i = rows.begin; i < rows.end; ++i) {
        x[i - rows.begin] = updates.row(i) + j * bytes;
      }
      for (int64_t i = others.begin; i < others.end; ++i) {
        y[i - others.begin] = updates.row(i) + j * bytes;
      }
      for (int64_t g = 0; g < rows.groups(); ++g) {
        const auto* const group = x + g * gram_rows;
        if (same) kernel.own_products(group, rows.size(g), count, block(g, g), far);
        for (int64_t h = 0; h < (same ? g : others.groups()); ++h) {
          kernel.products(y + h * gram_rows, group, rows.size(g), count, block(g, h));
        }
      }
    }

    for (int64_t i = rows.begin; i < rows.end; ++i) {
      for (int64_t j = others.begin; j < std::min(others.end, i + 1); ++j) {
        const int64_t g = (i - rows.begin) / gram_rows, r = (i - rows.begin) % gram_rows;
        const int64_t h = (j - others.begin) / gram_rows, s = (j - others.begin) % gram_rows;
        // Among themselves, rows meet earlier ones; between groups, the earlier ones stand first.
        const int64_t pair = same && g == h ? r * gram_rows + s : s * gram_rows + r;
        partial[(c * n + i) * n + j] = sum_of_lanes(block(g, h) + pair * gram_lanes);
      }
    }
  });

  std::vector<double> norms(n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t c = 0; c < chunks.count; ++c) sum += partial[(c * n + i) * n + j];
      gram[i * n + j] = sum;
    }
    norms[i] = std::sqrt(gram[i * n + i]);
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const bool valid = is_valid(norms[i]) && is_valid(norms[j]);
      // The longer one first, so that the order of the agents changes no bit.
      const auto [shorter, longer] = std::minmax(norms[i], norms[j]);
      const double cosine = i == j ? 1 : std::clamp(gram[i * n + j] / longer / shorter, -1.0, 1.0);
      gram[i * n + j] = gram[j * n + i] = valid ? cosine : 0;
    }
  }
}

}  // namespace cgsv::cpu
