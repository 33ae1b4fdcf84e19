// The game: what a coalition is worth, and the sampling of permutations. exact.cpp has the sum over all
// coalitions.
#include "../shapley.h"

#include <algorithm>
#include <cmath>

#include "coalitions.h"
#include "parallel.h"

namespace cgsv::shapley {
namespace {

using cpu::Coalition;
using cpu::least_share;

double worth(const Coalition& s) {
  if (!(s.square > s.length * s.length * least_share)) return 0;
  return std::clamp(s.along / std::sqrt(s.square), -1.0, 1.0);
}

}  // namespace

Game::Game(int64_t n, const double* gram, const double* weights)
    : n(n), pairs(n * n), along(n), length(n), cosines(n) {
  std::vector<double> norms(n), w(n);
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    norms[i] = std::sqrt(gram[i * n + i]);
    w[i] = is_valid(norms[i]) && std::isfinite(weights[i]) ? weights[i] : 0;
    largest = std::max(largest, std::fabs(w[i]));
  }
  if (largest == 0) return;
  // In units of a power of two, an exact division: squares of weights neither overflow nor vanish.
  const int unit = std::ilogb(largest);
  for (double& weight : w) weight = std::scalbn(weight, -unit);

  std::vector<double> products(n);  // ⟨x_i, u_N⟩
  for (int64_t i = 0; i < n; ++i) {
    if (!is_valid(norms[i])) continue;
    length[i] = std::fabs(w[i]);
    for (int64_t j = 0; j <= i; ++j) {
      if (!is_valid(norms[j])) continue;
      const double product = 0.5 * gram[i * n + j] + 0.5 * gram[j * n + i];
      const double cosine = i == j ? 1 : product / norms[i] / norms[j];
      pairs[i * n + j] = pairs[j * n + i] = w[i] * w[j] * cosine;
      products[i] += w[j] * cosine;
      if (j < i) products[j] += w[i] * cosine;
    }
  }

  double square = 0, sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    square += w[i] * products[i];
    sum += length[i];
  }
  if (!(square > sum * sum * least_share)) return;
  for (int64_t i = 0; i < n; ++i) {
    const double cosine = products[i] / std::sqrt(square);
    along[i] = w[i] * cosine;
    cosines[i] = std::clamp(cosine, -1.0, 1.0);
  }
}

void value(const Game& game, const bool* members, int64_t count, double* values,
           const Threads& threads) {
  const int64_t n = game.n;
  cpu::for_each(threads, cpu::slots_for(threads, count, count * n * n), count,
                [&](int64_t task, int) {
                  const bool* const in = members + task * n;
                  Coalition s{};
                  for (int64_t i = 0; i < n; ++i) {
                    if (!in[i]) continue;
                    const double* const pairs = &game.pairs[i * n];
                    double before = 0;
                    for (int64_t j = 0; j < i; ++j) before += in[j] ? pairs[j] : 0;
                    s.square += pairs[i] + 2 * before;
                    s.along += game.along[i];
                    s.length += game.length[i];
                  }
                  values[task] = worth(s);
                });
}

void sampled(const Game& game, const int64_t* permutations, int64_t groups, int64_t size,
             double* mean, double* squares, const Threads& threads) {
  const int64_t n = game.n;
  std::vector<double> averages(groups * n);
  const int slots = cpu::slots_for(threads, groups, groups * size * n * n);
  const int64_t stride = n + cpu::cache_line / int64_t(sizeof(double));
  std::vector<double> scratch(slots * stride);

  cpu::for_each(threads, slots, groups, [&](int64_t group, int slot) {
    double* const average = &averages[group * n];
    double* const before = &scratch[slot * stride];  // ⟨w_i x_i, u_S⟩ of every agent
    for (int64_t p = group * size; p < (group + 1) * size; ++p) {
      std::fill_n(before, n, 0);
      Coalition s{};
      double last = 0;
      for (int64_t k = 0; k < n; ++k) {
        const int64_t i = permutations[p * n + k];
        const double* const pairs = &game.pairs[i * n];
        s.square += pairs[i] + 2 * before[i];
        s.along += game.along[i];
        s.length += game.length[i];
        for (int64_t j = 0; j < n; ++j) before[j] += pairs[j];
        const double value = worth(s);
        average[i] += value - last;
        last = value;
      }
    }
    for (int64_t i = 0; i < n; ++i) average[i] /= double(size);
  });

  std::fill_n(mean, n, 0);
  std::fill_n(squares, n, 0);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t i = 0; i < n; ++i) mean[i] += averages[g * n + i];
  }
  for (int64_t i = 0; i < n; ++i) mean[i] /= double(groups);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t i = 0; i < n; ++i) {
      const double distance = averages[g * n + i] - mean[i];
      squares[i] += distance * distance;
    }
  }
}

}  // namespace cgsv::shapley
