#include "common/freed_memory.h"

#include <cstdlib>
#if defined(__GLIBC__)
#include <malloc.h>

#include <climits>
#endif

namespace d2l {

#if defined(__GLIBC__)
bool keep_freed_memory(bool keep) {
  // What glibc starts with: malloc.h and mallopt(3).
  constexpr int kMaps = 65536, kTrim = 128 << 10;
  // Blocks from mmap go back with free; blocks of the heap stay, unless the top of the heap is trimmed.
  const bool done =
      mallopt(M_MMAP_MAX, keep ? 0 : kMaps) != 0 && mallopt(M_TRIM_THRESHOLD, keep ? INT_MAX : kTrim) != 0;
  if (!keep) malloc_trim(0);
  return done;
}
#else
bool keep_freed_memory(bool) { return false; }
#endif

}  // namespace d2l
