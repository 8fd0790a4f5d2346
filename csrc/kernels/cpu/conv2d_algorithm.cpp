#include "kernels/cpu/conv2d_algorithm.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace d2l::cpu {
namespace {

constexpr const char* kVariable = "D2LKERNELS_CONV_ALGORITHM";
constexpr Conv2dAlgorithm kAll[] = {Conv2dAlgorithm::automatic, Conv2dAlgorithm::direct, Conv2dAlgorithm::winograd};
constexpr int kUnset = -1;

std::atomic<int> g_algorithm{kUnset};

Conv2dAlgorithm initial() {
  const char* wanted = std::getenv(kVariable);
  if (wanted == nullptr || *wanted == '\0') return Conv2dAlgorithm::automatic;
  for (const Conv2dAlgorithm candidate : kAll) {
    if (std::string(wanted) == name_of(candidate)) return candidate;
  }
  throw std::invalid_argument(std::string(kVariable) + ": expected one of auto, direct, winograd, but got '" + wanted +
                              "'");
}

bool is_possible(const Conv2dShape& s) {
  return s.R == 3 && s.S == 3 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1 &&
         s.groups == 1 && s.N * s.C * s.K * s.P * s.Q > 0;
}

double tiles_of(int64_t pixels, int size) { return static_cast<double>((pixels + size - 1) / size); }

// Estimated time per pass in multiply-adds of one channel pair, as the products of the direct kernel count. A tile
// costs its n * n products, and per channel a transform; the weight is transformed once per call.
struct Cost {
  double transform;  // of a tile and one channel, in products
  double weight;     // of a channel pair, in products
};

double winograd_cost(const Conv2dShape& s, Conv2dPass pass, int tile) {
  const int size = tile + 2;
  const Cost cost = {tile == 4 ? 2.0 * 36 * 12 : 2.0 * 16 * 6, tile == 4 ? 60.0 : 30.0};
  const bool transposed = pass == Conv2dPass::input_grad;
  const double tiles =
      static_cast<double>(s.N) * tiles_of(transposed ? s.H : s.P, tile) * tiles_of(transposed ? s.W : s.Q, tile);
  const double pairs = static_cast<double>(s.C) * static_cast<double>(s.K);
  return pairs * (tiles * size * size + cost.weight) + tiles * cost.transform * static_cast<double>(s.C + s.K);
}

double direct_cost(const Conv2dShape& s, Conv2dPass pass) {
  const bool transposed = pass == Conv2dPass::input_grad;
  const double pixels = static_cast<double>(s.N) * static_cast<double>(transposed ? s.H * s.W : s.P * s.Q);
  return 9 * pixels * static_cast<double>(s.C) * static_cast<double>(s.K);
}

}  // namespace

Conv2dAlgorithm conv2d_algorithm() {
  int value = g_algorithm.load(std::memory_order_relaxed);
  if (value == kUnset) {
    const int first = static_cast<int>(initial());
    // A set_conv2d_algorithm that came in between wins.
    value = g_algorithm.compare_exchange_strong(value, first) ? first : value;
  }
  return static_cast<Conv2dAlgorithm>(value);
}

void set_conv2d_algorithm(Conv2dAlgorithm algorithm) {
  g_algorithm.store(static_cast<int>(algorithm), std::memory_order_relaxed);
}

const char* name_of(Conv2dAlgorithm algorithm) {
  switch (algorithm) {
    case Conv2dAlgorithm::automatic:
      return "auto";
    case Conv2dAlgorithm::direct:
      return "direct";
    case Conv2dAlgorithm::winograd:
      return "winograd";
  }
  return "unknown";
}

int winograd_tile(const Conv2dShape& shape, Conv2dPass pass) {
  const Conv2dAlgorithm wanted = conv2d_algorithm();
  if (wanted == Conv2dAlgorithm::direct || !is_possible(shape)) return 0;
  const double large = winograd_cost(shape, pass, 4), small = winograd_cost(shape, pass, 2);
  if (wanted == Conv2dAlgorithm::automatic && direct_cost(shape, pass) <= (large < small ? large : small)) return 0;
  return large < small ? 4 : 2;
}

Conv2dAlgorithm chosen_algorithm(const Conv2dShape& shape, Conv2dPass pass) {
  return winograd_tile(shape, pass) == 0 ? Conv2dAlgorithm::direct : Conv2dAlgorithm::winograd;
}

const char* describe_algorithm(const Conv2dShape& shape, Conv2dPass pass) {
  const bool is_weight = pass == Conv2dPass::weight_grad;
  switch (winograd_tile(shape, pass)) {
    case 4:
      return is_weight ? "winograd F(3x3,4x4)" : "winograd F(4x4,3x3)";
    case 2:
      return is_weight ? "winograd F(3x3,2x2)" : "winograd F(2x2,3x3)";
    default:
      return "direct";
  }
}

}  // namespace d2l::cpu
