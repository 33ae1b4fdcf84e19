// The aggregation step as the reward step uses it: with the first pass of the selection on board.
#pragma once

#include "histogram.h"

namespace cgsv::cpu {

// As cgsv::cpu::aggregate; where histogram is not null, also counts the aggregate's magnitudes into
// it while they are in cache.
template <class A>
void aggregate_into(const Rows& updates, const double* norms, const double* weights, double gamma,
                    A* aggregate, double* cosines, Histogram<A>* histogram, const Threads& threads);

}  // namespace cgsv::cpu
