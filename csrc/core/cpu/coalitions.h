// What the enumeration of coalitions hands to its kernel, one block of coalitions at a time.
#pragma once

namespace cgsv::cpu {

// A block holds every subset of 8 agents.
constexpr int coalition_bits = 8;
constexpr int coalition_block = 1 << coalition_bits;
// Sums over a block run in interleaved lanes, one for each subset of the first 3 of them.
constexpr int coalition_lane_bits = 3;
constexpr int coalition_lanes = 1 << coalition_lane_bits;

// What ‖u_S‖² must exceed, of (Σ_S |w_i|)²: else u_S counts as zero.
constexpr double least_share = 1e-12;

// ‖u_S‖², ⟨u_S, u_N⟩ / ‖u_N‖ and Σ_S ‖w_i x_i‖.
struct Coalition {
  double square, along, length;
};
// ... of every subset of up to 8 agents; bit b of the index says whether agent b is in it.
struct Coalitions {
  double square[coalition_block], along[coalition_block], length[coalition_block];
};

// How much the values of a block count in the two sums that a semivalue is made of.
struct CoalitionWeights {
  double joined[coalition_block], all[coalition_block];
};

// sums[S] = begin + Σ_{b in S} steps[b], for all subsets S of `bits` agents. Always inlined, for the
// reason key_of is.
__attribute__((always_inline)) inline void subset_sums(double begin, const double* steps, int bits,
                                                       double* sums) {
  sums[0] = begin;
  for (int b = 0; b < bits; ++b) {
    for (int s = 0; s < 1 << b; ++s) sums[(1 << b) + s] = sums[s] + steps[b];
  }
}

}  // namespace cgsv::cpu
