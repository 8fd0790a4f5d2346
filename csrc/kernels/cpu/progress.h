// What a kernel tells, while it writes a map, about what of it is finished: a plain function, because kernels are
// compiled for other instruction sets than the code that listens.
#pragma once

#include <cstdint>

namespace d2l::cpu {

struct Progress {
  // All channels of the pixels [begin, end), counted over all images, are written by the calling thread, those from
  // `before` on since its last report (before = begin in the first one), and are likely to be in its cache.
  void (*report)(void* context, int64_t begin, int64_t before, int64_t end) = nullptr;  // null: nobody listens
  void* context = nullptr;
};

}  // namespace d2l::cpu
