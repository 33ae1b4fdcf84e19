// Step 6: where the q_i largest of |u| end, exactly, for all agents at once.
//
// A radix selection on the key (the bits of |u|), from the top digit down. One pass counts the first
// digit (in the reward step it comes for free with the aggregation). That leaves each quota a prefix,
// a bin of entries among which its boundary lies, and a rank within it. Then, as long as there are
// quotas to place:
//
//   pin      a crowded bin: one pass finds its least and its greatest key. Where they are equal the
//            magnitude is known, and the ties are located through the counts by chunk.
//   gather   few candidates in the bins that are left: collect them, order them by (key, index).
//   refine   otherwise: count the next digit within the bins. Should no digit be left, the prefixes
//            are keys, and a tally by chunk locates the ties.
//
// Ties need no care in `gather`, since no two (key, index) are equal, and adversarial inputs (all
// equal, half zeros, few distinct values) cost `pin` one pass. Every result is an exact count or a
// unique order statistic, so neither threads nor the order of the passes can show.
#include "select.h"

#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "finder.h"

namespace cgsv::cpu {
namespace {

// A quota to place: among the entries under `prefix`, the rank-th by (key descending, index
// ascending).
template <class A>
struct Target {
  int64_t quota;
  Key<A> prefix;
  int64_t rank;
  Key<A> key;
  int64_t index;
};

// Entries under one prefix, and the targets (a range of the sorted list) that fall among them.
template <class A>
struct Bin {
  Key<A> prefix;
  int64_t count;
  int64_t first_target, last_target;
};

// Key bits and index in one integer that is unique and orders as the selection does: larger first.
// The low key bits (those below the prefix) take the top, the index counts down below them.
template <class A>
struct SortKey;
template <>
struct SortKey<float> {
  using type = uint64_t;
  static type make(uint32_t low_bits, int shift, int64_t index) {
    const int index_bits = 64 - shift;
    const uint64_t mask = ~uint64_t(0) >> (64 - index_bits);
    return (shift ? uint64_t(low_bits) << index_bits : 0) | (mask - uint64_t(index));
  }
  static uint32_t low_bits(type key, int shift) {
    return shift ? uint32_t(key >> (64 - shift)) : 0;
  }
  static int64_t index(type key, int shift) {
    const uint64_t mask = ~uint64_t(0) >> shift;
    return int64_t(mask - (key & mask));
  }
};
template <>
struct SortKey<double> {
  struct type {
    uint64_t low_bits;
    int64_t index;
    bool operator>(const type& other) const {
      return low_bits != other.low_bits ? low_bits > other.low_bits : index < other.index;
    }
  };
  static type make(uint64_t low_bits, int, int64_t index) { return {low_bits, index}; }
  static uint64_t low_bits(const type& key, int) { return key.low_bits; }
  static int64_t index(const type& key, int) { return key.index; }
};

template <class A>
class Selector {
 public:
  Selector(const A* u, int64_t d, const Threads& threads)
      : u_(u),
        d_(d),
        far_(is_far(d * int64_t(sizeof(A)))),
        chunks_(d),
        threads_(threads),
        slots_(slots_for(threads, chunks_.count, d)) {}

  // Places targets sorted by quota, all in [1, d].
  void place(std::vector<Target<A>>& targets, Histogram<A>* histogram) {
    if (targets.empty()) return;
    shift_ = KeyOf<A>::bits;
    std::vector<Bin<A>> bins;
    if (!histogram && d_ <= few_entries) {
      for (Target<A>& t : targets) t.prefix = 0, t.rank = t.quota;
      bins.push_back({0, d_, 0, int64_t(targets.size())});
    } else if (histogram) {
      bins = place_first_digit(targets, *histogram);
    } else {
      Histogram<A> own(slots_, d_);
      for_each_block([&](const A* u, int64_t count, int64_t, int64_t, int slot) {
        own.add(u, count, slot, far_);
      });
      bins = place_first_digit(targets, own);
    }
    for (pin(bins, targets); !bins.empty(); pin(bins, targets)) {
      if (candidates(bins) <= gather_limit()) return gather(bins, targets);
      if (shift_ == 0) return tally(bins, targets);
      bins = refine(bins, targets);
    }
  }

 private:
  // Candidates are worth collecting up to an eighth of the input, and cost 8 MiB at the most (twice
  // that for double).
  int64_t gather_limit() const {
    return std::max<int64_t>(1 << 19, std::min<int64_t>(d_ / 8, 1 << 20));
  }

  // More entries than this in one bin are likely ties, and worth a pass to find out.
  int64_t crowd() const { return std::max<int64_t>(4096, d_ / 16); }

  static int64_t candidates(const std::vector<Bin<A>>& bins) {
    return std::accumulate(bins.begin(), bins.end(), int64_t(0),
                           [](int64_t sum, const Bin<A>& bin) { return sum + bin.count; });
  }

  // Walks the merged histogram from the top, only as far as the largest quota reaches; whoever keeps
  // everything ends at the least key, which is known.
  std::vector<Bin<A>> place_first_digit(std::vector<Target<A>>& targets, Histogram<A>& histogram) {
    histogram.merge();
    shift_ = KeyOf<A>::bits - first_digit_bits;
    std::vector<Bin<A>> bins;
    int64_t bin = histogram.bin(histogram.max());
    const int64_t lowest = histogram.bin(histogram.min());
    int64_t above = 0;
    for (int64_t i = 0; i < int64_t(targets.size()); ++i) {
      Target<A>& t = targets[i];
      if (t.quota == d_) {
        bin = lowest;
        above = d_ - histogram.count(bin);
      }
      for (; above + histogram.count(bin) < t.quota; --bin) above += histogram.count(bin);
      t.prefix = Key<A>(bin);
      t.rank = t.quota - above;
      assign(bins, t.prefix, histogram.count(bin), i);
    }
    return bins;
  }

  // Adds target i to the bin of this prefix, the last one if it exists at all.
  static void assign(std::vector<Bin<A>>& bins, Key<A> prefix, int64_t count, int64_t i) {
    if (bins.empty() || bins.back().prefix != prefix) bins.push_back({prefix, count, i, i});
    bins.back().last_target = i + 1;
  }

  // f(u, count, index of the first, chunk, slot) for blocks of every chunk, in parallel.
  template <class F>
  void for_each_block(const F& f) const {
    cpu::for_each_block(u_, chunks_, threads_, slots_, f);
  }

  Finder<A> finder_of(const std::vector<Bin<A>>& bins, int shift) const {
    std::vector<Key<A>> prefixes;
    for (const Bin<A>& bin : bins) prefixes.push_back(bin.prefix);
    return Finder<A>(std::move(prefixes), shift, far_);
  }

  // ------------------------------------------------------------------------------------- gather

  using K = SortKey<A>;
  using Entry = typename K::type;

  void gather(const std::vector<Bin<A>>& bins, std::vector<Target<A>>& targets) const {
    const Key<A> low_mask = shift_ ? ~Key<A>(0) >> (8 * sizeof(A) - shift_) : 0;
    std::vector<std::atomic<int64_t>> next(bins.size());
    std::vector<int64_t> start(bins.size() + 1);
    for (size_t b = 0; b < bins.size(); ++b) start[b + 1] = start[b] + bins[b].count;
    for (size_t b = 0; b < bins.size(); ++b) next[b] = start[b];
    std::vector<Entry> entries(start[bins.size()]);
    const Finder<A> finder = finder_of(bins, shift_);

    // Entries leave a thread in batches: a counter that every core wants for every entry took longer
    // than all else here.
    struct Batch {
      Entry entries[32];
      int64_t count = 0;
    };
    std::vector<Batch> batches(slots_ * bins.size());
    const auto flush = [&](Batch& batch, int64_t b) {
      // The place of an entry depends on the threads, the set in the bin does not.
      const int64_t at = next[b].fetch_add(batch.count, std::memory_order_relaxed);
      std::copy_n(batch.entries, batch.count, entries.data() + at);
      batch.count = 0;
    };
    for_each_block([&](const A* u, int64_t count, int64_t first, int64_t, int slot) {
      Hits hits;
      const int64_t found = finder.hits(u, count, hits);
      for (int64_t h = 0; h < found; ++h) {
        const Key<A> key = key_of(u[hits[h]]);
        const int64_t b = finder.bin(key);
        if (b < 0) continue;
        Batch& batch = batches[slot * bins.size() + size_t(b)];
        batch.entries[batch.count++] = K::make(key & low_mask, shift_, first + hits[h]);
        if (batch.count == 32) flush(batch, b);
      }
    });
    for (size_t k = 0; k < batches.size(); ++k) flush(batches[k], int64_t(k % bins.size()));

    for_each(threads_, slots_for(threads_, int64_t(bins.size()), start[bins.size()] * 8),
             int64_t(bins.size()), [&](int64_t b, int) {
               const Bin<A>& bin = bins[b];
               Entry* const first = entries.data() + start[b];
               order(first, first, first + bin.count, bin.prefix, targets.data() + bin.first_target,
                     targets.data() + bin.last_target);
             });
  }

  // Order statistics of the bin that begins at `bin`, the middle target first: what it splits off on
  // either side is all that the targets on that side need to look at.
  void order(Entry* bin, Entry* from, Entry* to, Key<A> prefix, Target<A>* first,
             Target<A>* last) const {
    if (first == last) return;
    Target<A>* const middle = first + (last - first) / 2;
    Entry* const at = bin + (middle->rank - 1);
    std::nth_element(from, at, to, std::greater<>());
    middle->key = prefix << shift_ | K::low_bits(*at, shift_);
    middle->index = K::index(*at, shift_);
    order(bin, from, at, prefix, first, middle);
    order(bin, at + 1, to, prefix, middle + 1, last);
  }

  // ------------------------------------------------------------------------------------- pin

  // Settles the targets of crowded bins that hold a single key, and drops these bins.
  void pin(std::vector<Bin<A>>& bins, std::vector<Target<A>>& targets) const {
    std::vector<Bin<A>> crowded, rest;
    std::vector<Key<A>> prefixes;
    for (const Bin<A>& bin : bins) {
      (bin.count > crowd() ? crowded : rest).push_back(bin);
      if (bin.count > crowd()) prefixes.push_back(bin.prefix);
    }
    const size_t n = crowded.size();
    if (n == 0) return;
    static_assert(max_prefixes >= 16, "no more than 16 bins hold a sixteenth each");
    std::vector<Extent<A>> extents(chunks_.count * n);
    for_each_block([&](const A* u, int64_t count, int64_t, int64_t c, int) {
      kernels().on<A>().extent(u, count, shift_, prefixes.data(), int(n), &extents[c * n]);
    });

    std::vector<Tied> tied;
    for (size_t p = 0; p < n; ++p) {
      Extent<A> all;
      for (int64_t c = 0; c < chunks_.count; ++c) {
        all.min = std::min(all.min, extents[c * n + p].min);
        all.max = std::max(all.max, extents[c * n + p].max);
      }
      if (all.min == all.max) {
        tie(crowded[p], all.min, p, targets, tied);
      } else {
        rest.push_back(crowded[p]);
      }
    }
    locate(tied, [&](int64_t c, size_t p) { return extents[c * n + p].count; });
    std::sort(rest.begin(), rest.end(),
              [](const Bin<A>& a, const Bin<A>& b) { return a.prefix > b.prefix; });
    bins = rest;
  }

  // Settles all targets when no bits are left, so that every prefix is a key.
  void tally(const std::vector<Bin<A>>& bins, std::vector<Target<A>>& targets) const {
    const size_t n = bins.size();
    const Finder<A> finder = finder_of(bins, shift_);
    std::vector<int64_t> counts(chunks_.count * n);
    for_each_block([&](const A* u, int64_t count, int64_t, int64_t c, int) {
      Hits hits;
      const int64_t found = finder.hits(u, count, hits);
      for (int64_t h = 0; h < found; ++h) {
        const int64_t b = finder.bin(key_of(u[hits[h]]));
        if (b >= 0) ++counts[c * n + size_t(b)];
      }
    });
    std::vector<Tied> tied;
    for (size_t b = 0; b < n; ++b) tie(bins[b], bins[b].prefix, b, targets, tied);
    locate(tied, [&](int64_t c, size_t b) { return counts[c * n + b]; });
  }

  // A target whose key is known, and where its ties are counted.
  struct Tied {
    Target<A>* target;
    size_t column;
  };

  static void tie(const Bin<A>& bin, Key<A> key, size_t column, std::vector<Target<A>>& targets,
                  std::vector<Tied>& tied) {
    for (int64_t i = bin.first_target; i < bin.last_target; ++i) {
      targets[i].key = key;
      tied.push_back({&targets[i], column});
    }
  }

  // The index of the rank-th entry with exactly the target's key; ties(c, column) are in chunk c.
  template <class Ties>
  void locate(const std::vector<Tied>& tied, const Ties& ties) const {
    const int64_t n = int64_t(tied.size());
    for_each(threads_, slots_for(threads_, n, n * chunks_.columns), n, [&](int64_t k, int) {
      Target<A>& t = *tied[k].target;
      int64_t left = t.rank;
      int64_t c = 0;
      for (; left > ties(c, tied[k].column); ++c) left -= ties(c, tied[k].column);
      for (t.index = chunks_.begin(c);; ++t.index) {
        left -= key_of(u_[t.index]) == t.key;
        if (left == 0) return;
      }
    });
  }

  // ------------------------------------------------------------------------------------- refine

  // Counts the next digit within the bins and walks on in each of them.
  std::vector<Bin<A>> refine(const std::vector<Bin<A>>& bins, std::vector<Target<A>>& targets) {
    const int digit = std::min(8, shift_);
    const int64_t radix = int64_t(1) << digit;
    const Finder<A> finder = finder_of(bins, shift_);
    shift_ -= digit;
    std::vector<std::vector<int64_t>> tables(slots_);
    for (auto& table : tables) table.resize(bins.size() * radix);
    for_each_block([&](const A* u, int64_t count, int64_t, int64_t, int slot) {
      Hits hits;
      const int64_t found = finder.hits(u, count, hits);
      std::vector<int64_t>& table = tables[slot];
      for (int64_t h = 0; h < found; ++h) {
        const Key<A> key = key_of(u[hits[h]]);
        const int64_t b = finder.bin(key);
        if (b >= 0) ++table[b * radix + int64_t(key >> shift_ & Key<A>(radix - 1))];
      }
    });

    std::vector<Bin<A>> finer;
    for (size_t b = 0; b < bins.size(); ++b) {
      const auto count = [&](int64_t value) {
        int64_t sum = 0;
        for (const auto& table : tables) sum += table[b * radix + value];
        return sum;
      };
      int64_t value = radix - 1, above = 0, here = count(value);
      for (int64_t i = bins[b].first_target; i < bins[b].last_target; ++i) {
        Target<A>& t = targets[i];
        while (above + here < t.rank) {
          above += here;
          here = count(--value);
        }
        t.prefix = bins[b].prefix << digit | Key<A>(value);
        t.rank -= above;
        assign(finer, t.prefix, here, i);
      }
    }
    return finer;
  }

  const A* u_;
  int64_t d_;
  bool far_;
  Chunks chunks_;
  const Threads& threads_;
  int slots_;
  int shift_ = 0;  // bits of the key below the prefixes
};

}  // namespace

template <class A>
void select_segment(const A* u, int64_t d, int64_t first, int64_t n, int64_t stride,
                    const int64_t* quotas, A* magnitude, int64_t* last_index,
                    Histogram<A>* histogram, const Threads& threads) {
  std::vector<int64_t> wanted;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t q = std::clamp<int64_t>(quotas[i * stride], 0, d);
    if (q > 0) wanted.push_back(q);
  }
  std::sort(wanted.begin(), wanted.end());
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  std::vector<Target<A>> targets;
  for (int64_t q : wanted) targets.push_back({q, 0, 0, 0, 0});
  Selector<A>(u, d, threads).place(targets, histogram);

  for (int64_t i = 0; i < n; ++i) {
    const int64_t q = std::clamp<int64_t>(quotas[i * stride], 0, d);
    if (q == 0) {
      magnitude[i * stride] = std::numeric_limits<A>::infinity();
      last_index[i * stride] = -1;
      continue;
    }
    const auto t = std::lower_bound(targets.begin(), targets.end(), q,
                                    [](const Target<A>& t, int64_t q) { return t.quota < q; });
    std::memcpy(&magnitude[i * stride], &t->key, sizeof(A));
    last_index[i * stride] = first + t->index;
  }
}

template void select_segment(const float*, int64_t, int64_t, int64_t, int64_t, const int64_t*,
                             float*, int64_t*, Histogram<float>*, const Threads&);
template void select_segment(const double*, int64_t, int64_t, int64_t, int64_t, const int64_t*,
                             double*, int64_t*, Histogram<double>*, const Threads&);

namespace {

template <class A>
void select_all(const Aggregate& aggregate, int64_t n, const int64_t* quotas,
                const Segments& segments, A* magnitude, int64_t* last_index,
                const Threads& threads) {
  int64_t first = 0;
  for (int64_t l = 0; l < segments.count; ++l) {
    select_segment<A>(static_cast<const A*>(aggregate.data) + first, segments.sizes[l], first, n,
                      segments.count, quotas + l, magnitude + l, last_index + l, nullptr, threads);
    first += segments.sizes[l];
  }
}

}  // namespace

void select(const Aggregate& aggregate, int64_t n, const int64_t* quotas, const Segments& segments,
            void* magnitude, int64_t* last_index, const Threads& threads) {
  if (aggregate.dtype == DType::f64) {
    select_all<double>(aggregate, n, quotas, segments, static_cast<double*>(magnitude), last_index,
                       threads);
  } else {
    select_all<float>(aggregate, n, quotas, segments, static_cast<float*>(magnitude), last_index,
                      threads);
  }
}

}  // namespace cgsv::cpu
