// What the enumeration of coalitions hands to its kernel, one block of coalitions at a time.
#pragma once

namespace cgsv::cpu {

// A block holds every subset of 8 agents.
constexpr int coalition_bits = 8;
constexpr int coalition_block = 1 << coalition_bits;
// Sums over a block run in this many interleaved lanes.
constexpr int coalition_lanes = 8;

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

}  // namespace cgsv::cpu
