// Rewards as bytes: what an agent downloads, for sending. docs/wire.md specifies the format.
//
// A message is a header and blocks. A block holds entries, one value each, and says where they belong in
// the smallest of three ways: their indices; a bit for each position that no earlier block has held
// (each *open* position); or nothing, the values of all open positions. An entry of +0 is left out, unless
// that makes the block larger: what no block holds is +0.
//
// Stream   Masks of a selection are nested, so that the agents' messages are prefixes of one stream of
//          blocks: block by block what the next larger selection adds.
// Values   Exact in float32; rounded to bfloat16 as download() does.
// Bits     As in cgsv.h: the same bytes for any number of threads and any instruction set.
// Trust    An encoder's arguments are the caller's, unchecked but for the nesting. A decoder trusts nothing
//          in a message: whatever the bytes, it reads none outside, writes none outside the result and
//          allocates no more than it says.
#pragma once

#include <vector>

#include "cgsv.h"
#include "key.h"

namespace cgsv::wire {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is the memory's own byte order");

constexpr int64_t header_bytes = 48;
// Where in a header its fields begin, after "CGSV".
struct HeaderAt {
  static constexpr int64_t version = 4, dtype = 5, reserved = 6, blocks = 8, size = 12, round = 20,
                           since = 28, body_bytes = 36, crc = 44;
};
constexpr int64_t block_header_bytes = 16;
constexpr int64_t most_blocks = 1 << 16;
constexpr int64_t most_elements = int64_t(1) << 56;  // byte counts stay far below 2^63

// Rewards of the rounds since + 1 … round, `size` elements.
struct Header {
  DType values = DType::f32;  // or bf16
  int64_t blocks = 0;
  int64_t size = 0;
  int64_t round = 0;
  int64_t since = 0;
  int64_t body_bytes = 0;
};

// The header of a message whose body has the checksum body_crc.
void write_header(const Header& header, uint32_t body_crc, std::byte* message);

// Of one index.
constexpr int64_t index_bytes(int64_t d) { return d > int64_t(1) << 32 ? 8 : 4; }

enum class Kind : uint8_t { index = 1, bitmap = 2, rest = 3 };

// A block as it lies in a body, from byte `offset` on: its header, where its values belong, its values.
struct Block {
  Kind kind = Kind::rest;
  int64_t count = 0;
  int64_t open = 0;  // positions that no earlier block holds
  int64_t offset = 0;

  // Of indices or bits, among d positions in all, and of everything, with padding.
  int64_t place_bytes(int64_t d) const {
    return kind == Kind::index    ? count * index_bytes(d)
           : kind == Kind::bitmap ? (open + 63) / 64 * 8
                                  : 0;
  }
  int64_t bytes(int64_t d, int64_t value_bytes) const {
    return (block_header_bytes + place_bytes(d) + count * value_bytes + 7) / 8 * 8;
  }
};

// Counts first, so that the caller can allocate, then writes. Holds pointers to the aggregate.
class Encoder {
 public:
  // One message an agent; without a selection, one message of all of u. Throws std::invalid_argument,
  // "expected …, got …", where the masks are not nested or there are more than most_blocks of them.
  Encoder(const Aggregate& u, int64_t n, const Selection* selection, const Segments& segments,
          DType values, const Threads& threads);

  // Agent i's body: the first so many blocks of the stream, and the bytes they take.
  int64_t blocks_of(int64_t agent) const { return blocks_of_[agent]; }
  int64_t bytes_of(int64_t blocks) const;

  // The stream has as many blocks as the largest message.
  int64_t blocks() const { return int64_t(blocks_.size()); }
  // Writes all of it, bytes_of(blocks()) at an address aligned to 8.
  void write(std::byte* stream, const Threads& threads);
  // The checksum of the first so many blocks, once written.
  uint32_t crc_of(int64_t blocks) const { return crcs_[blocks]; }

 private:
  template <class A>
  void order(int64_t n, const Selection& selection);
  template <class A>
  void count(const Threads& threads);
  template <class A>
  void write_as(std::byte* body, const Threads& threads) const;
  void lay_out(int64_t nonzero);

  Aggregate u_;
  DType values_;
  std::vector<int64_t> starts_;       // of the segments, and the end of the last
  std::vector<Boundary> boundaries_;  // (levels, segments): the different masks, smallest first
  std::vector<int64_t> level_of_;     // agents
  std::vector<int64_t> before_;       // (levels, chunks + 1): entries a level adds before a chunk
  std::vector<Block> blocks_;
  std::vector<int64_t> levels_;     // of the blocks
  std::vector<int64_t> blocks_of_;  // agents
  std::vector<uint32_t> crcs_;      // of so many blocks
};

// Checks first, then reads. Holds a pointer to the message.
class Decoder {
 public:
  // Throws std::invalid_argument, "expected …, got …", unless the header and the blocks' headers fit
  // together, the message's length and each other, the checksum is right, and the number of elements is
  // `size` (any where −1) and at most `limit`.
  Decoder(const std::byte* message, int64_t bytes, int64_t size, int64_t limit,
          const Threads& threads);

  const Header& header() const { return header_; }

  // All `header().size` elements: what the blocks hold, +0 elsewhere. Throws std::invalid_argument where
  // entries are out of order or a position is given twice; the elements are then of no use.
  void read(float* elements, const Threads& threads) const;

 private:
  const std::byte* body_;
  Header header_;
  std::vector<Block> blocks_;
};

// zlib's CRC-32 of `bytes` bytes, and that of a text from those of its two parts.
uint32_t crc32(const std::byte* data, int64_t bytes, const Threads& threads);
uint32_t crc32_joined(uint32_t first, uint32_t second, int64_t second_bytes);

}  // namespace cgsv::wire
