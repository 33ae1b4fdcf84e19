// The first digit of the radix selection over an aggregate: how many entries have which exponent and
// leading mantissa bits. Counted by many threads at once, each into a table of its own.
#pragma once

#include <memory>
#include <vector>

#include "parallel.h"

namespace cgsv::cpu {

template <class A>
class Histogram {
 public:
  // For d entries in all.
  Histogram(int slots, int64_t d) : tables_(slots) {
    for (Table& table : tables_) {
      table.counts.reset(new uint32_t[first_digit_bins]);
      if (d > spill_at) table.spilled.resize(first_digit_bins);
    }
  }

  int slots() const { return int(tables_.size()); }

  void add(const A* u, int64_t count, int slot, bool far) {
    Table& t = tables_[slot];
    // Each thread clears its own table: in parallel, into its cache.
    if (t.added == 0) std::fill_n(t.counts.get(), first_digit_bins, 0);
    if ((t.added += count) > spill_at) t.spill(count);
    kernels().on<A>().histogram(u, count, t.counts.get(), &t.min, &t.max, far);
  }

  // Sums the tables; then count, min and max hold for all that was added.
  void merge() {
    for (const Table& t : tables_) {
      min_ = std::min(min_, t.min);
      max_ = std::max(max_, t.max);
    }
    // The key of every NaN is the first above infinity, in the same bin; the tables have them apart.
    const int64_t from = bin(min_), to = bin(max_), last = bin(KeyOf<A>::infinity);
    min_ = std::min(min_, KeyOf<A>::infinity + 1);
    max_ = std::min(max_, KeyOf<A>::infinity + 1);
    total_.assign(bin(max_) - bin(min_) + 1, 0);
    for (const Table& t : tables_) {
      if (t.added == 0) continue;
      const auto count = [&](int64_t b) {
        return t.counts[b] + (t.spilled.empty() ? 0 : t.spilled[b]);
      };
      for (int64_t b = from; b <= std::min(to, last); ++b) total_[b - from] += count(b);
      for (int64_t b = std::max(from, last + 1); b <= to; ++b) total_.back() += count(b);
    }
  }

  static int64_t bin(Key<A> key) { return int64_t(key >> (KeyOf<A>::bits - first_digit_bits)); }
  int64_t count(int64_t b) const { return total_[b - bin(min_)]; }
  Key<A> min() const { return min_; }
  Key<A> max() const { return max_; }

 private:
  // 32-bit counters keep the table small; they move over long before one can overflow.
  static constexpr int64_t spill_at = 1 << 24;

  struct alignas(cache_line) Table {
    std::unique_ptr<uint32_t[]> counts;
    std::vector<int64_t> spilled;
    int64_t added = 0;  // since the last spill
    Key<A> min = ~Key<A>(0) >> 1;
    Key<A> max = 0;

    void spill(int64_t next) {
      for (int64_t b = 0; b < first_digit_bins; ++b) spilled[b] += counts[b];
      std::fill_n(counts.get(), first_digit_bins, 0);
      added = next;
    }
  };

  std::vector<Table> tables_;
  std::vector<int64_t> total_;  // from the bin of the least key to that of the greatest
  Key<A> min_ = ~Key<A>(0) >> 1;
  Key<A> max_ = 0;
};

}  // namespace cgsv::cpu
