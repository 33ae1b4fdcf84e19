#include "order.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "race.h"

namespace simt::race {

unsigned now = 1, grid_time = 0, first = 0;
unsigned last_write[most_threads];

namespace {

// Of the running block. Times from blocks before it lie before its accesses and so say nothing.
unsigned start_time, barrier_time;
unsigned known[most_threads][warp_size];  // what a thread knows of its warp's lanes

// What a thread's latest fence covers: its own accesses, its warp's and its block's up to these
// times.
struct Fence {
  unsigned own, warp, block;
};
Fence fences[most_threads];
unsigned fenced;  // what fences cover of the whole block for all of its threads: a barrier came
unsigned fenced_by_some;  // and when the next barrier comes
unsigned last_fence;

// What an atomic at a location made known, at a time, to those whose atomics come later.
struct Publication {
  unsigned thread, time;
  Fence covers;
};
using Publications = std::unordered_map<unsigned, std::vector<Publication>>;  // by block
std::unordered_map<const void*, Publications> locations;

struct Acquisition {
  const void* location;
  Access when;
};
std::vector<Acquisition> acquisitions;  // of the running block

unsigned tick() { return now++; }

}  // namespace

void begin_time() {
  now = 1, grid_time = last_fence = 0;
  std::fill_n(last_write, most_threads, 0);
  std::fill_n(&known[0][0], most_threads * warp_size, 0);
  std::fill_n(fences, most_threads, Fence());
}

void grid_barrier() {
  grid_time = tick();
  locations.clear();
}

void continue_block() {
  start_time = barrier_time = fenced = fenced_by_some = tick();
  first = block->number * block->size;
  acquisitions.clear();
}

void block_barrier() {
  // Writes that their own threads fenced before a barrier are fenced for all behind it.
  bool all = last_fence > start_time;
  for (unsigned i = 0; i < block->size && all; ++i) {
    all = last_write[i] <= std::max(fences[i].own, fenced_by_some);
  }
  fenced = fenced_by_some;
  barrier_time = tick();
  if (all) fenced = fenced_by_some = barrier_time;
}

void warp_barrier(unsigned warp, unsigned mask) {
  const unsigned time = tick();
  unsigned (*lanes)[warp_size] = known + warp * warp_size;
  unsigned joint[warp_size] = {};
  for (unsigned m = mask; m != 0; m &= m - 1) {
    const unsigned* lane = lanes[__builtin_ctz(m)];
    for (int i = 0; i < warp_size; ++i) joint[i] = std::max(joint[i], lane[i]);
  }
  for (unsigned m = mask; m != 0; m &= m - 1) joint[__builtin_ctz(m)] = time;
  for (unsigned m = mask; m != 0; m &= m - 1) {
    std::copy_n(joint, warp_size, lanes[__builtin_ctz(m)]);
  }
}

void fence() {
  const unsigned time = last_fence = tick();
  unsigned warp_time = time;
  for (unsigned m = block->warp[rank / warp_size].lanes; m != 0; m &= m - 1) {
    const unsigned lane = __builtin_ctz(m);
    if (lane != rank % warp_size) warp_time = std::min(warp_time, known[rank][lane]);
  }
  fences[rank] = {time, warp_time, barrier_time};
  fenced_by_some = std::max(fenced_by_some, barrier_time);
}

bool barrier_between(const Access& a) {
  const unsigned other = a.thread - first;
  if (other >= block->size) return false;
  if (a.time <= barrier_time) return true;
  return other / warp_size == rank / warp_size && a.time <= known[rank][other % warp_size];
}

void publish(const void* location) {
  const Fence& mine = fences[rank];
  if (mine.own <= start_time && fenced <= start_time) return;
  std::vector<Publication>& list = locations[location][first];
  const Publication p = {first + rank, now, {mine.own, mine.warp, std::max(mine.block, fenced)}};
  if (!list.empty() && list.back().thread == p.thread && list.back().covers.own == p.covers.own &&
      list.back().covers.block == p.covers.block) {
    return;
  }
  list.push_back(p);
  tick();
}

void acquire(const void* location) {
  if (locations.empty() || locations.count(location) == 0) return;
  const Access when = {first + rank, tick(), 0};
  for (Acquisition& a : acquisitions) {
    if (a.location == location && a.when.thread == when.thread) {
      a.when = when;
      return;
    }
  }
  acquisitions.push_back({location, when});
}

bool published(const Access& a, const void* here) {
  const unsigned size = block->size, its_first = a.thread / size * size;
  for (const Acquisition& acquisition : acquisitions) {
    if (!in_block_before(acquisition.when)) continue;
    const Publications& all = locations[acquisition.location];
    const auto list = all.find(its_first);
    if (list == all.end()) continue;
    for (const Publication& p : list->second) {
      if (p.time > acquisition.when.time) break;
      const bool same_warp =
          (a.thread - its_first) / warp_size == (p.thread - its_first) / warp_size;
      if (a.time <= p.covers.block || (same_warp && a.time <= p.covers.warp)) return true;
      if (a.thread != p.thread) continue;
      if (a.time <= p.covers.own || (here == acquisition.location && a.time <= p.time)) return true;
    }
  }
  return false;
}

}  // namespace simt::race
