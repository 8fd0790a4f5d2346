// What kernels assume of the caches beyond the core's own.
#pragma once

#include <cstdint>

namespace d2l::cpu {

// Results larger than the last cache are written past it: lines that are not read before they are written, and that
// nobody would find there later.
constexpr int64_t kStreamedBytes = int64_t{32} << 20;

}  // namespace d2l::cpu
