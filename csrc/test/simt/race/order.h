// Which accesses happened before what the running thread does, whatever the schedule.
#pragma once

#include "../scheduler.h"

namespace simt::race {

// Time counts barriers and fences since the process began; accesses in between share it. 0: never.
struct Access {
  unsigned thread, time, pc;
};

extern unsigned now;           // time
extern unsigned grid_time;     // what happened by then is over: an earlier launch or grid barrier
extern unsigned first;         // number of the running block's first thread
extern unsigned last_write[];  // to global memory, by thread of the block: a time

void begin_time();  // anew, when no access is remembered

// Whether `a` happened before, not counting what earlier blocks published.
bool barrier_between(const Access& a);
inline bool in_block_before(const Access& a) {
  return a.time <= grid_time || a.thread == first + rank || barrier_between(a);
}
// Whether its block published it to the running thread. `here`: where `a`, if atomic, was; else
// null.
bool published(const Access& a, const void* here);

void acquire(const void* location);  // an atomic read what others published there
void publish(const void* location);  // an atomic wrote

}  // namespace simt::race
