#include "kernels/cpu/cache.h"

#if defined(__linux__)
#include <unistd.h>
#endif

namespace d2l::cpu {
namespace {

int64_t measured_l2_bytes() {
#if defined(__linux__) && defined(_SC_LEVEL2_CACHE_SIZE)
  return sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
  return 0;
#endif
}

}  // namespace

int64_t l2_bytes() {
  static const int64_t bytes = measured_l2_bytes();
  return bytes > 0 ? bytes : int64_t{1} << 20;
}

}  // namespace d2l::cpu
