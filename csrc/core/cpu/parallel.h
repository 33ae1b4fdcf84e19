// How work is cut up: into chunks of columns fixed by (N, D) alone, of which every thread takes its share and
// then those of others, so that results indexed by chunk do not depend on the threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "../cgsv.h"
#include "kernels.h"

namespace cgsv::cpu {

// Two threads that write to one line wait for each other.
constexpr int64_t cache_line = 64;

// Whether rows of this size in all are still in memory, and not in a cache, when a step comes to them.
inline bool is_far(int64_t bytes) { return bytes > 8 << 20; }

// The columns [begin(c), end(c)) of chunk c; at most 128 chunks, of whole groups of columns.
struct Chunks {
  int64_t d;
  int64_t columns;
  int64_t count;

  explicit Chunks(int64_t d, int64_t group = 512) : d(d) {
    constexpr int64_t most = 128;
    columns = std::max(group, (d + most * group - 1) / (most * group) * group);
    count = (d + columns - 1) / columns;
  }
  int64_t begin(int64_t c) const { return c * columns; }
  int64_t end(int64_t c) const { return std::min(d, (c + 1) * columns); }
  int64_t size(int64_t c) const { return end(c) - begin(c); }
};

// How many threads `tasks` pieces of `elements` elements in all are worth: waking the others costs
// more than they save below some 1e5 elements.
inline int slots_for(const Threads& threads, int64_t tasks, int64_t elements) {
  constexpr int64_t worth_a_thread = 1 << 15;
  return int(
      std::max<int64_t>(1, std::min({int64_t(threads.count), tasks, elements / worth_a_thread})));
}

// Of 8 lanes: the upper half is added to the lower until one is left.
inline double sum_of_lanes(const double* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

enum class Order { forwards, backwards };

// f(task, slot) once for each task; two tasks run at once only in different slots. Each slot begins with a share
// of consecutive tasks, the same in every loop over as many, so that a thread finds the columns it had last time
// in its own cache; then it helps the others. Shares are walked in the given order.
template <class F>
void for_each(const Threads& threads, int slots, int64_t tasks, const F& f,
              Order order = Order::forwards) {
  struct alignas(cache_line) Share {
    int64_t begin, end;
    std::atomic<int64_t> taken;
  };
  std::vector<Share> shares(slots);
  for (int s = 0; s < slots; ++s) {
    shares[s].begin = tasks * s / slots;
    shares[s].end = tasks * (s + 1) / slots;
  }
  struct Work {
    const F& f;
    Order order;
    std::vector<Share>& shares;
  } work{f, order, shares};
  const auto body = [](int64_t begin, int64_t end, void* context) {
    Work& w = *static_cast<Work*>(context);
    const int64_t slots = int64_t(w.shares.size());
    for (int64_t slot = begin; slot < end; ++slot) {
      for (int64_t k = 0; k < slots; ++k) {
        Share& share = w.shares[(slot + k) % slots];
        const int64_t size = share.end - share.begin;
        // Looked at before it is counted up: a line that nobody writes to any more is read at no one's cost.
        while (share.taken.load(std::memory_order_relaxed) < size) {
          const int64_t t = share.taken.fetch_add(1, std::memory_order_relaxed);
          if (t >= size) break;
          w.f(w.order == Order::forwards ? share.begin + t : share.end - 1 - t, int(slot));
        }
      }
    }
  };
  if (slots == 1) {
    body(0, 1, &work);
  } else {
    threads.parallel_for(0, slots, 1, body, &work);
  }
}

}  // namespace cgsv::cpu
