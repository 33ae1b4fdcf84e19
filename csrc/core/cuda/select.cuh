// Step 6 as the reward step uses it: on a first digit that is already counted.
#pragma once

#include "histogram.cuh"
#include "rows.cuh"

namespace cgsv::cuda {

// Whether one launch selects for all agents, and can so use a table that the aggregation filled.
bool selects_at_once(int64_t n);

// The bytes that a launch allocates, once, with the first digits counted already or not: of several
// launches, those of the first.
cudaError_t select_scratch(const Aggregate& aggregate, int64_t n, int64_t segments, bool counted,
                           int64_t* bytes);

// As cgsv::cuda::select. `table` holds the first digits of the one segment's keys, or is null.
cudaError_t select(const Aggregate& aggregate, int64_t n, const int64_t* quotas,
                   const Parts& segments, Count* table, void* magnitude, int64_t* last_index,
                   const Stream& stream);

}  // namespace cgsv::cuda
