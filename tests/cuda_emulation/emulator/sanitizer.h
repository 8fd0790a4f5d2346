// AddressSanitizer's annotations; nothing in other builds.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define D2L_ADDRESS_SANITIZER 1
#else
#define D2L_ADDRESS_SANITIZER 0
#endif

namespace d2l::emulator {

inline void poison(void* memory, size_t bytes) {
#if D2L_ADDRESS_SANITIZER
  __asan_poison_memory_region(memory, bytes);
#else
  static_cast<void>(memory), static_cast<void>(bytes);
#endif
}

inline void unpoison(void* memory, size_t bytes) {
#if D2L_ADDRESS_SANITIZER
  __asan_unpoison_memory_region(memory, bytes);
#else
  static_cast<void>(memory), static_cast<void>(bytes);
#endif
}

}  // namespace d2l::emulator
