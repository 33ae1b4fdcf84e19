// Step 7 as the reward step uses it: with the segments already on the device.
#pragma once

#include "rows.cuh"

namespace cgsv::cuda {

cudaError_t download(const Aggregate& aggregate, const Selection& selection, const Parts& segments,
                     const MutableRows& rewards, const Stream& stream);

}  // namespace cgsv::cuda
