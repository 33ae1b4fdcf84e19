// Coalitions of agents and what each is worth: the game of equation (2), on the host.
//
// A coalition S is worth v(S) = cos(u_S, u_N) with u_S = Σ_S w_i x_i, where x_i is agent i's update
// divided by its length. The Gram matrix knows all of that: ⟨u_S, u_N⟩ is a sum over the members of S,
// ‖u_S‖² one over their pairs. So no function here sees an update, nor costs more for longer ones.
//
// Zero     v(∅) = 0, and v(S) = 0 where u_S counts as zero: ‖u_S‖² ≤ 1e-12 (Σ_S |w_i|)². Where u_N
//          does, every coalition is worth 0. Otherwise v is clamped to [−1, 1].
// Nobody   An agent whose update has no finite, positive norm adds nothing to any coalition, and nothing
//          of its row or column is used. A weight that is not finite counts as 0.
// Bits     As in cgsv.h: the same for any number of threads and any instruction set.
// Failure  Nothing here checks its arguments. Running out of memory throws std::bad_alloc.
#pragma once

#include <vector>

#include "cgsv.h"

namespace cgsv::shapley {

// What every coalition's worth is made of. Scaling all weights alike changes nothing.
struct Game {
  // gram: (n, n) row by row, the inner products of the updates or of the x_i; of an asymmetric one the
  // symmetric part counts.
  Game(int64_t n, const double* gram, const double* weights);

  int64_t n;
  std::vector<double> pairs;    // (n, n): ⟨w_i x_i, w_j x_j⟩
  std::vector<double> along;    // ⟨w_i x_i, u_N⟩ / ‖u_N‖
  std::vector<double> length;   // |w_i|
  std::vector<double> cosines;  // ψ_i = cos(x_i, u_N), equation (3)
};

// values[k] = v of the coalition of the agents i with members[k · n + i]. O(n²) a coalition.
void value(const Game& game, const bool* members, int64_t count, double* values,
           const Threads& threads);

// Marginal contributions along permutations (of 0 … n − 1, row by row), averaged within each of
// `groups` groups of `size` permutations. mean[i] is the groups' mean for agent i, squares[i] the sum of
// their squared distances from it. O(n²) a permutation.
void sampled(const Game& game, const int64_t* permutations, int64_t groups, int64_t size,
             double* mean, double* squares, const Threads& threads);

// Called from the calling thread now and then, with how many coalitions are done; may throw to stop.
struct Progress {
  void (*report)(int64_t done, int64_t total, void* context) = [](int64_t, int64_t, void*) {};
  void* context = nullptr;
};

constexpr int64_t most_agents = 32;

// How much a marginal contribution to a coalition counts: by its size as in equation (2), or all alike.
enum class Semivalue { shapley, banzhaf };

// Σ over all S without i of weight(|S|) · (v(S ∪ {i}) − v(S)), for n ≤ most_agents, from all 2^n
// coalitions.
void exact(const Game& game, Semivalue kind, double* values, const Threads& threads,
           const Progress& progress = {});

}  // namespace cgsv::shapley
