#include "kernels/cpu/capability.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace d2l::cpu {
namespace {

constexpr const char* kVariable = "D2LKERNELS_CPU_CAPABILITY";
constexpr Capability kAll[] = {Capability::baseline, Capability::avx2, Capability::avx512};
constexpr int kUnset = -1;

std::atomic<int> g_capability{kUnset};

std::string supported_names() {
  std::string names;
  for (const Capability candidate : kAll) {
    if (is_supported(candidate)) names += (names.empty() ? "" : ", ") + std::string(name_of(candidate));
  }
  return names;
}

Capability best() {
  Capability result = Capability::baseline;
  for (const Capability candidate : kAll) {
    if (is_supported(candidate)) result = candidate;
  }
  return result;
}

Capability initial() {
  const char* wanted = std::getenv(kVariable);
  if (wanted == nullptr || *wanted == '\0') return best();
  for (const Capability candidate : kAll) {
    if (is_supported(candidate) && std::string(wanted) == name_of(candidate)) return candidate;
  }
  throw std::invalid_argument(std::string(kVariable) + ": expected one of " + supported_names() +
                              " on this machine, but got '" + wanted + "'");
}

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
  }
  return "unknown";
}

int64_t vector_bytes() {
  switch (capability()) {
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
