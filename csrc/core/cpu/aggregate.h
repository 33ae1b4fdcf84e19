// The aggregation step as the reward step uses it: with the first pass of the selection on board.
#pragma once

#include "histogram.h"

namespace cgsv::cpu {

// As cgsv::cpu::partial_aggregate; where histogram is not null, also counts the aggregate's magnitudes
// into it while they are in cache.
template <class A>
void aggregate_into(const Rows& updates, const double* weights, const double* norms, double gamma,
                    A* aggregate, double* dots, Histogram<A>* histogram, const Threads& threads);

// cosines[i] = cos(u_i, u_N) from the n + 1 dots.
void cosines_of(int64_t n, const double* dots, const double* norms, double* cosines);

}  // namespace cgsv::cpu
