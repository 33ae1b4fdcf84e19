#include "fiber.h"

#include <sys/mman.h>

#include <vector>

#include "error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// simt_switch saves what a function call must preserve on the stack it leaves, then unwinds the
// same from the stack it enters. It returns by `ret`: threads mostly wait at the same place, so the
// return addresses that the processor predicts are right, and a jump would leave them off by one.
#if defined(SIMT_UCONTEXT)  // asked for
#elif defined(__x86_64__)
asm(R"(
  .text
  .p2align 4
  .globl simt_switch
  .hidden simt_switch
  .type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size simt_switch, . - simt_switch
)");
constexpr int saved_words = 7, entry_word = 6;
#elif defined(__aarch64__)
asm(R"(
  .text
  .p2align 4
  .globl simt_switch
  .hidden simt_switch
  .type simt_switch, %function
simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size simt_switch, . - simt_switch
)");
constexpr int saved_words = 20, entry_word = 11;
#else
#define SIMT_UCONTEXT
#endif

#if defined(SIMT_UCONTEXT)
#include <ucontext.h>
static void simt_switch(void** from, void* to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}
#else
extern "C" void simt_switch(void** from, void* to);
#endif

namespace simt {
namespace {

// One reservation for all stacks, each above a page that stops an overflow. Its size in pages is
// odd, so that the stacks' ends, the part in use, spread over a cache's sets. The kernel tells
// apart so many pieces of memory only, so stacks beyond most_guarded go without that page.
constexpr size_t page = 4096, pitch = stack_size + page, most_stacks = 1 << 17,
                 most_guarded = 1 << 14;
char* arena = nullptr;
size_t made = 0;
std::vector<char*> unused;

}  // namespace

bool is_stack(const void* p) {
  const char* c = static_cast<const char*>(p);
  return c >= arena && c < arena + made * pitch;
}

char* take_stack() {
  if (unused.empty()) {
    if (arena == nullptr) {
      void* p = mmap(nullptr, most_stacks * pitch, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) fail("no address space for stacks");
      arena = static_cast<char*>(p);
    }
    if (made == most_stacks) fail("more than %zu threads wait at once", most_stacks);
    char* stack = arena + made * pitch + page;
    const size_t open = made < most_guarded ? 0 : page;
    if (mprotect(stack - open, stack_size + open, PROT_READ | PROT_WRITE) != 0) {
      fail("no memory for stacks");
    }
    ++made;
    return stack;
  }
  char* stack = unused.back();
  unused.pop_back();
  return stack;
}

void give_stack(char* stack) { unused.push_back(stack); }

#if defined(SIMT_UCONTEXT)
Context new_fiber(char* stack, void (*entry)()) {
  auto* context = reinterpret_cast<ucontext_t*>(stack);
  getcontext(context);
  context->uc_stack.ss_sp = context + 1;
  context->uc_stack.ss_size = stack_size - sizeof(ucontext_t);
  makecontext(context, entry, 0);
  return context;
}
#else
Context new_fiber(char* stack, void (*entry)()) {
  // Ends differ by whole pages only; a few lines more keep them apart in the first-level cache.
  const size_t shift = (reinterpret_cast<size_t>(stack) / pitch % 16) * 256;
  void** top = reinterpret_cast<void**>(stack + stack_size - shift - 64);
  *--top = nullptr;  // where `entry` would return to; also what the ABI wants for alignment
  if (saved_words % 2 == 0) --top;
  top -= saved_words;
  for (int i = 0; i < saved_words; ++i) top[i] = nullptr;
  top[entry_word] = reinterpret_cast<void*>(entry);
  return top;
}
#endif

// ASan must know which stack is in use; the host's bounds it tells to whom the host switches to.
#if defined(__SANITIZE_ADDRESS__)
namespace {
const void* host_stack = nullptr;
size_t host_size = 0;
bool left_host = false;

void arrived(void* fake_stack) {
  const void* stack;
  size_t size;
  __sanitizer_finish_switch_fiber(fake_stack, &stack, &size);
  if (left_host) host_stack = stack, host_size = size;
}
}  // namespace

void fiber_entered() { arrived(nullptr); }

void switch_fiber(Context* from, Context to, char* stack) {
  static Context over;
  void* fake_stack = nullptr;
  left_host = !is_stack(__builtin_frame_address(0));
  __sanitizer_start_switch_fiber(from ? &fake_stack : nullptr, stack ? stack : host_stack,
                                 stack ? stack_size : host_size);
  simt_switch(from ? from : &over, to);
  arrived(fake_stack);
}
#else
void fiber_entered() {}

void switch_fiber(Context* from, Context to, char*) {
  static Context over;
  simt_switch(from ? from : &over, to);
}
#endif

}  // namespace simt
