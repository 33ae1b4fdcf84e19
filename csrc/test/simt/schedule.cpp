// The orders that threads and blocks take their turns in.
#include <cstdlib>

#include "error.h"
#include "scheduler.h"

namespace simt {

Order order = Order::in_order;
bool preemptive = false;

static unsigned long long state = 1;

unsigned random_below(unsigned n) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return unsigned((state >> 32) * n >> 32);
}

void set_schedule(unsigned long long seed, Order chosen) {
  state = (seed + 1) * 0x9e3779b97f4a7c15 | 1;
  order = chosen;
  preemptive = chosen == Order::random;
}

namespace {
void read_environment() {
  const char *name = std::getenv("SIMT_ORDER"), *seed = std::getenv("SIMT_SEED");
  if (name == nullptr && seed == nullptr) return;
  const char* const names[] = {"in_order", "reversed", "random", "run_ahead"};
  for (int i = 0; i < 4; ++i) {
    if (name == nullptr || std::strcmp(name, names[i]) == 0) {
      return set_schedule(seed ? std::strtoull(seed, nullptr, 10) : 0,
                          name ? Order(i) : Order::random);
    }
  }
  fail("SIMT_ORDER is '%s', not in_order, reversed, random or run_ahead", name);
}
const bool environment_read = (read_environment(), true);
}  // namespace

unsigned Ready::pop() {
  if (order == Order::run_ahead) return items_[(first_ + --count_) & mask()];
  unsigned& front = items_[first_ & mask()];
  if (order == Order::random) std::swap(front, items_[(first_ + random_below(count_)) & mask()]);
  ++first_, --count_;
  return front;
}

void Ready::push_lanes(unsigned base, unsigned lanes) {
  if (order == Order::reversed || order == Order::run_ahead) {  // there, the last is the first
    for (; lanes != 0; lanes &= ~(1u << (31 - __builtin_clz(lanes)))) {
      push(base + 31 - __builtin_clz(lanes));
    }
  } else {
    for (; lanes != 0; lanes &= lanes - 1) push(base + __builtin_ctz(lanes));
  }
}

void Ready::push_all(unsigned count) {
  if (order == Order::reversed || order == Order::run_ahead) {
    for (unsigned i = count; i-- > 0;) push(i);
  } else {
    for (unsigned i = 0; i < count; ++i) push(i);
  }
}

}  // namespace simt
