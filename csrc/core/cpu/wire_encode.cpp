// Counting, laying out and writing of the blocks. Two passes over the aggregate, neither of which sorts:
// each mask is the outcome of a comparison with its boundary, anew in each pass, for a tile of positions at
// a time. The counts by chunk say where in each block a chunk's entries go, so chunks are written in
// parallel and in any order.
#include <cstring>

#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>

#include "../wire.h"
#include "parallel.h"

namespace cgsv::wire {

using cpu::kernels;
using cpu::wire_tile;
using cpu::wire_words;

namespace {

template <class T>
void put(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

constexpr Boundary everything = {-1, -1, -1};

auto rank_of(const Boundary& b) { return std::make_tuple(-b.through, -b.beyond, b.last_index); }

bool same(const Boundary& a, const Boundary& b) { return rank_of(a) == rank_of(b); }

// One tile of the aggregate at a time: which entries are not +0, and which a level keeps.
template <class A>
class Tile {
 public:
  Tile(const Aggregate& u, DType values, const std::vector<int64_t>& starts)
      : u_(static_cast<const A*>(u.data)), dtype_(u.dtype), values_(values), starts_(starts) {}

  void move_to(int64_t begin, int64_t end) {
    begin_ = begin;
    count_ = end - begin;
    words_ = (count_ + 63) / 64;
    // Through float32, as download() goes.
    rounded_ = u_ + begin;
    if (dtype_ == DType::f64) {
      kernels().convert[int(DType::f64)][int(DType::f32)](rounded_, count_, floats_);
      rounded_ = floats_;
    }
    if (values_ == DType::bf16) {
      kernels().convert[int(DType::f32)][int(DType::bf16)](rounded_, count_, halves_);
      rounded_ = halves_;
    }
    value_kernels().nonzero(rounded_, count_, nonzero_);
    segment_ = std::upper_bound(starts_.begin(), starts_.end(), begin) - starts_.begin() - 1;
  }

  // found = the entries that are kept between these boundaries (one a segment) and not +0.
  void keep(const Boundary* level, uint64_t* found) const {
    int64_t l = segment_;
    const int64_t end = begin_ + count_;
    if (starts_[l + 1] >= end &&
        !(begin_ <= level[l].last_index && level[l].last_index < end - 1)) {
      above(begin_ <= level[l].last_index ? level[l].through : level[l].beyond, 0, words_, found);
    } else {
      std::fill_n(found, words_, 0);
      for (int64_t from = begin_; from < end; ++l) {
        const int64_t to = std::min(end, starts_[l + 1]);
        const int64_t split = std::clamp(level[l].last_index, from - 1, to - 1) + 1;
        piece(level[l].through, from - begin_, split - begin_, found);
        piece(level[l].beyond, split - begin_, to - begin_, found);
        from = to;
      }
    }
    for (int64_t w = 0; w < words_; ++w) found[w] &= nonzero_[w];
  }

  const cpu::WireValueKernels& value_kernels() const {
    return values_ == DType::f32 ? kernels().wire.four : kernels().wire.two;
  }
  const void* rounded() const { return rounded_; }
  const uint64_t* nonzero() const { return nonzero_; }
  int64_t words() const { return words_; }
  // All of the tile's positions.
  void open(uint64_t* words) const {
    std::fill_n(words, words_, ~uint64_t(0));
    if (count_ % 64) words[words_ - 1] = ~(~uint64_t(0) << count_ % 64);
  }

 private:
  // Words [first, last) of the comparison with a threshold.
  void above(int64_t threshold, int64_t first, int64_t last, uint64_t* found) const {
    if (threshold < 0) {
      std::fill(found, found + (last - first), ~uint64_t(0));
      return;
    }
    kernels().wire.above[dtype_ == DType::f32](
        u_ + begin_ + first * 64, std::min(count_, last * 64) - first * 64, threshold, found);
  }
  // The positions [from, to) of the tile, which need not begin or end with a word.
  void piece(int64_t threshold, int64_t from, int64_t to, uint64_t* found) const {
    if (from >= to) return;
    uint64_t words[wire_words];
    const int64_t first = from / 64, last = (to + 63) / 64;
    above(threshold, first, last, words);
    words[0] &= ~uint64_t(0) << from % 64;
    if (to % 64) words[last - 1 - first] &= ~(~uint64_t(0) << to % 64);
    for (int64_t w = first; w < last; ++w) found[w] |= words[w - first];
  }

  const A* u_;
  DType dtype_, values_;
  const std::vector<int64_t>& starts_;
  int64_t begin_ = 0, count_ = 0, words_ = 0, segment_ = 0;
  const void* rounded_ = nullptr;
  uint64_t nonzero_[wire_words];
  float floats_[wire_tile];
  uint16_t halves_[wire_tile];
};

// Bits that go one after the other into words, whose first and last other chunks share.
class BitWriter {
 public:
  void start(uint64_t* words, int64_t at) {
    words_ = words;
    at_ = at;
    pending_ = 0;
    shared_ = at % 64 != 0;
  }
  void append(const uint64_t* bits, int64_t count) {
    while (count > 0) {
      const int shift = int(at_ % 64);
      const int64_t n = std::min<int64_t>(count, 64 - shift);
      // A word's bits beyond the count are zero.
      pending_ |= *bits << shift;
      at_ += n;
      if (at_ % 64 == 0) store(at_ / 64 - 1);
      if (n < std::min<int64_t>(count, 64)) {
        pending_ = *bits >> n;
        at_ += std::min<int64_t>(count, 64) - n;
      }
      ++bits;
      count -= 64;
    }
  }
  void finish() {
    if (at_ % 64 == 0) return;
    shared_ = true;
    store(at_ / 64);
  }

 private:
  void store(int64_t word) {
    if (shared_) {
      __atomic_fetch_or(words_ + word, pending_, __ATOMIC_RELAXED);
    } else {
      words_[word] = pending_;
    }
    pending_ = 0;
    shared_ = false;
  }
  uint64_t* words_ = nullptr;
  int64_t at_ = 0;
  uint64_t pending_ = 0;
  bool shared_ = false;
};

cpu::Chunks chunks_of(int64_t d) { return cpu::Chunks(d, wire_tile); }

int slots_for(const Threads& threads, const cpu::Chunks& chunks, int64_t levels) {
  return cpu::slots_for(threads, chunks.count, chunks.d * levels);
}

}  // namespace

// ---------------------------------------------------------------------------------------- layout

int64_t Encoder::bytes_of(int64_t blocks) const {
  if (blocks == 0) return 0;
  const Block& last = blocks_[blocks - 1];
  return last.offset + last.bytes(u_.d, size_of(values_));
}

// From what each level adds: which blocks there are, of which kind, and who has how many.
void Encoder::lay_out(int64_t nonzero) {
  const int64_t levels = int64_t(boundaries_.size()) / int64_t(starts_.size() - 1);
  const int64_t stride = chunks_of(u_.d).count + 1;
  std::vector<int64_t> blocks_through(levels);
  int64_t open = u_.d;
  for (int64_t g = 0; g < levels; ++g) {
    const int64_t added = before_[g * stride + stride - 1];
    nonzero -= added;
    if (added > 0) {
      Block block{Kind::index, added, open, bytes_of(int64_t(blocks_.size()))};
      const auto consider = [&](Kind kind, int64_t count) {
        const Block other{kind, count, open, block.offset};
        const int64_t bytes = size_of(values_);
        if (other.bytes(u_.d, bytes) <= block.bytes(u_.d, bytes)) block = other;
      };
      consider(Kind::bitmap, added);
      // What stays open must be +0 to be given along.
      if (nonzero == 0) consider(Kind::rest, open);
      blocks_.push_back(block);
      levels_.push_back(g);
      open -= block.count;
    }
    blocks_through[g] = int64_t(blocks_.size());
  }
  if (int64_t(blocks_.size()) > most_blocks) {
    throw std::invalid_argument("expected at most " + std::to_string(most_blocks) +
                                " different selections, got " + std::to_string(blocks_.size()));
  }
  for (const int64_t level : level_of_) blocks_of_.push_back(blocks_through[level]);
}

void write_header(const Header& header, uint32_t body_crc, std::byte* message) {
  std::memcpy(message, "CGSV", 4);
  put(message + HeaderAt::version, uint8_t(1));
  put(message + HeaderAt::dtype, uint8_t(header.values == DType::bf16));
  put(message + HeaderAt::reserved, uint16_t(0));
  put(message + HeaderAt::blocks, uint32_t(header.blocks));
  put(message + HeaderAt::size, header.size);
  put(message + HeaderAt::round, header.round);
  put(message + HeaderAt::since, header.since);
  put(message + HeaderAt::body_bytes, header.body_bytes);
  const uint32_t crc = crc32(message, HeaderAt::crc, Threads());
  put(message + HeaderAt::crc, crc32_joined(crc, body_crc, header.body_bytes));
}

// ---------------------------------------------------------------------------------------- count

Encoder::Encoder(const Aggregate& u, int64_t n, const Selection* selection,
                 const Segments& segments, DType values, const Threads& threads)
    : u_(u), values_(values), starts_{0} {
  if (selection) {
    for (int64_t l = 0; l < segments.count; ++l) {
      starts_.push_back(starts_.back() + segments.sizes[l]);
    }
    u_.dtype == DType::f64 ? order<double>(n, *selection) : order<float>(n, *selection);
  } else {
    starts_.push_back(u.d);
    boundaries_.push_back(everything);
    level_of_.assign(n, 0);
  }
  u_.dtype == DType::f64 ? count<double>(threads) : count<float>(threads);
}

// The agents' different masks from the smallest to the largest, and whose is which.
template <class A>
void Encoder::order(int64_t n, const Selection& selection) {
  const int64_t segments = int64_t(starts_.size()) - 1;
  std::vector<Boundary> given(n * segments);
  for (int64_t k = 0; k < n * segments; ++k) {
    given[k] = boundary(static_cast<const A*>(selection.magnitude)[k], selection.last_index[k]);
  }
  std::vector<int64_t> agents(n);
  std::iota(agents.begin(), agents.end(), 0);
  std::stable_sort(agents.begin(), agents.end(), [&](int64_t a, int64_t b) {
    for (int64_t l = 0; l < segments; ++l) {
      const auto x = rank_of(given[a * segments + l]), y = rank_of(given[b * segments + l]);
      if (x != y) return x < y;
    }
    return false;
  });
  level_of_.resize(n);
  const Boundary* last = nullptr;
  int64_t levels = 0;
  for (const int64_t i : agents) {
    const Boundary* const row = given.data() + i * segments;
    if (!last || !std::equal(row, row + segments, last, same)) {
      boundaries_.insert(boundaries_.end(), row, row + segments);
      last = row;
      ++levels;
    }
    level_of_[i] = levels - 1;
  }
}

template <class A>
void Encoder::count(const Threads& threads) {
  const cpu::Chunks chunks = chunks_of(u_.d);
  const int64_t segments = int64_t(starts_.size()) - 1;
  const int64_t levels = int64_t(boundaries_.size()) / segments, stride = chunks.count + 1;
  before_.assign(levels * stride, 0);
  std::vector<int64_t> nonzero(chunks.count);
  std::atomic<bool> nested{true};

  cpu::for_each(threads, slots_for(threads, chunks, levels), chunks.count, [&](int64_t c, int) {
    const auto popcount = kernels().wire.count;
    Tile<A> tile(u_, values_, starts_);
    uint64_t masks[2][wire_words];
    for (int64_t begin = chunks.begin(c); begin < chunks.end(c); begin += wire_tile) {
      tile.move_to(begin, std::min(chunks.end(c), begin + wire_tile));
      nonzero[c] += popcount(tile.nonzero(), tile.words());
      int64_t before = 0;
      for (int64_t g = 0; g < levels; ++g) {
        uint64_t* const mask = masks[g % 2];
        tile.keep(&boundaries_[g * segments], mask);
        const int64_t kept = popcount(mask, tile.words());
        before_[g * stride + c + 1] += kept - before;
        before = kept;
        if (g == 0) continue;
        uint64_t lost = 0;
        for (int64_t w = 0; w < tile.words(); ++w) lost |= masks[1 - g % 2][w] & ~mask[w];
        if (lost) nested.store(false, std::memory_order_relaxed);
      }
    }
  });
  if (!nested.load()) {
    throw std::invalid_argument(
        "expected nested selections, each agent's entries among those of the next larger one, got "
        "two that each keep an entry that the other does not");
  }
  for (int64_t g = 0; g < levels; ++g) {
    int64_t* const row = &before_[g * stride];
    std::partial_sum(row, row + stride, row);
  }
  lay_out(std::accumulate(nonzero.begin(), nonzero.end(), int64_t(0)));
}

// ---------------------------------------------------------------------------------------- write

void Encoder::write(std::byte* stream, const Threads& threads) {
  u_.dtype == DType::f64 ? write_as<double>(stream, threads) : write_as<float>(stream, threads);
  crcs_.assign(1, 0);
  for (const Block& block : blocks_) {
    const int64_t bytes = block.bytes(u_.d, size_of(values_));
    crcs_.push_back(
        crc32_joined(crcs_.back(), crc32(stream + block.offset, bytes, threads), bytes));
  }
}

template <class A>
void Encoder::write_as(std::byte* body, const Threads& threads) const {
  const cpu::Chunks chunks = chunks_of(u_.d);
  const int64_t segments = int64_t(starts_.size()) - 1, stride = chunks.count + 1;
  const int64_t value_bytes = size_of(values_);
  const int64_t blocks = int64_t(blocks_.size());
  if (blocks == 0) return;

  // Where a chunk's share of a block begins: after so many open positions and entries.
  std::vector<int64_t> open_before(blocks * chunks.count), entries_before(blocks * chunks.count);
  for (int64_t c = 0; c < chunks.count; ++c) {
    int64_t open = chunks.begin(c);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t entries =
          blocks_[b].kind == Kind::rest ? open : before_[levels_[b] * stride + c];
      open_before[b * chunks.count + c] = open;
      entries_before[b * chunks.count + c] = entries;
      open -= entries;
    }
  }

  for (int64_t b = 0; b < blocks; ++b) {
    const Block& block = blocks_[b];
    std::byte* const at = body + block.offset;
    const int64_t places = block.place_bytes(u_.d), bytes = block.bytes(u_.d, value_bytes);
    // The padding, and the words that chunks share: those they begin in, and the last.
    put(at + bytes - 8, uint64_t(0));
    put(at, uint64_t(block.kind));
    put(at + 8, block.count);
    if (block.kind != Kind::bitmap) continue;
    for (int64_t c = 0; c < chunks.count; ++c) {
      const int64_t word = open_before[b * chunks.count + c] / 64;
      if (word * 8 < places) put(at + block_header_bytes + word * 8, uint64_t(0));
    }
    put(at + block_header_bytes + places - 8, uint64_t(0));
  }

  struct Writer {
    std::byte *indices, *values;
    BitWriter bits;
  };
  const int slots = slots_for(threads, chunks, blocks);
  std::vector<Writer> all(slots * blocks);
  cpu::for_each(threads, slots, chunks.count, [&](int64_t c, int slot) {
    const auto& wire = kernels().wire;
    Writer* const writers = all.data() + slot * blocks;
    for (int64_t b = 0; b < blocks; ++b) {
      const Block& block = blocks_[b];
      const int64_t entries = entries_before[b * chunks.count + c];
      std::byte* const places = body + block.offset + block_header_bytes;
      writers[b].indices = places + entries * index_bytes(u_.d);
      writers[b].values = places + block.place_bytes(u_.d) + entries * value_bytes;
      writers[b].bits.start(reinterpret_cast<uint64_t*>(places), open_before[b * chunks.count + c]);
    }
    const bool wide = index_bytes(u_.d) == 8;
    Tile<A> tile(u_, values_, starts_);
    uint64_t open[wire_words], mask[wire_words], packed[wire_words];
    for (int64_t begin = chunks.begin(c); begin < chunks.end(c); begin += wire_tile) {
      tile.move_to(begin, std::min(chunks.end(c), begin + wire_tile));
      tile.open(open);
      const int64_t words = tile.words();
      for (int64_t b = 0; b < blocks; ++b) {
        Writer& writer = writers[b];
        const Kind kind = blocks_[b].kind;
        if (kind == Kind::rest) {
          std::copy_n(open, words, mask);
        } else {
          tile.keep(&boundaries_[levels_[b] * segments], mask);
          for (int64_t w = 0; w < words; ++w) mask[w] &= open[w];
        }
        if (kind == Kind::index) {
          for (int64_t w = 0; w < words; ++w) {
            for (uint64_t word = mask[w]; word; word &= word - 1) {
              const int64_t j = begin + w * 64 + __builtin_ctzll(word);
              wide ? put(writer.indices, j) : put(writer.indices, uint32_t(j));
              writer.indices += index_bytes(u_.d);
            }
          }
        } else if (kind == Kind::bitmap) {
          writer.bits.append(packed, wire.pack(mask, open, words, packed));
        }
        tile.value_kernels().gather(tile.rounded(), mask, words, writer.values);
        writer.values += wire.count(mask, words) * value_bytes;
        for (int64_t w = 0; w < words; ++w) open[w] &= ~mask[w];
      }
    }
    for (int64_t b = 0; b < blocks; ++b) {
      if (blocks_[b].kind == Kind::bitmap) writers[b].bits.finish();
    }
  });
}

}  // namespace cgsv::wire
