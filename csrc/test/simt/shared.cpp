#include "shared.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <cstring>

#include "error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, size) (void)(p)
#define ASAN_UNPOISON_MEMORY_REGION(p, size) (void)(p)
#endif

// The one definition behind the kernels' `extern __shared__`, under the name they use.
#if !defined(SIMT_SHARED_NAMESPACE)
#define SIMT_SHARED_NAMESPACE cgsv::cuda
#endif
#if !defined(SIMT_SHARED_NAME)
#define SIMT_SHARED_NAME dynamic_shared
#endif
namespace {
constexpr size_t guard = 1024;
}
namespace SIMT_SHARED_NAMESPACE {
alignas(1024) thread_local unsigned char SIMT_SHARED_NAME[simt::shared_opt_in + guard];
}

namespace simt {
namespace {

unsigned char *begin, *end, *dynamic;  // of the block, and its dynamic part
size_t in_use;
unsigned fills = 0;

// Where the block lies around the dynamic part is the same for every operating-system thread.
struct Layout {
  ptrdiff_t before = -1;
  size_t size = 0;
};

int find(dl_phdr_info* info, size_t, void* layout) {
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(find), &self) == 0) return 1;
  if (reinterpret_cast<void*>(info->dlpi_addr) != self.dli_fbase) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
    auto* base = static_cast<unsigned char*>(info->dlpi_tls_data);
    *static_cast<Layout*>(layout) = {dynamic - base, info->dlpi_phdr[i].p_memsz};
  }
  return 1;
}

}  // namespace

void open_shared(size_t bytes) {
  dynamic = SIMT_SHARED_NAMESPACE::SIMT_SHARED_NAME;
  static Layout layout;
  if (layout.before < 0) {
    dl_iterate_phdr(find, &layout);
    if (layout.before < 0) fail("cannot find the thread-local memory that holds shared memory");
  }
  begin = dynamic - layout.before;
  end = begin + layout.size;
  in_use = bytes;
  ASAN_POISON_MEMORY_REGION(dynamic + in_use, shared_opt_in + guard - in_use);
}

void close_shared() { ASAN_UNPOISON_MEMORY_REGION(dynamic, shared_opt_in + guard); }

bool is_shared(const void* p) { return p >= begin && p < end; }
ptrdiff_t dynamic_offset(const void* p) {
  const ptrdiff_t offset = static_cast<const unsigned char*>(p) - dynamic;
  return offset < ptrdiff_t(shared_opt_in + guard) ? offset : -1;
}

bool is_unused(const void* p, size_t size) {
  const auto* c = static_cast<const unsigned char*>(p);
  return c + size > dynamic + in_use && c < dynamic + shared_opt_in + guard;
}

namespace {

// The parts in use: before the dynamic part, its beginning, and behind it.
template <class F>
void each_part(F f) {
  unsigned char* rest = dynamic + shared_opt_in + guard;
  if (begin != dynamic) f(begin, size_t(dynamic - begin));
  if (in_use != 0) f(dynamic, in_use);
  if (rest != end) f(rest, size_t(end - rest));
}

}  // namespace

void fill_shared() {
  const int garbage = ++fills % 2 ? 0xa5 : 0xff;  // a negative integer; also a NaN
  each_part([=](unsigned char* part, size_t size) { std::memset(part, garbage, size); });
#if !defined(__SANITIZE_ADDRESS__)
  std::memset(dynamic + in_use, 0xc3, guard);
#endif
}

bool shared_intact() {
#if !defined(__SANITIZE_ADDRESS__)
  for (size_t i = 0; i < guard; ++i) {
    if (dynamic[in_use + i] != 0xc3) return false;
  }
#endif
  return true;
}

size_t shared_size() {
  size_t total = 0;
  each_part([&](unsigned char*, size_t size) { total += size; });
  return total;
}
void save_shared(unsigned char* to) {
  each_part([&](unsigned char* part, size_t size) { std::memcpy(to, part, size), to += size; });
}
void restore_shared(const unsigned char* from) {
  each_part([&](unsigned char* part, size_t size) { std::memcpy(part, from, size), from += size; });
}

}  // namespace simt
