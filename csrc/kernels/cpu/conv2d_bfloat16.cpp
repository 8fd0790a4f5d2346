#include "kernels/cpu/conv2d_bfloat16.h"

#include <numeric>
#include <vector>

#include "kernels/cpu/conv2d_groups.h"
#include "kernels/cpu/conv2d_images.h"
#include "kernels/cpu/conv2d_problem.h"
#include "kernels/cpu/gemm_bfloat16.h"

namespace d2l::cpu {

namespace {

bool takes_pairs(const Conv2dShape& shape, Layout layout, Conv2dPass pass) {
  const bool is_forward = pass == Conv2dPass::forward;
  const int64_t depth = is_forward ? shape.group_c() : shape.group_k();
  const int64_t pixel = is_forward ? shape.input_pixel_stride() : shape.output_pixel_stride();
  return pass != Conv2dPass::weight_grad && layout == Layout::nhwc && depth % 2 == 0 && pixel % 2 == 0 &&
         (capability() == Capability::amx || !conv2d_suits_images(shape, sizeof(float))) &&
         are_pairs_faster(shape, pass);
}

bool takes_row_pairs(const Conv2dShape& s, Layout layout, Conv2dPass pass) {
  const bool has_plain_columns = s.S > 1 && std::gcd(s.stride_w, s.dilation_w) == 1;
  return pass == Conv2dPass::forward && capability() == Capability::amx &&
         (layout == Layout::nhwc || s.input_pixel_stride() == 1) && s.groups == 1 && s.R > 1 && has_plain_columns &&
         are_pairs_faster(s, pass);
}

}  // namespace

BFloat16Kernel bfloat16_kernel(const Conv2dShape& s, Layout layout, Conv2dPass pass) {
  if (conv2d_suits_groups(s, sizeof(float))) {
    const bool fills_tiles = capability() == Capability::amx && has_groups_for_tiles(s);
    return fills_tiles && takes_pairs(s, layout, pass) ? BFloat16Kernel::pairs : BFloat16Kernel::elements;
  }
  if (s.R == 1 && s.S == 1 && s.stride_h == 1 && s.stride_w == 1) {
    const bool takes_all_pixels = s.pad_top == 0 && s.pad_left == 0 && s.P == s.H && s.Q == s.W;
    const bool is_product = takes_all_pixels && s.groups == 1 && s.C > 0 && has_bfloat16_gemm();
    return is_product ? BFloat16Kernel::product : BFloat16Kernel::none;
  }
  if (has_bfloat16_gemm() && takes_pairs(s, layout, pass)) return BFloat16Kernel::pairs;
  if (has_bfloat16_gemm() && takes_row_pairs(s, layout, pass)) return BFloat16Kernel::row_pairs;
  return conv2d_takes_elements(s, pass) ? BFloat16Kernel::elements : BFloat16Kernel::none;
}

#if defined(__x86_64__)
#define D2L_PAIR_KERNELS(capability)                                               \
  namespace capability {                                                           \
  void correlate_pairs(const Correlation<float, float, BFloat16>& problem);        \
  void weave_rows(const uint16_t* from, int64_t pairs, int64_t values, float* to); \
  }
D2L_PAIR_KERNELS(avx512_bfloat16)
D2L_PAIR_KERNELS(amx)
#undef D2L_PAIR_KERNELS

namespace {

using PairCorrelation = Correlation<float, float, BFloat16>;

// Pairs travel through the kernel as the bits of a float.
void run(PairCorrelation problem, const BFloat16* source, const void* weight) {
  problem.depth /= 2;
  problem.source_channels /= 2;
  problem.source = reinterpret_cast<const float*>(source);
  problem.weight = static_cast<const float*>(weight);
  D2L_CALL_BFLOAT16(correlate_pairs, problem);
}

}  // namespace

void pair_rows(const BFloat16* from, int64_t pairs, int64_t values, BFloat16Pair* to) {
  D2L_CALL_BFLOAT16(weave_rows, reinterpret_cast<const uint16_t*>(from), pairs, values, reinterpret_cast<float*>(to));
}

void conv2d_row_pairs(const Conv2dShape& shape, Layout layout, const BFloat16* input, const BFloat16* weight,
                      WeightStrides weight_strides, const float* bias, BFloat16* output, Activation activation) {
  const int64_t pairs = (shape.R + 1) / 2;
  const WeightStrides strides{pairs * shape.S * shape.C, 1, shape.S * shape.C, shape.C};
  std::vector<BFloat16Pair> paired(static_cast<size_t>(shape.K * strides.k));
  auto* to = paired.data();
  for (int64_t k = 0; k < shape.K; ++k) {
    for (int64_t r = 0; r < shape.R; r += 2) {
      for (int64_t s = 0; s < shape.S; ++s) {
        for (int64_t c = 0; c < shape.C; ++c) {
          const auto value = [&](int64_t row) -> BFloat16Pair {
            if (row >= shape.R) return 0;
            return weight[k * weight_strides.k + c * weight_strides.c + row * weight_strides.r + s * weight_strides.s]
                .bits;
          };
          *to++ = value(r) | value(r + 1) << 16;
        }
      }
    }
  }
  auto problem = forward_problem<PairCorrelation>(shape, layout, strides);
  problem.source_layout = Layout::nhwc;
  problem.source = reinterpret_cast<const float*>(input);
  problem.weight = reinterpret_cast<const float*>(paired.data());
  problem.pairs_rows = true;
  problem.bias = bias;
  problem.activation = activation;
  problem.result = output;
  D2L_CALL_BFLOAT16(correlate_pairs, problem);
}

void conv2d_pairs(const Conv2dShape& shape, const BFloat16* input, const BFloat16Pair* weight,
                  WeightStrides weight_strides, const float* bias, BFloat16* output, Activation activation) {
  auto problem = forward_problem<PairCorrelation>(shape, Layout::nhwc, weight_strides);
  problem.bias = bias;
  problem.activation = activation;
  problem.result = output;
  run(problem, input, weight);
}

void conv2d_input_grad_pairs(const Conv2dShape& shape, const BFloat16* grad_output, const BFloat16Pair* weight,
                             WeightStrides weight_strides, BFloat16* grad_input) {
  auto problem = input_grad_problem<PairCorrelation>(shape, Layout::nhwc, weight_strides);
  problem.weight_group /= 2;
  problem.result = grad_input;
  run(problem, grad_output, weight);
}

void conv2d_input_grad_pairs(const Conv2dShape& shape, const BFloat16* grad_output, const BFloat16* weight,
                             WeightStrides weight_strides, BFloat16* grad_input) {
  auto problem = input_grad_problem<PairCorrelation>(shape, Layout::nhwc, weight_strides);
  problem.weight_pair = weight_strides.k;
  problem.weight_depth *= 2;
  problem.result = grad_input;
  run(problem, grad_output, weight);
}
#else
void pair_rows(const BFloat16*, int64_t, int64_t, BFloat16Pair*) {}
void conv2d_row_pairs(const Conv2dShape&, Layout, const BFloat16*, const BFloat16*, WeightStrides, const float*,
                      BFloat16*, Activation) {}
void conv2d_pairs(const Conv2dShape&, const BFloat16*, const BFloat16Pair*, WeightStrides, const float*, BFloat16*,
                  Activation) {}
void conv2d_input_grad_pairs(const Conv2dShape&, const BFloat16*, const BFloat16Pair*, WeightStrides, BFloat16*) {}
void conv2d_input_grad_pairs(const Conv2dShape&, const BFloat16*, const BFloat16*, WeightStrides, BFloat16*) {}
#endif

}  // namespace d2l::cpu
