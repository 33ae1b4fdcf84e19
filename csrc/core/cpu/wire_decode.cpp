// Reading a message that anybody may have made.
//
// The constructor settles every length before anything is allocated: what it accepts has blocks that fill
// the body to the last byte, none with more entries than there are open positions left. What remains to
// be checked while reading is the order of indices and the number of bits.
//
// Positions are cut into spans, read in parallel, and a span into parts that stay in the cache, for which
// the blocks are gone through in turn: a block's next entry and next bit wait in a cursor. Where each
// cursor of a span starts, and must therefore end in the span before, is searched for and counted, not
// believed.
#include <cstdio>
#include <cstring>

#include <stdexcept>
#include <string>

#include "../wire.h"
#include "parallel.h"

namespace cgsv::wire {

using cpu::kernels;
using cpu::wire_tile;
using cpu::wire_words;

namespace {

// Two 16-byte cursors per block and span: at 512 positions each, D / 16 bytes.
constexpr int64_t positions_a_cursor = 512;

template <class T>
T get(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

[[noreturn]] void fail(const std::string& expected, const std::string& got) {
  throw std::invalid_argument("expected " + expected + ", got " + got);
}

template <class T>
void expect(const char* what, T expected, T got) {
  if (got != expected) fail(what + (" " + std::to_string(expected)), std::to_string(got));
}

bool all_zero(const std::byte* from, int64_t bytes) {
  return std::all_of(from, from + bytes, [](std::byte b) { return b == std::byte(0); });
}

std::string hexadecimal(uint32_t value) {
  char text[11];
  std::snprintf(text, sizeof(text), "0x%08x", value);
  return text;
}

}  // namespace

// ---------------------------------------------------------------------------------------- lengths

Decoder::Decoder(const std::byte* message, int64_t bytes, int64_t size, int64_t limit,
                 const Threads& threads)
    : body_(message + header_bytes) {
  if (bytes < header_bytes) {
    fail("a header of " + std::to_string(header_bytes) + " bytes",
         "a message of " + std::to_string(bytes) + " bytes");
  }
  if (std::memcmp(message, "CGSV", 4) != 0) fail("a message that begins with CGSV", "another one");
  expect("version", 1, int(get<uint8_t>(message + HeaderAt::version)));
  const int values = get<uint8_t>(message + HeaderAt::dtype);
  if (values > 1) fail("values of dtype 0 (float32) or 1 (bfloat16)", std::to_string(values));
  expect("reserved bytes", 0, int(get<uint16_t>(message + HeaderAt::reserved)));

  header_.values = values ? DType::bf16 : DType::f32;
  header_.blocks = get<uint32_t>(message + HeaderAt::blocks);
  const auto elements = get<uint64_t>(message + HeaderAt::size);
  header_.round = get<int64_t>(message + HeaderAt::round);
  header_.since = get<int64_t>(message + HeaderAt::since);
  const auto body_bytes = get<uint64_t>(message + HeaderAt::body_bytes);

  if (size >= 0 && elements != uint64_t(size)) {
    fail("D = " + std::to_string(size), std::to_string(elements));
  }
  const int64_t most = std::min(limit, most_elements);
  if (elements > uint64_t(most)) {
    fail("at most " + std::to_string(most) + " elements", std::to_string(elements));
  }
  header_.size = int64_t(elements);
  if (header_.since < 0 || header_.since > header_.round) {
    fail("rounds 0 ≤ since ≤ round",
         "since " + std::to_string(header_.since) + " and round " + std::to_string(header_.round));
  }
  if (body_bytes != uint64_t(bytes - header_bytes)) {
    fail("a body of " + std::to_string(body_bytes) + " bytes",
         std::to_string(bytes - header_bytes));
  }
  header_.body_bytes = bytes - header_bytes;
  if (header_.blocks > most_blocks || header_.blocks > header_.body_bytes / block_header_bytes) {
    fail("at most " +
             std::to_string(std::min(most_blocks, header_.body_bytes / block_header_bytes)) +
             " blocks in a body of " + std::to_string(header_.body_bytes) + " bytes",
         std::to_string(header_.blocks));
  }
  const uint32_t crc = crc32_joined(crc32(message, HeaderAt::crc, Threads()),
                                    crc32(body_, header_.body_bytes, threads), header_.body_bytes);
  const auto expected = get<uint32_t>(message + HeaderAt::crc);
  if (crc != expected) fail("checksum " + hexadecimal(expected), hexadecimal(crc));

  blocks_.reserve(header_.blocks);
  int64_t offset = 0, open = header_.size;
  for (int64_t b = 0; b < header_.blocks; ++b) {
    const std::string where = " in block " + std::to_string(b);
    const int64_t left = header_.body_bytes - offset;
    if (left < block_header_bytes) {
      fail(std::to_string(block_header_bytes) + " more bytes" + where, std::to_string(left));
    }
    const std::byte* const at = body_ + offset;
    const int kind = get<uint8_t>(at);
    if (kind < 1 || kind > 3) fail("kind 1, 2 or 3" + where, std::to_string(kind));
    if (!all_zero(at + 1, 7)) fail("reserved bytes 0" + where, "others");
    const auto count = get<uint64_t>(at + 8);
    if (count == 0 || count > uint64_t(open)) {
      fail("1 to " + std::to_string(open) + " entries" + where, std::to_string(count));
    }
    const Block block{Kind(kind), int64_t(count), open, offset};
    if (block.kind == Kind::rest && block.count != open) {
      fail("the values of all " + std::to_string(open) + " open positions" + where,
           std::to_string(count));
    }
    const int64_t value_bytes = size_of(header_.values);
    const int64_t needed = block.bytes(header_.size, value_bytes);
    if (needed > left) {
      fail(std::to_string(needed) + " bytes" + where, std::to_string(left));
    }
    const int64_t places = block.place_bytes(header_.size);
    const int64_t used = block_header_bytes + places + block.count * value_bytes;
    bool clean = all_zero(at + used, needed - used);
    if (block.kind == Kind::bitmap && open % 64) {
      clean &= get<uint64_t>(at + block_header_bytes + places - 8) >> open % 64 == 0;
    }
    if (!clean) fail("padding of zeros" + where, "others");
    blocks_.push_back(block);
    offset += needed;
    open -= block.count;
  }
  if (offset != header_.body_bytes) {
    fail("no bytes after the last block", std::to_string(header_.body_bytes - offset));
  }
}

// ---------------------------------------------------------------------------------------- entries

namespace {

// The next entry of a block, and the next bit of its bitmap.
struct Cursor {
  int64_t entry, bit;
};

// The blocks of a message, as spans see them.
struct Message {
  const std::byte* body;
  const Header& header;
  const std::vector<Block>& blocks;

  int64_t index(const Block& block, int64_t entry) const {
    const std::byte* const at = body + block.offset + block_header_bytes;
    return index_bytes(header.size) == 8 ? get<int64_t>(at + entry * 8)
                                         : int64_t(get<uint32_t>(at + entry * 4));
  }
  const std::byte* bitmap(const Block& block) const {
    return body + block.offset + block_header_bytes;
  }
  const std::byte* value(const Block& block, int64_t entry) const {
    return body + block.offset + block_header_bytes + block.place_bytes(header.size) +
           entry * size_of(header.values);
  }
  // Entries of an index block before a position, if they ascend.
  int64_t entries_before(const Block& block, int64_t position) const {
    int64_t low = 0, high = block.count;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      index(block, middle) < position ? low = middle + 1 : high = middle;
    }
    return low;
  }
  // Set bits [from, to) of a bitmap.
  int64_t set_bits(const Block& block, int64_t from, int64_t to) const {
    int64_t found = 0;
    uint64_t words[wire_words];
    for (int64_t w = from / 64; w * 64 < to; w += wire_words) {
      const int64_t n = std::min(wire_words, (to + 63) / 64 - w);
      std::memcpy(words, bitmap(block) + w * 8, size_t(n) * 8);
      if (w * 64 < from) words[0] &= ~uint64_t(0) << from % 64;
      if ((w + n) * 64 > to) words[n - 1] &= ~(~uint64_t(0) << to % 64);
      found += kernels().wire.count(words, n);
    }
    return found;
  }
};

[[noreturn]] void fail_order() {
  fail("each block's indices to ascend, below D, and no position twice", "others");
}

[[noreturn]] void fail_bits() { fail("a bitmap with a bit set for each of its entries", "others"); }

}  // namespace

void Decoder::read(float* elements, const Threads& threads) const {
  const Message message{body_, header_, blocks_};
  const int64_t d = header_.size, blocks = int64_t(blocks_.size());
  const int64_t tiles = (d + wire_tile - 1) / wire_tile;
  const int64_t most_spans = d / (positions_a_cursor * std::max<int64_t>(1, blocks));
  const int64_t spans =
      std::clamp<int64_t>(cpu::slots_for(threads, tiles, d), 1, std::max<int64_t>(1, most_spans));
  const auto begin_of = [&](int64_t s) { return std::min(d, tiles * s / spans * wire_tile); };

  // (spans + 1, blocks): where each span's cursors start; after the last, where they must end.
  std::vector<Cursor> cursors((spans + 1) * blocks);
  std::vector<int64_t> taken(spans + 1), set(spans);
  for (int64_t b = 0; b < blocks; ++b) {
    const Block& block = blocks_[b];
    const auto cursor = [&](int64_t s) -> Cursor& { return cursors[s * blocks + b]; };
    for (int64_t s = 0; s <= spans; ++s) {
      cursor(s).bit = begin_of(s) - taken[s];
      // More entries than positions, before or within the span: one is given twice.
      if (cursor(s).bit < (s == 0 ? 0 : cursor(s - 1).bit)) fail_order();
    }
    if (block.kind == Kind::bitmap && spans > 1) {
      cpu::for_each(threads, cpu::slots_for(threads, spans, block.open), spans,
                    [&](int64_t s, int) {
                      set[s] = message.set_bits(block, cursor(s).bit, cursor(s + 1).bit);
                    });
    }
    for (int64_t s = 1; s <= spans; ++s) {
      const int64_t before = cursor(s - 1).entry;
      const int64_t entry = s == spans                  ? block.count
                            : block.kind == Kind::index ? message.entries_before(block, begin_of(s))
                            : block.kind == Kind::bitmap ? before + set[s - 1]
                                                         : cursor(s).bit;
      if (entry < before) block.kind == Kind::index ? fail_order() : fail_bits();
      cursor(s).entry = entry;
      taken[s] += entry;
    }
  }

  // The last row holds only ends.
  std::vector<Cursor> moving(cursors.begin(), cursors.end() - blocks);
  std::atomic<bool> in_order{true}, counted{true};
  cpu::for_each(threads, int(spans), spans, [&](int64_t s, int) {
    const auto& wire = kernels().wire;
    const auto& values = header_.values == DType::f32 ? wire.four : wire.two;
    Cursor* const at = moving.data() + s * blocks;
    const Cursor* const end = cursors.data() + (s + 1) * blocks;
    uint64_t open[wire_words];
    uint16_t places[cpu::wire_places];

    for (int64_t begin = begin_of(s); begin < begin_of(s + 1); begin += wire_tile) {
      const int64_t count = std::min(wire_tile, d - begin), words = (count + 63) / 64;
      float* const out = elements + begin;
      std::fill_n(out, count, 0.0f);
      std::fill_n(open, words, ~uint64_t(0));
      if (count % 64) open[words - 1] = ~(~uint64_t(0) << count % 64);

      int64_t positions = count;  // that are open
      for (int64_t b = 0; b < blocks && positions > 0; ++b) {
        const Block& block = blocks_[b];
        Cursor& next = at[b];
        int64_t found = 0;
        if (block.kind == Kind::index) {
          const int64_t last = std::min(end[b].entry, next.entry + positions);
          for (int64_t least = begin; next.entry + found < last; ++found) {
            const int64_t j = message.index(block, next.entry + found);
            if (j >= begin + count) break;
            const int64_t place = j - begin;
            if (j < least || !(open[place / 64] >> place % 64 & 1)) {
              in_order.store(false, std::memory_order_relaxed);
              return;
            }
            open[place / 64] ^= uint64_t(1) << place % 64;
            places[found] = uint16_t(place);
            least = j + 1;
          }
        } else {
          // Bits and entries of the span, and no others: an earlier block may have misled it.
          if (positions > end[b].bit - next.bit) {
            in_order.store(false, std::memory_order_relaxed);
            return;
          }
          if (block.kind == Kind::bitmap) {
            found = wire.spread(message.bitmap(block), block.place_bytes(d), next.bit, open, words,
                                places);
          } else {
            found = positions == count ? count : wire.places(open, words, places);
          }
          next.bit += positions;
          if (found > end[b].entry - next.entry) {
            counted.store(false, std::memory_order_relaxed);
            return;
          }
        }
        if (found == count) {
          values.widen(message.value(block, next.entry), count, out);
        } else {
          values.scatter(message.value(block, next.entry), places, found, out);
        }
        next.entry += found;
        positions -= found;
      }
    }
    for (int64_t b = 0; b < blocks; ++b) {
      const bool done = at[b].entry == end[b].entry;
      if (!done) {
        (blocks_[b].kind == Kind::index ? in_order : counted)
            .store(false, std::memory_order_relaxed);
      }
    }
  });
  if (!in_order.load()) fail_order();
  if (!counted.load()) fail_bits();
}

}  // namespace cgsv::wire
