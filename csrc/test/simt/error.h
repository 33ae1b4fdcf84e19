// Messages that name the kernel, the block and the thread, and end the process.
#pragma once

#include <string>

namespace simt {

[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...);

// Function, file and line of an instruction, as far as the debug information tells.
std::string source_of(const void* pc);

}  // namespace simt
