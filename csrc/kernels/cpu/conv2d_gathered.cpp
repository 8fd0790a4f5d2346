#include "kernels/cpu/conv2d_gathered.h"

namespace d2l::cpu {
namespace {

// Smaller products gain less in tiles than gathering costs.
constexpr int64_t kLeastWidth = 48, kLeastDepth = 128, kLeastProducts = 1 << 22;

}  // namespace

bool suits_gathering(const Correlation<float>& p) {
  const bool is_single_tap = p.rows.taps == 1 && p.columns.taps == 1 && p.rows.pad == 0 && p.columns.pad == 0;
  const bool is_possible = capability() == Capability::amx && p.groups == 1 && is_single_tap &&
                           p.source_layout == Layout::nhwc && p.result_layout == Layout::nhwc &&
                           (p.weight_depth == 1 || p.weight_width == 1);
  if (!is_possible || p.width < kLeastWidth || p.depth < kLeastDepth) return false;
  const int64_t pixels = p.transposed ? p.rows.source * p.columns.source : p.rows.result * p.columns.result;
  return p.images * pixels * p.width * p.depth >= kLeastProducts;
}

}  // namespace d2l::cpu
