// Which of some prefixes an entry's key begins with: what the selection narrows down by, and what is
// counted under.
#pragma once

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "parallel.h"

namespace cgsv::cpu {

// Work on blocks that stay in the L1 cache while the kernels go over them prefix by prefix.
constexpr int64_t block_size = 2048;

// f(u, count, index of the first, chunk, slot) for blocks of every chunk, in parallel.
template <class A, class F>
void for_each_block(const A* u, const Chunks& chunks, const Threads& threads, int slots,
                    const F& f) {
  for_each(threads, slots, chunks.count, [&](int64_t c, int slot) {
    for (int64_t j = chunks.begin(c); j < chunks.end(c); j += block_size) {
      f(u + j, std::min(block_size, chunks.end(c) - j), j, c, slot);
    }
  });
}

// Local indices of a block's entries; the last is room for one that is written and not counted.
using Hits = uint32_t[block_size + 1];

// Distinct prefixes (keys >> shift), descending; where there are many, each must include the whole first
// digit. The entries are far or not (kernels.h).
template <class A>
class Finder {
 public:
  Finder(std::vector<Key<A>> prefixes, int shift, bool far)
      : shift_(shift), far_(far), prefixes_(std::move(prefixes)) {
    if (few()) return;
    // Many: a table over the first digit says which is the first that can hold an entry.
    first_.assign(first_digit_bins, -1);
    for (size_t b = prefixes_.size(); b-- > 0;) first_[digit(prefixes_[b] << shift)] = int32_t(b);
  }

  // How many entries of a block may be under a prefix, and which.
  int64_t hits(const A* u, int64_t count, Hits& out) const {
    int64_t found = 0;
    if (few()) {
      const int n = int(prefixes_.size());
      for (int b = 0; b < n; b += max_prefixes) {
        found +=
            kernels().on<A>().match(u, count, shift_, prefixes_.data() + b,
                                    std::min(max_prefixes, n - b), out + found, far_ && b == 0);
      }
      return found;
    }
    for (int64_t j = 0; j < count; ++j) {
      out[found] = uint32_t(j);
      found += first_[digit(key_of(u[j]))] >= 0;
    }
    return found;
  }

  // Index of the prefix of a key that `hits` passed; -1 if none, possible only where there are many.
  int64_t bin(Key<A> key) const {
    const Key<A> prefix = key >> shift_;
    if (few()) {  // certainly in one
      int64_t greater = 0;
      for (const Key<A> other : prefixes_) greater += other > prefix;
      return greater;
    }
    auto at = prefixes_.begin() + first_[digit(key)];
    if (at != prefixes_.end() && *at != prefix) {
      at = std::lower_bound(at, prefixes_.end(), prefix, std::greater<>());
    }
    return at != prefixes_.end() && *at == prefix ? at - prefixes_.begin() : -1;
  }

 private:
  // For more, one look-up an entry takes less than comparisons with all.
  bool few() const { return prefixes_.size() <= 2 * max_prefixes; }
  static size_t digit(Key<A> key) { return size_t(key >> (KeyOf<A>::bits - first_digit_bits)); }

  int shift_;
  bool far_;
  std::vector<Key<A>> prefixes_;
  std::vector<int32_t> first_;
};

}  // namespace cgsv::cpu
