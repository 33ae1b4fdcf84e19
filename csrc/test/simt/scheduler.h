// Blocks, warps and threads, and which of them runs.
#pragma once

#define SIMT_RUNTIME
#include <cstring>
#include <vector>

#include "fiber.h"
#include "include/cuda_runtime.h"
#include "simt.h"

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace simt {

constexpr int most_threads = 1024, warp_size = 32;

// A barrier's or a collective's place in the source.
struct Site {
  const char* file;
  int line;
  bool operator==(const Site& other) const {
    return line == other.line && (file == other.file || std::strcmp(file, other.file) == 0);
  }
};

// Those that can run, in the schedule's order.
class Ready {
 public:
  explicit Ready(unsigned capacity = most_threads) { reserve(capacity); }
  void reserve(unsigned capacity) {
    while (items_.size() < capacity) items_.resize(items_.empty() ? 1024 : 2 * items_.size());
  }
  bool empty() const { return count_ == 0; }
  void push(unsigned item) { items_[(first_ + count_++) & mask()] = item; }
  // Those of 0, ..., 31 in `lanes`, or all below `count`, counted from `base`.
  void push_lanes(unsigned base, unsigned lanes);
  void push_all(unsigned count);
  unsigned pop();

 private:
  unsigned mask() const { return unsigned(items_.size()) - 1; }
  std::vector<unsigned> items_;  // a ring, its size a power of two
  unsigned first_ = 0, count_ = 0;
};

struct Thread {
  Context context = nullptr;  // null: not yet begun
  char* stack = nullptr;
  uint3 index;
};

// Lanes of one warp that wait for each other.
struct Group {
  unsigned mask, arrived;
  Op op;
  Site site;
};

struct Warp {
  unsigned lanes, exited;
  int groups;
  Group group[warp_size];
  unsigned long long value[warp_size], result[warp_size];
  int argument[warp_size], width[warp_size];
};

struct Block {
  unsigned number;  // in the grid
  dim3 shape = dim3(0, 0, 0);
  unsigned size;
  Thread thread[most_threads];
  Warp warp[most_threads / warp_size];
  Ready ready;

  // The barrier that threads wait at.
  unsigned arrived, exited;
  bool at_grid;
  Vote vote;
  Site site;
  int votes, result;

  std::vector<unsigned char> shared;  // its contents while another block runs
};

// What runs.
extern const Launch* running;
extern Block* block;
extern unsigned rank;  // of the thread, in its block

// The running thread waits, or has put itself into block->ready: another one's turn.
void reschedule();

extern Order order;
unsigned random_below(unsigned n);

// Runs a launch that the device accepts, to its end.
void run(const Launch& launch);

}  // namespace simt
