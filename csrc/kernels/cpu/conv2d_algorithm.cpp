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

// Times are estimated in multiply-adds, at the rate of the direct kernel on many channels. The constants are measured
// (AVX-512, one thread).
struct Cost {
  double products;  // of a tile (direct: a pixel) and a pair of channels
  // Forward and input gradient, and weight gradient:
  double transform[2];  // of a tile and a channel
  double weight[2];     // packing or transforming the weight, per pair of channels
};
constexpr Cost kDirect = {9, {0, 0}, {300, 600}};
constexpr Cost kTiles4 = {36, {440, 390}, {450, 1700}};
constexpr Cost kTiles2 = {16, {180, 150}, {300, 900}};
// A transformed weight that stays in the cache costs less.
constexpr double kCachedPairs = 1 << 14, kCachedShare = 0.2;
// Maps that do not stay in the cache make transforms slower.
constexpr double kCachedElements = 1 << 20, kUncachedFactor = 1.6;
// Winograd has to be this much cheaper, to be faster for sure.
constexpr double kWorthwhile = 0.85;

// Channels as they fill vectors.
double lanes(int64_t channels) { return static_cast<double>((channels + 15) / 16 * 16); }
// The direct kernel lets the taps of a row share a vector if there are few.
double shared_lanes(int64_t channels) { return channels <= 10 ? 32.0 / 3 : lanes(channels); }

double weight_cost(const Conv2dShape& s, Conv2dPass pass, const Cost& cost) {
  const double pairs = static_cast<double>(s.C) * static_cast<double>(s.K);
  return pairs * cost.weight[pass == Conv2dPass::weight_grad] * (pairs <= kCachedPairs ? kCachedShare : 1.0);
}

struct ResultMap {
  int64_t rows, columns;
};

ResultMap result_map(const Conv2dShape& s, Conv2dPass pass) {
  return pass == Conv2dPass::input_grad ? ResultMap{s.H, s.W} : ResultMap{s.P, s.Q};
}

double winograd_cost(const Conv2dShape& s, Conv2dPass pass, int tile) {
  const Cost& cost = tile == 4 ? kTiles4 : kTiles2;
  const ResultMap map = result_map(s, pass);
  const double tiles = static_cast<double>(s.N * ((map.rows + tile - 1) / tile) * ((map.columns + tile - 1) / tile));
  const double pairs =
      pass == Conv2dPass::input_grad ? lanes(s.C) * static_cast<double>(s.K) : static_cast<double>(s.C) * lanes(s.K);
  const bool is_cached = static_cast<double>(s.N * (s.C * s.H * s.W + s.K * s.P * s.Q)) <= kCachedElements;
  const double transform = cost.transform[pass == Conv2dPass::weight_grad] * (is_cached ? 1.0 : kUncachedFactor);
  return tiles * (cost.products * pairs + transform * (lanes(s.C) + lanes(s.K))) + weight_cost(s, pass, cost);
}

double direct_cost(const Conv2dShape& s, Conv2dPass pass) {
  const ResultMap map = result_map(s, pass);
  const double c = static_cast<double>(s.C), k = static_cast<double>(s.K);
  const double pairs = pass == Conv2dPass::forward      ? c * shared_lanes(s.K)
                       : pass == Conv2dPass::input_grad ? shared_lanes(s.C) * k
                                                        : c * lanes(s.K);
  return static_cast<double>(s.N * map.rows * map.columns) * kDirect.products * pairs + weight_cost(s, pass, kDirect);
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
  const double best = large < small ? large : small;
  if (wanted == Conv2dAlgorithm::automatic && best >= kWorthwhile * direct_cost(shape, pass)) return 0;
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
