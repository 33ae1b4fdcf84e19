// Steps 2 and 3: the aggregate u_N and, from the same read of the updates, each agent's cosine.
#include "aggregate.h"

#include <cmath>

#include "dots.h"

namespace cgsv::cpu {
namespace {

// Products of elements of vectors of this length, and sums of them, keep all digits of an f32.
bool is_moderate(double length) { return length > 1e-10 && length < 1e10; }

}  // namespace

template <class A>
void aggregate_into(const Rows& updates, const double* weights, const double* norms, double gamma,
                    A* aggregate, double* dots, Histogram<A>* histogram, const Threads& threads) {
  const Chunks chunks(updates.d);
  const UpdateKernels& kernel = kernels().updates[int(updates.dtype)];
  const UpdateKernels& on_u = kernels().updates[int(aggregate_dtype(updates.dtype))];
  const int64_t bytes = size_of(updates.dtype);
  const bool far = is_far(updates.n * updates.d * bytes);

  // Only agents that take part are read: a NaN times a weight of 0 would still be a NaN.
  std::vector<int64_t> agents;
  std::vector<double> coefficients;
  double longest = 0;  // that ‖u‖ can be
  bool moderate = true;
  for (int64_t i = 0; i < updates.n; ++i) {
    if (!is_valid(norms[i])) continue;
    agents.push_back(i);
    coefficients.push_back(std::isfinite(weights[i]) ? weights[i] * gamma / norms[i] : 0);
    longest += std::fabs(coefficients.back()) * norms[i];
    moderate &= is_moderate(norms[i]);
  }
  moderate &= is_moderate(longest);
  const auto add_dots = moderate ? kernel.dots : kernel.wide_dots;
  const auto add_square = moderate ? on_u.dots : on_u.wide_dots;
  const int64_t n = int64_t(agents.size());

  const int64_t tile = tile_bytes / bytes;
  const int slots =
      histogram ? histogram->slots() : slots_for(threads, chunks.count, updates.n * updates.d);
  Dots products(n + 1, chunks.count, slots);  // ⟨Δw_i, u⟩ for every agent, then ‖u‖²
  const int64_t stride = n + cache_line / int64_t(sizeof(void*));
  std::vector<const void*> rows_of(slots * stride);

  const auto chunk = [&](int64_t c, int slot) {
    const void** const x = &rows_of[slot * stride];
    double* const sums = products.start(slot);
    for (int64_t j = chunks.begin(c); j < chunks.end(c); j += tile) {
      const int64_t count = std::min(tile, chunks.end(c) - j);
      const int64_t next =
          j + tile < chunks.end(c) ? j + tile : chunks.begin(std::max<int64_t>(c - 1, 0));
      const void* const u = aggregate + j;
      for (int64_t k = 0; k < n; ++k) x[k] = updates.row(agents[k]) + j * bytes;
      kernel.weighted_sum(x, coefficients.data(), n, count, aggregate + j, far, (next - j) * bytes);
      add_dots(x, n, u, count, sums, far);
      add_square(&u, 1, u, count, sums + n * dot_sums, false);
      if (histogram) histogram->add(aggregate + j, count, slot, false);
    }
    products.finish(c, slot);
  };
  // Backwards: the chunks the norms were taken of last are the ones still in cache.
  for_each(threads, slots, chunks.count, chunk, Order::backwards);

  std::fill_n(dots, updates.n, 0);
  for (int64_t k = 0; k < n; ++k) dots[agents[k]] = products.total(k);
  dots[updates.n] = products.total(n);
}

void cosines_of(int64_t n, const double* dots, const double* norms, double* cosines) {
  const double length = std::sqrt(dots[n]);
  for (int64_t i = 0; i < n; ++i) {
    const bool valid = is_valid(norms[i]) && is_valid(length);
    cosines[i] = valid ? std::clamp(dots[i] / (norms[i] * length), -1.0, 1.0) : 0;
  }
}

template void aggregate_into(const Rows&, const double*, const double*, double, float*, double*,
                             Histogram<float>*, const Threads&);
template void aggregate_into(const Rows&, const double*, const double*, double, double*, double*,
                             Histogram<double>*, const Threads&);

void partial_aggregate(const Rows& updates, const double* weights, const double* norms,
                       double gamma, void* aggregate, double* dots, const Threads& threads) {
  if (aggregate_dtype(updates.dtype) == DType::f64) {
    aggregate_into<double>(updates, weights, norms, gamma, static_cast<double*>(aggregate), dots,
                           nullptr, threads);
  } else {
    aggregate_into<float>(updates, weights, norms, gamma, static_cast<float*>(aggregate), dots,
                          nullptr, threads);
  }
}

void aggregate(const Rows& updates, const double* weights, const double* norms, double gamma,
               void* aggregate, double* cosines, const Threads& threads) {
  std::vector<double> dots(updates.n + 1);
  partial_aggregate(updates, weights, norms, gamma, aggregate, dots.data(), threads);
  cosines_of(updates.n, dots.data(), norms, cosines);
}

}  // namespace cgsv::cpu
