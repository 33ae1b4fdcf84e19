// The race detector of the `race` flavour: g++ -fsanitize=thread makes the kernels call hooks.cpp
// at every access to memory that is not a local variable.
//
// The rule: two accesses to one byte by different threads, not both reads and not both atomic, are
// an error unless one happened before the other because of
//   - a barrier of the block that holds both threads,
//   - warp collectives of the warp that holds both lanes, directly or through lanes in between,
//   - a barrier of the grid, or the end of a launch,
//   - a fence and an atomic: the first thread's access, or a barrier behind it, precedes a
//     __threadfence(), that precedes an atomic, and the second thread's access follows an atomic on
//     the same location that came later, its own or one before a barrier it passed.
// The order in which threads happen to run is no reason. Shared memory belongs to one block.
//
// Not seen: memcpy and memset of other sizes than 1, 2, 4, 8, 16 and 32 bytes, and host code. Not
// proven: that a fence is the right one, and orders through a chain of several locations. Where
// lanes read one byte and meet under partial masks only, the two latest lanes are remembered.
#include <array>
#include <deque>
#include <memory>
#include <unordered_map>

#include "../error.h"
#include "../scheduler.h"
#include "../shared.h"
#include "order.h"
#include "race.h"

namespace simt::race {
namespace {

// Of several accesses that need no order among themselves: the latest, and the latest from another
// block than its, from another warp of its block, and from another lane of its warp. Whoever is
// unordered with any of them all is unordered with one of these.
struct Latest {
  Access any, other_block, other_warp, other_lane;

  void add(const Access& a) {
    if (any.thread != a.thread && any.time > grid_time) {
      const unsigned block_of_any = any.thread / block->size;
      const unsigned rank_of_any = any.thread % block->size;
      if (block_of_any != block->number) {
        other_block = any;
        other_warp = other_lane = {};
      } else if (rank_of_any / warp_size != rank / warp_size) {
        other_warp = any;
        other_lane = {};
      } else if (other_lane.time == 0 || other_lane.thread == a.thread ||
                 in_block_before(other_lane)) {
        other_lane = any;
      }
    }
    any = a;
  }
};

// What is remembered of a byte, or of four that were always touched together.
struct More {
  Latest reads, atomics;
};
struct Cell {
  Access write, read;  // a write at time `split`: each byte has a cell of its own
  union {
    More* more;  // made when a second thread reads or one is atomic
    Cell* bytes;
  };
};
constexpr unsigned split = ~0u;
std::deque<More> mores;
std::deque<std::array<Cell, 4>> split_words;

constexpr size_t page_size = 4096, word_size = 4, words = page_size / word_size;
struct Page {
  Cell word[words];
};
std::unordered_map<size_t, std::unique_ptr<Page>> pages;
struct Recent {
  size_t number;
  Page* page;
};
Recent recent[256];

Page& page_of(size_t address) {
  const size_t number = address / page_size;
  Recent& r = recent[number % 256];
  if (r.page == nullptr || r.number != number) {
    std::unique_ptr<Page>& page = pages[number];
    if (page == nullptr) page.reset(new Page());
    r = {number, page.get()};
  }
  return *r.page;
}

More& more_of(Cell& cell) {
  if (cell.more == nullptr) {
    mores.push_back({});
    cell.more = &mores.back();
    cell.more->reads.any = cell.read;
  }
  return *cell.more;
}

void split_word(Cell& word) {
  split_words.emplace_back();
  Cell* bytes = split_words.back().data();
  for (int i = 0; i < 4; ++i) {
    bytes[i] = word;
    if (word.more == nullptr) continue;
    mores.push_back(*word.more);
    bytes[i].more = &mores.back();
  }
  word.write.time = split;
  word.bytes = bytes;
}

// ---------------------------------------------------------------------------------------- checks

// What the running thread does now.
struct Touch {
  size_t address, size;
  Kind kind;
  bool shared;
  Access access;
};

const char* const does[] = {"reads", "writes", "updates atomically"};
const char* const did[] = {"read", "wrote", "updated atomically"};

const char* code_base() {
  static const char base = 0;
  return &base;
}

[[noreturn]] void report(const Touch& now, const Access& a, Kind kind) {
  const unsigned number = a.thread / block->size;
  const uint3 thread = block->thread[a.thread % block->size].index;
  char where[64];
  if (now.shared) {
    const ptrdiff_t in_dynamic = dynamic_offset(reinterpret_cast<const void*>(now.address));
    std::snprintf(where, sizeof(where),
                  in_dynamic < 0 ? "static shared memory" : "dynamic shared memory at byte %td",
                  in_dynamic);
  } else {
    std::snprintf(where, sizeof(where), "global memory at %#zx", now.address);
  }
  fail(
      "race: %s %zu bytes of %s\n    at %s\n  that thread (%u, %u, %u) of block (%u, %u, %u) %s\n  "
      "  at %s\n"
      "  with no barrier in between",
      does[int(now.kind)], now.size, where, source_of(code_base() + int(now.access.pc)).c_str(),
      thread.x, thread.y, thread.z, number % gridDim.x, number / gridDim.x % gridDim.y,
      number / gridDim.x / gridDim.y, did[int(kind)], source_of(code_base() + int(a.pc)).c_str());
}

inline void check(const Touch& now, const Access& a, Kind kind) {
  if (in_block_before(a)) return;
  if (a.thread - first >= block->size) {
    if (now.shared) return;
    const void* here = kind == Kind::atomic ? reinterpret_cast<const void*>(now.address) : nullptr;
    if (published(a, here)) return;
  }
  report(now, a, kind);
}

void check(const Touch& now, const Latest& all, Kind kind) {
  check(now, all.any, kind);
  check(now, all.other_block, kind);
  check(now, all.other_warp, kind);
  check(now, all.other_lane, kind);
}

void touch_cell(const Touch& now, Cell& cell) {
  check(now, cell.write, Kind::write);
  switch (now.kind) {
    case Kind::read:
      if (cell.more != nullptr) {
        check(now, cell.more->atomics, Kind::atomic);
        cell.more->reads.add(now.access);
      } else if (!in_block_before(cell.read)) {
        more_of(cell).reads.add(now.access);
      } else {
        cell.read = now.access;
      }
      break;
    case Kind::write:
      if (cell.more != nullptr) {
        check(now, cell.more->reads, Kind::read);
        check(now, cell.more->atomics, Kind::atomic);
        *cell.more = {};
      } else {
        check(now, cell.read, Kind::read);
        cell.read = {};
      }
      cell.write = now.access;  // whatever came before is before whatever comes behind it
      break;
    case Kind::atomic:
      More& more = more_of(cell);
      check(now, more.reads, Kind::read);
      more.atomics.add(now.access);
      break;
  }
}

}  // namespace

// Host code of the same sources runs through the hooks too, meanwhile even, on other stacks.
bool in_kernel() { return is_stack(__builtin_frame_address(0)); }

void touch(const void* p, size_t size, Kind kind, const void* pc) {
  if (!in_kernel() || is_stack(p)) return;
  const size_t begin = reinterpret_cast<size_t>(p), end = begin + size;
  const bool shared = is_shared(p);
  if (shared && is_unused(p, size)) {
    fail("%s %zu bytes behind its %zu bytes of dynamic shared memory\n    at %s", does[int(kind)],
         size, running->dynamic_shared, source_of(static_cast<const char*>(pc) - 1).c_str());
  }
  if (kind != Kind::read && !shared) last_write[rank] = now;
  const unsigned place = unsigned(static_cast<const char*>(pc) - 1 - code_base());
  const Touch touch = {begin, size, kind, shared, {first + rank, now, place}};
  for (size_t address = begin; address < end;) {
    Cell& word = page_of(address).word[address % page_size / word_size];
    const size_t byte = address % word_size, next = address - byte + word_size;
    if (word.write.time != split && byte == 0 && next <= end) {
      touch_cell(touch, word);
    } else {
      if (word.write.time != split) split_word(word);
      const size_t stop = next < end ? next : end;
      for (size_t i = byte; i < stop - (address - byte); ++i) touch_cell(touch, word.bytes[i]);
    }
    address = next;
  }
}

void begin_launch() {
  grid_barrier();  // so nothing old matters, and may be forgotten
  constexpr size_t most_pages = 4096;
  if (pages.size() <= most_pages && now < 3u << 30) return;
  begin_time();
  pages.clear();
  mores.clear();
  split_words.clear();
  for (Recent& r : recent) r = {};
}

}  // namespace simt::race
