// torch's own threads, so that torch.set_num_threads rules in the core, too.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "../core/cgsv.h"

namespace cgsv::binding {

inline Threads torch_threads() {
  Threads threads;
  threads.count = int(torch::stable::get_num_threads());
  threads.parallel_for = [](int64_t begin, int64_t end, int64_t grain, Threads::Body body,
                            void* context) {
    torch::stable::parallel_for(begin, end, grain,
                                [&](int64_t b, int64_t e) { body(b, e, context); });
  };
  return threads;
}

}  // namespace cgsv::binding
