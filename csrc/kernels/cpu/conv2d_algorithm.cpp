#include "kernels/cpu/conv2d_algorithm.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels/cpu/capability.h"
#include "kernels/cpu/conv2d_images.h"
#include "kernels/cpu/winograd_kernel.h"

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

bool is_possible(const Conv2dShape& s, Conv2dPass pass) {
  if (s.R != s.S || s.stride_h != s.stride_w || s.dilation_h != 1 || s.dilation_w != 1 || s.groups != 1) return false;
  if (s.N * s.C * s.K * s.P * s.Q == 0) return false;
  if (s.stride_h == 1) return s.R == 3 || s.R == 5;
  return s.stride_h == 2 && s.R == 3 && (pass != Conv2dPass::input_grad || (s.pad_top == 1 && s.pad_left == 1));
}

// Times are estimated in multiply-adds, at the rate of the direct kernel on many channels. The constants are measured
// (AVX-512, one thread). In pairs, the first is of the forward pass and the input gradient, the second of the weight
// gradient.
struct Cost {
  double products;      // of the matrix products, per multiply-add
  double transform[2];  // of a tile and a channel
  double weight[2];     // transforming the weight, per pair of channels
};
// By the size of a transformed tile, from 4 on; 7 is that of stride 2.
constexpr Cost kWinogradCosts[] = {
    {1.0, {125, 145}, {235, 305}},  {1.03, {235, 270}, {300, 360}}, {1.1, {290, 390}, {330, 415}},
    {1.03, {230, 420}, {430, 500}}, {1.2, {710, 770}, {440, 600}},
};
// In tiles of AMX (winograd_parts.h), where transforms and weights are the larger part: smaller tiles win.
constexpr Cost kPartCosts[] = {
    {0.59, {85, 0}, {930, 0}},   {0.6, {195, 0}, {1180, 0}}, {0.66, {365, 0}, {1520, 0}},
    {0.66, {290, 0}, {1500, 0}}, {1.0, {800, 0}, {800, 0}},
};
constexpr double kDirectWeight[2] = {25, 35};  // packing it, per tap
// A transformed weight that stays in the cache costs less.
constexpr double kCachedPairs = 1 << 13, kCachedShare = 0.2;
// Maps that do not stay in the cache make transforms slower.
constexpr double kCachedElements = 1 << 20, kUncachedFactor = 1.15;
// Winograd has to be this much cheaper, to be faster for sure.
constexpr double kWorthwhile = 0.85;

// Of the direct kernel's time, on pairs of bfloat16, and in tiles of them. Of winograd's input and output, copied from
// and to bfloat16.
constexpr double kPairShare = 0.55, kTileShare = 0.1, kCopiedElement = 25;

// Channels as they fill vectors.
double lanes(int64_t channels) { return static_cast<double>((channels + 15) / 16 * 16); }
// The direct kernel lets the taps of a row share a vector, or two, if there are few.
double shared_lanes(const Conv2dShape& s, int64_t channels) {
  const int64_t vector = vector_bytes() / static_cast<int64_t>(sizeof(float));
  if (s.stride_h == 1 && channels * s.S <= vector) return 16.0 / static_cast<double>(s.S);
  return channels <= 10 ? 32.0 / 3 : lanes(channels);
}
// Channels to sum over.
double filled(int64_t channels) { return static_cast<double>(std::max<int64_t>(channels, 16)); }

double weight_cost(const Conv2dShape& s, double per_pair) {
  const double pairs = static_cast<double>(s.C) * static_cast<double>(s.K);
  return pairs * per_pair * (pairs <= kCachedPairs ? kCachedShare : 1.0);
}

struct ResultMap {
  int64_t rows, columns;
};

ResultMap result_map(const Conv2dShape& s, Conv2dPass pass) {
  return pass == Conv2dPass::input_grad ? ResultMap{s.H, s.W} : ResultMap{s.P, s.Q};
}

double winograd_cost(const Conv2dShape& s, Conv2dPass pass, int tile) {
  const int size = s.stride_h == 2 ? 2 * tile + 1 : tile + static_cast<int>(s.R) - 1;
  const int is_weight = pass == Conv2dPass::weight_grad;
  const ResultMap map = result_map(s, pass);
  const int64_t step = pass == Conv2dPass::input_grad ? s.stride_h * tile : tile;
  const int64_t count = s.N * ((map.rows + step - 1) / step) * ((map.columns + step - 1) / step);
  const auto tiles = static_cast<double>(count);
  const int64_t depth = pass == Conv2dPass::forward ? s.C : s.K, width = s.C + s.K - depth;
  const bool in_parts =
      capability() == Capability::amx && !is_weight && winograd_suits_parts(depth, width, count, size * size);
  const Cost& cost = (in_parts ? kPartCosts : kWinogradCosts)[size - 4];
  // Products of little depth take as long as storing them.
  const double pairs = pass == Conv2dPass::forward      ? filled(s.C) * lanes(s.K)
                       : pass == Conv2dPass::input_grad ? lanes(s.C) * filled(s.K)
                                                        : static_cast<double>(s.C) * lanes(s.K);
  const bool is_cached = static_cast<double>(s.N * (s.C * s.H * s.W + s.K * s.P * s.Q)) <= kCachedElements;
  const double transform = cost.transform[is_weight] * (is_cached ? 1.0 : kUncachedFactor);
  return tiles * (cost.products * size * size * pairs + transform * (lanes(s.C) + lanes(s.K))) +
         weight_cost(s, cost.weight[is_weight]);
}

double direct_cost(const Conv2dShape& s, Conv2dPass pass) {
  // With a stride every tap of the input gradient meets one pixel of grad_output.
  const ResultMap map = s.stride_h == 1 ? result_map(s, pass) : ResultMap{s.P, s.Q};
  const double c = static_cast<double>(s.C), k = static_cast<double>(s.K);
  const double pixels = static_cast<double>(map.rows * map.columns);
  double products = pixels * (pass == Conv2dPass::forward      ? c * shared_lanes(s, s.K)
                              : pass == Conv2dPass::input_grad ? shared_lanes(s, s.C) * k
                                                               : c * lanes(s.K));
  // The weight gradient has the channels of either map in its lanes.
  if (pass == Conv2dPass::weight_grad && s.stride_h == 1) {
    products = std::min(products, static_cast<double>(s.H * s.W) * lanes(s.C) * k);
  }
  const double taps = static_cast<double>(s.R * s.S);
  return static_cast<double>(s.N) * taps * products +
         weight_cost(s, kDirectWeight[pass == Conv2dPass::weight_grad] * taps);
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
  if (wanted == Conv2dAlgorithm::direct || !is_possible(shape, pass)) return 0;
  if (conv2d_suits_images(shape, sizeof(float))) return 0;
  int fastest = 0;
  double least = wanted == Conv2dAlgorithm::automatic ? kWorthwhile * direct_cost(shape, pass)
                                                      : std::numeric_limits<double>::infinity();
  for (const WinogradTile& candidate : kWinogradTiles) {
    if (candidate.taps != shape.R || candidate.stride != shape.stride_h) continue;
    const double cost = winograd_cost(shape, pass, candidate.tile);
    if (cost < least) least = cost, fastest = candidate.tile;
  }
  return fastest;
}

bool winograd_suits_parts(const Conv2dShape& shape, int tile) {
  // Transformed pixels and sums of many channels go through the L3 cache, which gives tiles of AMX no more than
  // vectors: a pixel has to meet many channels, and a sum many tiles.
  constexpr double kMostTraffic = 1.0 / 90;  // elements for each product
  const auto c = static_cast<double>(shape.C), k = static_cast<double>(shape.K);
  const int64_t tiles = shape.N * ((shape.P + tile - 1) / tile) * ((shape.Q + tile - 1) / tile);
  return 1 / c + 1 / k + 1 / static_cast<double>(tiles) <= kMostTraffic;
}

bool are_pairs_faster(const Conv2dShape& shape, Conv2dPass pass) {
  const int tile = winograd_tile(shape, pass);
  if (tile == 0) return true;
  if (conv2d_algorithm() == Conv2dAlgorithm::winograd) return false;
  const auto copied = static_cast<double>(shape.N * (shape.C * shape.H * shape.W + shape.K * shape.P * shape.Q));
  const double share = capability() == Capability::amx ? kTileShare : kPairShare;
  return share * direct_cost(shape, pass) < winograd_cost(shape, pass, tile) + kCopiedElement * copied;
}

Conv2dAlgorithm chosen_algorithm(const Conv2dShape& shape, Conv2dPass pass) {
  return winograd_tile(shape, pass) == 0 ? Conv2dAlgorithm::direct : Conv2dAlgorithm::winograd;
}

std::string describe_algorithm(const Conv2dShape& shape, Conv2dPass pass) {
  const int tile = winograd_tile(shape, pass);
  if (tile == 0) return name_of(Conv2dAlgorithm::direct);
  const auto square = [](int64_t size) { return std::to_string(size) + "x" + std::to_string(size); };
  const std::string stride = shape.stride_h == 1 ? "" : " with stride " + std::to_string(shape.stride_h);
  return "winograd F(" +
         (pass == Conv2dPass::weight_grad ? square(shape.R) + "," + square(tile)
                                          : square(tile) + "," + square(shape.R)) +
         ")" + stride;
}

}  // namespace d2l::cpu
