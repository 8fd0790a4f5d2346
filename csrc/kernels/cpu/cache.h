// What kernels know and assume of the caches.
#pragma once

#include <cstdint>

namespace d2l::cpu {

// Of one core; 1 MB where the system does not say.
int64_t l2_bytes();

// Results larger than the last cache are written past it: lines that are not read before they are written, and that
// nobody would find there later.
constexpr int64_t kStreamedBytes = int64_t{32} << 20;

// Whether `count` elements of a result are. Not where it takes the place of an operand, whose lines are in the cache.
template <typename T, typename... Operands>
bool is_streamed(int64_t count, [[maybe_unused]] const T* result, const Operands*... operands) {
  return count * static_cast<int64_t>(sizeof(T)) >= kStreamedBytes && (... && (operands != result));
}

}  // namespace d2l::cpu
