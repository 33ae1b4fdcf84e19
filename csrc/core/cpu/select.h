// The selection step as the reward step uses it: on a histogram that is already there.
#pragma once

#include "histogram.h"

namespace cgsv::cpu {

// Few enough to order all of them: no digit is worth counting.
constexpr int64_t few_entries = 1024;

// As cgsv::cpu::select for one segment of d entries at u, whose first index is `first`. Agent i's
// quota and results are at [i · stride]. The histogram holds all of the segment, or is null.
template <class A>
void select_segment(const A* u, int64_t d, int64_t first, int64_t n, int64_t stride,
                    const int64_t* quotas, A* magnitude, int64_t* last_index,
                    Histogram<A>* histogram, const Threads& threads);

}  // namespace cgsv::cpu
