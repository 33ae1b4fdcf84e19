// A digit of the radix selection for those who hold a part of the entries: counted here, added up and
// placed elsewhere.
#include <functional>

#include "finder.h"
#include "histogram.h"

namespace cgsv::cpu {
namespace {

// counts[k][digit] of d entries under the k-th of the prefixes, which are as a Finder wants them.
template <class A>
class Counter {
 public:
  Counter(const std::vector<Key<A>>& prefixes, int shift, int bits)
      : prefixes_(prefixes), shift_(shift), bits_(bits), mask_((Key<A>(1) << bits) - 1) {}

  void count(const A* u, int64_t d, int64_t* counts, const Threads& threads) const {
    if (above() == KeyOf<A>::bits && bits_ <= first_digit_bits) {
      return first_digit(u, d, counts, threads);
    }
    // One more, for entries under no prefix.
    const int64_t size = int64_t(prefixes_.size() + 1) << bits_;
    const Chunks chunks(d);
    // A thread's table has to pay for being cleared and added.
    const int64_t most = std::max<int64_t>(1, d / (4 * size));
    const int slots = int(std::min<int64_t>(most, slots_for(threads, chunks.count, d)));
    std::vector<std::vector<int64_t>> tables(slots, std::vector<int64_t>(size));
    if (KeyOf<A>::bits - above() < first_digit_bits) {
      look_up(u, chunks, tables, threads);
    } else {
      find(u, chunks, tables, threads);
    }
    std::copy_n(tables[0].data(), size - (int64_t(1) << bits_), counts);
    for (int slot = 1; slot < slots; ++slot) {
      for (int64_t k = 0; k < size - (int64_t(1) << bits_); ++k) counts[k] += tables[slot][k];
    }
  }

 private:
  using Tables = std::vector<std::vector<int64_t>>;
  int above() const { return shift_ + bits_; }

  // All entries are under the one prefix there is, 0.
  void first_digit(const A* u, int64_t d, int64_t* counts, const Threads& threads) const {
    const Chunks chunks(d);
    Histogram<A> histogram(slots_for(threads, chunks.count, d), d);
    const bool far = is_far(d * int64_t(sizeof(A)));
    for_each_block(u, chunks, threads, histogram.slots(),
                   [&](const A* u, int64_t count, int64_t, int64_t, int slot) {
                     histogram.add(u, count, slot, far);
                   });
    histogram.merge();
    const int64_t last = histogram.bin(histogram.max());
    for (int64_t bin = histogram.bin(histogram.min()); bin <= last; ++bin) {
      counts[bin >> (first_digit_bits - bits_)] += histogram.count(bin);
    }
  }

  // Short prefixes, which many entries share: a table of them all says whose an entry is.
  void look_up(const A* u, const Chunks& chunks, Tables& tables, const Threads& threads) const {
    const size_t none = prefixes_.size() << bits_;
    std::vector<size_t> place(size_t(1) << (KeyOf<A>::bits - above()), none);
    for (size_t b = 0; b < prefixes_.size(); ++b) place[prefixes_[b]] = b << bits_;
    for_each_block(u, chunks, threads, int(tables.size()),
                   [&](const A* u, int64_t count, int64_t, int64_t, int slot) {
                     int64_t* const table = tables[slot].data();
                     for (int64_t j = 0; j < count; ++j) {
                       const Key<A> key = key_of(u[j]);
                       ++table[place[key >> above()] + size_t(key >> shift_ & mask_)];
                     }
                   });
  }

  // Long ones, which few share.
  void find(const A* u, const Chunks& chunks, Tables& tables, const Threads& threads) const {
    const Finder<A> finder(prefixes_, above(), is_far(chunks.d * int64_t(sizeof(A))));
    for_each_block(u, chunks, threads, int(tables.size()),
                   [&](const A* u, int64_t count, int64_t, int64_t, int slot) {
                     int64_t* const table = tables[slot].data();
                     Hits hits;
                     const int64_t found = finder.hits(u, count, hits);
                     for (int64_t h = 0; h < found; ++h) {
                       const Key<A> key = key_of(u[hits[h]]);
                       const int64_t b = finder.bin(key);
                       if (b >= 0) ++table[(b << bits_) + int64_t(key >> shift_ & mask_)];
                     }
                   });
  }

  const std::vector<Key<A>>& prefixes_;
  int shift_, bits_;
  Key<A> mask_;
};

template <class A>
void count_all(const A* u, const Prefixes& given, const Segments& segments, int64_t* counts,
               const Threads& threads) {
  const int64_t digits = int64_t(1) << given.bits, s = segments.count;
  const int64_t greatest = int64_t((KeyOf<A>::infinity + 1) >> (given.shift + given.bits));
  std::vector<Key<A>> prefixes;
  std::vector<int64_t> found;
  for (int64_t l = 0; l < s; u += segments.sizes[l], ++l) {
    const int64_t* const own = given.data + l;  // s apart
    const auto is_one = [&](int64_t p) { return own[p * s] >= 0 && own[p * s] <= greatest; };
    prefixes.clear();
    for (int64_t p = 0; p < given.n; ++p) {
      if (is_one(p)) prefixes.push_back(Key<A>(own[p * s]));
    }
    std::sort(prefixes.begin(), prefixes.end(), std::greater<>());
    prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
    found.assign(prefixes.size() * size_t(digits), 0);
    if (segments.sizes[l] > 0 && !prefixes.empty()) {
      const Counter<A> counter(prefixes, given.shift, given.bits);
      counter.count(u, segments.sizes[l], found.data(), threads);
    }
    for (int64_t p = 0; p < given.n; ++p) {
      int64_t* const to = counts + (p * s + l) * digits;
      if (!is_one(p)) {
        std::fill_n(to, digits, 0);
        continue;
      }
      const auto at =
          std::lower_bound(prefixes.begin(), prefixes.end(), Key<A>(own[p * s]), std::greater<>());
      std::copy_n(found.data() + (at - prefixes.begin()) * digits, digits, to);
    }
  }
}

}  // namespace

void histogram(const Aggregate& aggregate, const Prefixes& prefixes, const Segments& segments,
               int64_t* counts, const Threads& threads) {
  if (aggregate.dtype == DType::f64) {
    count_all(static_cast<const double*>(aggregate.data), prefixes, segments, counts, threads);
  } else {
    count_all(static_cast<const float*>(aggregate.data), prefixes, segments, counts, threads);
  }
}

}  // namespace cgsv::cpu
