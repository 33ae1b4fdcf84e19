// Steps 2 and 3: the aggregate u_N and, from the same read of the updates, each agent's cosine.
#include "aggregate.h"

#include <cmath>

namespace cgsv::cpu {
namespace {

// Columns formed at a time: the rows' part of a tile is read twice and should stay in the L1 cache
// in between.
int64_t tile_columns(int64_t n, int64_t bytes) {
  constexpr int64_t cached = 32 << 10, least = 128, most = 2048;
  return std::clamp(cached / (n * bytes) / lanes * lanes, least, most);
}

}  // namespace

template <class A>
void aggregate_into(const Rows& updates, const double* norms, const double* weights, double gamma,
                    A* aggregate, double* cosines, Histogram<A>* histogram,
                    const Threads& threads) {
  const Chunks chunks(updates.d);
  const UpdateKernels& kernel = kernels().updates[int(updates.dtype)];
  const int64_t bytes = size_of(updates.dtype);

  // Only agents that take part are read: a NaN times a weight of 0 would still be a NaN.
  std::vector<int64_t> agents;
  std::vector<double> coefficients;
  for (int64_t i = 0; i < updates.n; ++i) {
    cosines[i] = 0;
    if (!is_valid(norms[i])) continue;
    agents.push_back(i);
    coefficients.push_back(std::isfinite(weights[i]) ? weights[i] * gamma / norms[i] : 0);
  }
  const int64_t n = int64_t(agents.size());

  const int64_t tile = tile_columns(std::max<int64_t>(n, 1), bytes);
  const int slots =
      histogram ? histogram->slots() : slots_for(threads, chunks.count, updates.n * updates.d);
  struct Scratch {
    std::vector<const void*> rows;
    std::vector<double> wide;
  };
  std::vector<Scratch> scratch(slots);
  for (Scratch& s : scratch) {
    s.rows.resize(n);
    s.wide.resize(tile);
  }
  // One row of sums a chunk: ⟨Δw_i, u⟩ for every agent, then ‖u‖².
  std::vector<double> partial(chunks.count * (n + 1));

  for_each(threads, slots, chunks.count, [&](int64_t task, int slot) {
    // Backwards: the chunks the norms were taken of last are the ones still in cache.
    const int64_t c = chunks.count - 1 - task;
    Scratch& s = scratch[slot];
    double* sums = &partial[c * (n + 1)];
    for (int64_t j = chunks.begin(c); j < chunks.end(c); j += tile) {
      const int64_t count = std::min(tile, chunks.end(c) - j);
      for (int64_t k = 0; k < n; ++k) {
        s.rows[k] = updates.row(agents[k]) + j * bytes;
      }
      kernel.weighted_sum(s.rows.data(), coefficients.data(), n, count, aggregate + j,
                          s.wide.data());
      kernel.dots(s.rows.data(), n, s.wide.data(), count, sums);
      sums[n] += kernels().updates[int(DType::f64)].sum_squares(s.wide.data(), count);
      if (histogram) histogram->add(aggregate + j, count, slot);
    }
  });

  const auto total = [&](int64_t k) {
    double sum = 0;
    for (int64_t c = 0; c < chunks.count; ++c) sum += partial[c * (n + 1) + k];
    return sum;
  };
  const double length = std::sqrt(total(n));
  if (!is_valid(length)) return;
  for (int64_t k = 0; k < n; ++k) {
    const double cosine = total(k) / (norms[agents[k]] * length);
    cosines[agents[k]] = std::clamp(cosine, -1.0, 1.0);
  }
}

template void aggregate_into(const Rows&, const double*, const double*, double, float*, double*,
                             Histogram<float>*, const Threads&);
template void aggregate_into(const Rows&, const double*, const double*, double, double*, double*,
                             Histogram<double>*, const Threads&);

void aggregate(const Rows& updates, const double* norms, const double* weights, double gamma,
               void* aggregate, double* cosines, const Threads& threads) {
  if (aggregate_dtype(updates.dtype) == DType::f64) {
    aggregate_into<double>(updates, norms, weights, gamma, static_cast<double*>(aggregate), cosines,
                           nullptr, threads);
  } else {
    aggregate_into<float>(updates, norms, weights, gamma, static_cast<float*>(aggregate), cosines,
                          nullptr, threads);
  }
}

}  // namespace cgsv::cpu
