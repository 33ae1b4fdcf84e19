// The sum over all 2^n coalitions, some 20 instructions each and no memory for them.
//
// Agents are split in three: 8 low ones, up to 8 middle ones and up to 16 top ones. ‖u_S‖² of a union is
// the sum of the parts' and of what the parts are to each other, linear in each, so tables of 256 entries
// make up every coalition in a few additions, from scratch each time: there is no drift. A kernel takes
// the 256 coalitions that share their middle and top members; a unit of work takes those of one top.
//
// Of the two sums a semivalue is made of,
//   φ_i = Σ_{S ∋ i} (c_{|S|−1} + c_{|S|}) v(S) − Σ_S c_{|S|} v(S),
// the first is gathered for the low agents by coalition, for the middle ones by block and for the top
// ones by unit.
#include <algorithm>
#include <array>

#include "../shapley.h"
#include "coalitions.h"
#include "parallel.h"

namespace cgsv::shapley {
namespace {

using cpu::Coalition;
using cpu::coalition_bits;
using cpu::coalition_block;
using cpu::coalition_lanes;
using cpu::Coalitions;
using cpu::CoalitionWeights;
using cpu::subset_sums;
using cpu::sum_of_lanes;

constexpr int most_middle = 8, most_lower = coalition_bits + most_middle;

int members(int64_t s) { return __builtin_popcountll(uint64_t(s)); }

// weight(k): how much a marginal contribution to a coalition of k counts, of n agents.
std::vector<double> weights_of(Semivalue kind, int n) {
  std::vector<double> weights(n);
  double weight = 1;
  if (kind == Semivalue::banzhaf) {
    for (int k = 1; k < n; ++k) weight /= 2;
    std::fill(weights.begin(), weights.end(), weight);
  } else {
    // 1 / (n · (n − 1 choose k))
    double choices = 1;
    for (int k = 0; k < n; ++k) {
      weights[k] = 1 / (n * choices);
      choices = choices * (n - 1 - k) / (k + 1);
    }
  }
  return weights;
}

class Enumeration {
 public:
  // The agents that add anything; those that add nothing change no one's value and fill up the block.
  Enumeration(const Game& game, Semivalue kind) {
    for (int64_t i = 0; i < game.n; ++i) {
      if (game.length[i] > 0) agents_.push_back(i);
    }
    n_ = std::max(int(agents_.size()), coalition_bits);
    middle_bits_ = std::min(most_middle, n_ - coalition_bits);
    lower_ = coalition_bits + middle_bits_;
    for (size_t a = 0; a < agents_.size(); ++a) {
      const int64_t i = agents_[a];
      along_[a] = game.along[i];
      length_[a] = game.length[i];
      for (size_t b = 0; b < agents_.size(); ++b)
        pairs_[a][b] = game.pairs[i * game.n + agents_[b]];
    }

    low_ = subsets(0, coalition_bits);
    middle_ = subsets(coalition_bits, middle_bits_);
    for (int i = 0; i < coalition_bits; ++i) {
      double steps[most_middle], sums[coalition_block];
      for (int b = 0; b < middle_bits_; ++b) steps[b] = 2 * pairs_[coalition_bits + b][i];
      subset_sums(0, steps, middle_bits_, sums);
      for (int h = 0; h < 1 << middle_bits_; ++h) middle_cross_[h][i] = sums[h];
    }

    const std::vector<double> weight = weights_of(kind, n_);
    weights_.resize(n_ - coalition_bits + 1);
    for (int others = 0; others < int(weights_.size()); ++others) {
      for (int s = 0; s < coalition_block; ++s) {
        const int size = others + members(s);
        weights_[others].all[s] = size < n_ ? weight[size] : 0;
        weights_[others].joined[s] = weights_[others].all[s] + (size > 0 ? weight[size - 1] : 0);
      }
    }
  }

  const std::vector<int64_t>& agents() const { return agents_; }
  int n() const { return n_; }
  int64_t units() const { return int64_t(1) << (n_ - lower_); }
  int64_t coalitions_a_unit() const { return int64_t(1) << lower_; }

  // sums[i] = Σ_{S ∋ i} over the coalitions of one unit, sums[n] = Σ_S over all of them.
  void run(int64_t top_members, double* sums) const {
    Coalition top{};
    double cross[most_lower] = {};  // 2 ⟨w_i x_i, u_top⟩
    for (int t = lower_; t < n_; ++t) {
      if (!contains(top_members, t)) continue;
      double before = 0;
      for (int s = lower_; s < t; ++s) before += contains(top_members, s) ? pairs_[t][s] : 0;
      top.square += pairs_[t][t] + 2 * before;
      top.along += along_[t];
      top.length += length_[t];
      for (int i = 0; i < lower_; ++i) cross[i] += 2 * pairs_[t][i];
    }
    double with_top[coalition_block];
    subset_sums(top.square, cross + coalition_bits, middle_bits_, with_top);

    const auto coalitions = cpu::kernels().coalitions;
    double joined[coalition_block] = {}, all[coalition_lanes] = {}, of_middle[coalition_block];
    for (int h = 0; h < 1 << middle_bits_; ++h) {
      const Coalition high = {middle_.square[h] + with_top[h], middle_.along[h] + top.along,
                              middle_.length[h] + top.length};
      double low_cross[coalition_bits], of_block[coalition_lanes];
      for (int i = 0; i < coalition_bits; ++i) low_cross[i] = cross[i] + middle_cross_[h][i];
      coalitions(low_, high, low_cross, weights_[members(top_members) + members(h)], joined,
                 of_block, all);
      of_middle[h] = sum_of_lanes(of_block);
    }

    std::fill_n(sums, n_, 0);
    double of_unit = 0;
    for (int s = 0; s < coalition_block; ++s) {
      for (int i = 0; i < coalition_bits; ++i) sums[i] += s >> i & 1 ? joined[s] : 0;
    }
    for (int h = 0; h < 1 << middle_bits_; ++h) {
      for (int b = 0; b < middle_bits_; ++b) {
        sums[coalition_bits + b] += h >> b & 1 ? of_middle[h] : 0;
      }
      of_unit += of_middle[h];
    }
    for (int t = lower_; t < n_; ++t) sums[t] = contains(top_members, t) ? of_unit : 0;
    sums[n_] = sum_of_lanes(all);
  }

 private:
  bool contains(int64_t top_members, int agent) const {
    return top_members >> (agent - lower_) & 1;
  }

  Coalitions subsets(int first, int bits) const {
    Coalitions found{};
    for (int b = 0; b < bits; ++b) {
      double steps[coalition_bits], before[coalition_block];
      for (int j = 0; j < b; ++j) steps[j] = 2 * pairs_[first + b][first + j];
      subset_sums(pairs_[first + b][first + b], steps, b, before);
      for (int s = 0; s < 1 << b; ++s) {
        found.square[(1 << b) + s] = found.square[s] + before[s];
      }
    }
    subset_sums(0, &along_[first], bits, found.along);
    subset_sums(0, &length_[first], bits, found.length);
    return found;
  }

  std::vector<int64_t> agents_;
  int n_, middle_bits_, lower_;
  double pairs_[most_agents][most_agents] = {}, along_[most_agents] = {}, length_[most_agents] = {};
  Coalitions low_, middle_;
  double middle_cross_[coalition_block][coalition_bits] = {};  // 2 ⟨w_i x_i, u_middle⟩
  std::vector<CoalitionWeights> weights_;  // by the number of middle and top members
};

}  // namespace

void exact(const Game& game, Semivalue kind, double* values, const Threads& threads,
           const Progress& progress) {
  // Some 20 ms of one thread, between two reports.
  constexpr int64_t batch = 256;
  const Enumeration all(game, kind);
  const int n = all.n();
  const int64_t a_unit = all.coalitions_a_unit();
  std::vector<double> sums(n + 1), of_batch(n + 1);
  std::vector<double> partial(std::min(batch, all.units()) * (n + 1));

  for (int64_t begin = 0; begin < all.units(); begin += batch) {
    const int64_t units = std::min(batch, all.units() - begin);
    const int slots = cpu::slots_for(threads, units, units * a_unit);
    cpu::for_each(threads, slots, units,
                  [&](int64_t unit, int) { all.run(begin + unit, &partial[unit * (n + 1)]); });
    std::fill(of_batch.begin(), of_batch.end(), 0);
    for (int64_t unit = 0; unit < units; ++unit) {
      for (int i = 0; i <= n; ++i) of_batch[i] += partial[unit * (n + 1) + i];
    }
    for (int i = 0; i <= n; ++i) sums[i] += of_batch[i];
    progress.report((begin + units) * a_unit, all.units() * a_unit, progress.context);
  }

  std::fill_n(values, game.n, 0);
  for (size_t a = 0; a < all.agents().size(); ++a) values[all.agents()[a]] = sums[a] - sums[n];
}

}  // namespace cgsv::shapley
