// The first digit of the radix selection over an aggregate: how many entries have which exponent and
// leading mantissa bits. Counted by many threads at once, each into a table of its own.
#pragma once

#include <vector>

#include "parallel.h"

namespace cgsv::cpu {

template <class A>
class Histogram {
 public:
  explicit Histogram(int slots) : tables_(slots) {
    for (Table& table : tables_) table.counts.resize(first_digit_bins);
  }

  int slots() const { return int(tables_.size()); }

  void add(const A* u, int64_t count, int slot) {
    Table& t = tables_[slot];
    kernels().on<A>().histogram(u, count, t.counts.data(), &t.min, &t.max);
  }

  // Sums the tables into the first; then count, min and max hold for all that was added.
  void merge() {
    Table& all = tables_[0];
    for (size_t s = 1; s < tables_.size(); ++s) {
      Table& t = tables_[s];
      for (int64_t b = bin(t.min); t.min <= t.max && b <= bin(t.max); ++b) {
        all.counts[b] += t.counts[b];
      }
      all.min = std::min(all.min, t.min);
      all.max = std::max(all.max, t.max);
    }
  }

  static int64_t bin(Key<A> key) { return int64_t(key >> (KeyOf<A>::bits - first_digit_bits)); }
  int64_t count(int64_t bin) const { return int64_t(tables_[0].counts[bin]); }
  Key<A> min() const { return tables_[0].min; }
  Key<A> max() const { return tables_[0].max; }

 private:
  struct Table {
    std::vector<uint64_t> counts;
    Key<A> min = ~Key<A>(0) >> 1;
    Key<A> max = 0;
  };
  std::vector<Table> tables_;
};

}  // namespace cgsv::cpu
