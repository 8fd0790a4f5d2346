#include "kernels/cpu/capability.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace d2l::cpu {
namespace {

constexpr const char* kVariable = "D2LKERNELS_CPU_CAPABILITY";
constexpr int kUnset = -1;

std::atomic<int> g_capability{kUnset};

std::string supported_names() {
  std::string names;
  for (const Capability candidate : kCapabilities) {
    if (is_supported(candidate)) names += (names.empty() ? "" : ", ") + std::string(name_of(candidate));
  }
  return names;
}

Capability best() {
  Capability result = Capability::baseline;
  for (const Capability candidate : kCapabilities) {
    if (is_supported(candidate)) result = candidate;
  }
  return result;
}

Capability initial() {
  const char* wanted = std::getenv(kVariable);
  if (wanted == nullptr || *wanted == '\0') return best();
  for (const Capability candidate : kCapabilities) {
    if (is_supported(candidate) && std::string(wanted) == name_of(candidate)) return candidate;
  }
  throw std::invalid_argument(std::string(kVariable) + ": expected one of " + supported_names() +
                              " on this machine, but got '" + wanted + "'");
}

#if defined(__x86_64__)
bool has_bfloat16_tiles() {
  constexpr unsigned kFeatures = 7, kBFloat16 = 1u << 22, kTiles = 1u << 24;  // in edx
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(kFeatures, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kBFloat16) != 0 && (edx & kTiles) != 0;
}

// Tiles take 8 KB of every thread's state, so Linux wants to be asked by each process.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr int64_t kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

}  // namespace

Capability capability() {
  int value = g_capability.load(std::memory_order_relaxed);
  if (value == kUnset) {
    const int first = static_cast<int>(initial());
    // A set_capability that came in between wins.
    value = g_capability.compare_exchange_strong(value, first) ? first : value;
  }
  return static_cast<Capability>(value);
}

bool is_supported(Capability capability) {
  switch (capability) {
    case Capability::baseline:
      return true;
#if defined(__x86_64__)
    case Capability::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Capability::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
    case Capability::amx: {
      static const bool is_there = is_supported(Capability::avx512) && __builtin_cpu_supports("avx512bf16") &&
                                   has_bfloat16_tiles() && may_use_tiles();
      return is_there;
    }
#endif
    default:
      return false;
  }
}

void set_capability(Capability capability) {
  if (!is_supported(capability)) {
    throw std::invalid_argument(std::string("set_capability(): expected capability to be one of ") + supported_names() +
                                " on this machine, but got " + name_of(capability));
  }
  g_capability.store(static_cast<int>(capability), std::memory_order_relaxed);
}

const char* name_of(Capability capability) {
  switch (capability) {
    case Capability::baseline:
      return "baseline";
    case Capability::avx2:
      return "avx2";
    case Capability::avx512:
      return "avx512";
    case Capability::amx:
      return "amx";
  }
  return "unknown";
}

int64_t vector_bytes() {
  switch (capability()) {
    case Capability::amx:
    case Capability::avx512:
      return 64;
    case Capability::avx2:
      return 32;
    case Capability::baseline:
      return 16;
  }
  return 16;
}

}  // namespace d2l::cpu
