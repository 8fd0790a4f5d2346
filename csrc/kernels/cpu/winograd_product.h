// The register tile of Winograd's matrix products: Rows tiles by NV vectors of result channels stay in registers while
// `depth` channels stream past; per channel NV loads, Rows broadcasts and NV * Rows fused multiply-adds. Only for
// kernel sources.
#pragma once

#include <utility>

#include "kernels/cpu/conv2d_microkernel.h"
#include "kernels/cpu/line_prefetch.h"
#include "kernels/cpu/winograd_transform.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

struct ProductArguments {
  const float* pixels;
  int64_t pixel_stride;  // between tiles
  int64_t depth;
  const float* weights;  // depth x NV vectors
  float* products;
  int64_t product_stride;
  bool fresh;          // products hold nothing yet
  LinePrefetch* next;  // what is needed later
  int64_t share;       // lines of it to fetch, at most
};

using ProductFunction = void (*)(const ProductArguments&);

template <int Rows, int NV>
void product_tile(const ProductArguments& arguments) {
  constexpr int kBases = (Rows + kPixelsPerBase - 1) / kPixelsPerBase;
  const int64_t stride = arguments.pixel_stride;
  const float* base[kBases];
#pragma GCC unroll 5
  for (int b = 0; b < kBases; ++b) {
    base[b] = arguments.pixels + b * kPixelsPerBase * stride;
    asm("" : "+r"(base[b]));  // as in conv2d_microkernel.h
  }
  const float* weights = arguments.weights;
  Floats sums[Rows][NV] = {};
  const auto step = [&]() D2L_INLINE_LAMBDA {
    Floats weight[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) weight[v] = load(weights + v * kLanes<float>);
#pragma GCC unroll 14
    for (int i = 0; i < Rows; ++i) {
      const Floats value = broadcast(base[i / kPixelsPerBase][(i % kPixelsPerBase) * stride]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) sums[i][v] += value * weight[v];
    }
    weights += NV * kLanes<float>;
#pragma GCC unroll 5
    for (int b = 0; b < kBases; ++b) ++base[b];
  };
  run_steps(arguments.depth, arguments.share, *arguments.next, step);
  float* products = arguments.products;
#pragma GCC unroll 14
  for (int i = 0; i < Rows; ++i, products += arguments.product_stride) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      float* to = products + v * kLanes<float>;
      store(to, arguments.fresh ? sums[i][v] : load(static_cast<const float*>(to)) + sums[i][v]);
    }
  }
}

template <int NV, int... I>
D2L_INLINE ProductFunction product_of(int rows, std::integer_sequence<int, I...>) {
  constexpr ProductFunction kProducts[] = {product_tile<1 + I, NV>...};
  return kProducts[rows - 1];
}

D2L_INLINE ProductFunction product_function(int64_t rows, bool two_vectors) {
  constexpr auto kIndices = std::make_integer_sequence<int, kTilePixels>{};
  return two_vectors ? product_of<2>(static_cast<int>(rows), kIndices)
                     : product_of<1>(static_cast<int>(rows), kIndices);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
