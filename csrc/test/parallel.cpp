// How loops are shared out: every task once, one at a time in a slot, a slot's own share before others'.
#include "../core/cpu/parallel.h"

#include <atomic>
#include <chrono>

#include "cpu_backend.h"

namespace test {
namespace {

using cpu::Order;

// The tasks each slot was given, in turn.
std::vector<std::vector<int64_t>> dealt(const Way& way, int slots, int64_t tasks, Order order) {
  std::vector<std::vector<int64_t>> given(slots);
  std::vector<std::atomic<int>> busy(slots);
  cpu::for_each(
      way, slots, tasks,
      [&](int64_t task, int slot) {
        CHECK(busy[slot].fetch_add(1) == 0);
        given[slot].push_back(task);
        busy[slot].fetch_sub(1);
      },
      order);
  return given;
}

void each_once(const Way& way, int slots, int64_t tasks, Order order) {
  const auto given = dealt(way, slots, tasks, order);
  std::vector<int64_t> all;
  for (int slot = 0; slot < slots; ++slot) {
    const std::vector<int64_t>& own = given[slot];
    all.insert(all.end(), own.begin(), own.end());
    // A slot's own share is walked in order; tasks it takes from others follow.
    const int64_t begin = tasks * slot / slots, end = tasks * (slot + 1) / slots;
    bool helps = false;
    for (size_t k = 0; k < own.size(); ++k) {
      helps |= own[k] < begin || own[k] >= end;
      if (helps) CHECK(own[k] < begin || own[k] >= end);
      if (k > 0 && !helps)
        CHECK(order == Order::forwards ? own[k - 1] < own[k] : own[k] < own[k - 1]);
    }
  }
  std::sort(all.begin(), all.end());
  CHECK(int64_t(all.size()) == tasks);
  for (int64_t task = 0; task < int64_t(all.size()); ++task) CHECK(all[task] == task);
}

// Of two threads one is held up in its first task: the other does all the rest.
void helped() {
  for (const Order order : {Order::forwards, Order::backwards}) {
    constexpr int64_t tasks = 40;
    std::atomic<int64_t> others{0};
    std::vector<int> slot_of(tasks);
    cpu::for_each(
        parallel(2), 2, tasks,
        [&](int64_t task, int slot) {
          slot_of[task] = slot;
          const bool first = task == (order == Order::forwards ? 0 : tasks / 2 - 1);
          if (first) {
            using clock = std::chrono::steady_clock;
            const auto patience = clock::now() + std::chrono::seconds(10);
            while (others < tasks - 1 && clock::now() < patience) std::this_thread::yield();
            CHECK(others == tasks - 1);
          } else {
            ++others;
          }
        },
        order);
    CHECK(std::count(slot_of.begin(), slot_of.end(), 1) >= tasks / 2);
  }
}

void run() {
  for (const Way& way : all_ways()) {
    for (const Order order : {Order::forwards, Order::backwards}) {
      for (const int64_t tasks : {0, 1, 2, 3, 7, 128, 1000}) {
        for (const int slots : {1, 2, 3, 5, 9}) each_once(way, slots, tasks, order);
      }
    }
  }
  // Without other threads, the order of all is known.
  CHECK(dealt(serial(), 2, 5, Order::forwards)[0] == (std::vector<int64_t>{0, 1, 2, 3, 4}));
  CHECK(dealt(serial(), 1, 3, Order::backwards)[0] == (std::vector<int64_t>{2, 1, 0}));
  helped();
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
