#include "kernels/cpu/conv2d.h"

#include <type_traits>

#include "kernels/cpu/batch_norm_written.h"
#include "kernels/cpu/conv2d_algorithm.h"
#include "kernels/cpu/conv2d_gathered.h"
#include "kernels/cpu/conv2d_groups.h"
#include "kernels/cpu/conv2d_images.h"
#include "kernels/cpu/conv2d_problem.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_bfloat16.h"
#include "kernels/cpu/winograd_kernel.h"

namespace d2l::cpu {
namespace {

// With one channel or one pixel both layouts are the same memory, and nhwc needs no transposition.
Layout effective(Layout layout, int64_t channels, int64_t pixels) {
  return channels == 1 || pixels == 1 ? Layout::nhwc : layout;
}

// One tap, that of each pixel itself.
bool is_pointwise(const CorrelationAxis& axis) {
  return axis.taps == 1 && axis.stride == 1 && axis.pad == 0 && axis.source == axis.result;
}

// A 1x1 convolution of all pixels sees no rows: one long row (of all images, if their pixels follow one another)
// fills register tiles best.
template <typename Problem>
void flatten_pointwise(Problem& problem, Layout source_layout, Layout result_layout) {
  if (!is_pointwise(problem.rows) || !is_pointwise(problem.columns)) return;
  int64_t pixels = problem.rows.source * problem.columns.source;
  if (source_layout == Layout::nhwc && result_layout == Layout::nhwc) {
    pixels *= problem.images;
    problem.images = 1;
  }
  problem.rows.source = problem.rows.result = 1;
  problem.columns.source = problem.columns.result = pixels;
}

// Whether every pixel of the result comes from one of the source, all of them in one row of pixels: a matrix product.
template <typename T>
bool is_matrix_product(const Correlation<T>& problem) {
  return problem.groups == 1 && problem.images == 1 && problem.rows.result == 1 && is_pointwise(problem.rows) &&
         is_pointwise(problem.columns) && problem.source_layout == Layout::nhwc &&
         problem.result_layout == Layout::nhwc && (problem.weight_depth == 1 || problem.weight_width == 1);
}

template <typename T>
void multiply_pixels(const Correlation<T>& problem) {
  gemm(Gemm<T>{problem.columns.result, problem.width, problem.depth, problem.source, problem.source_channels, 1,
               problem.weight, problem.weight_depth, problem.weight_width, problem.bias, problem.result,
               problem.result_channels, problem.activation, problem.progress});
}

// The weight gradient as a product of maps whose pixels lie in one row each: output channels by input channels, or the
// other way round where the weight is transposed. `rows` is 0 where it is none.
template <typename T>
Gemm<T> pixels_product(const WeightGradient<T>& p) {
  const bool is_product = p.groups == 1 && p.images == 1 && p.rows.result == 1 && is_pointwise(p.rows) &&
                          is_pointwise(p.columns) && p.input_layout == Layout::nhwc &&
                          p.output_layout == Layout::nhwc && (p.weight_depth == 1 || p.weight_width == 1);
  if (!is_product) return {};
  const int64_t pixels = p.columns.result, input = p.input_channels, output = p.output_channels;
  if (p.weight_depth != 1) {
    return {p.depth, p.width,       pixels,         p.input,         1, input, p.grad_output, output, 1,
            nullptr, p.grad_weight, p.weight_depth, Activation::none};
  }
  return {p.width, p.depth,       pixels,         p.grad_output,   1, output, p.input, input, 1,
          nullptr, p.grad_weight, p.weight_width, Activation::none};
}

// With few channels, splitting both maps takes longer than multiplying them where they lie.
template <typename T>
bool is_worth_splitting(const Gemm<T>& p) {
  return p.rows > 0 && p.rows * p.columns >= 64 * (p.rows + p.columns);
}

template <typename E>
void write_zeros(const Conv2dShape& shape, E* weight, const WeightStrides& strides) {
  for (int64_t k = 0; k < shape.K; ++k) {
    for (int64_t c = 0; c < shape.group_c(); ++c) {
      for (int64_t r = 0; r < shape.R; ++r) {
        for (int64_t s = 0; s < shape.S; ++s)
          weight[k * strides.k + c * strides.c + r * strides.r + s * strides.s] = E{};
      }
    }
  }
}

// Whether the weight gradient of bfloat16 maps multiplies pairs of images with the machine's own instruction.
bool multiplies_pairs(const Conv2dShape& shape) { return has_bfloat16_gemm() && shape.N > 1; }

// Whether it multiplies them in tiles. Their columns are channels of the input, or the taps of a row of a single one.
bool multiplies_tiles(const Conv2dShape& shape) {
  if (capability() != Capability::amx || !multiplies_pairs(shape)) return false;
  if (shape.input_pixel_stride() == 1 && shape.dilation_w == 1) return shape.S >= 3 && shape.K >= 6;
  if (shape.groups > 1) return has_groups_for_tiles(shape);
  return shape.C >= 2 && shape.K >= 4;
}

template <typename T>
int tile_of(const Conv2dShape& shape, Conv2dPass pass) {
  return std::is_same_v<T, float> ? winograd_tile(shape, pass) : 0;
}

// Smaller maps stay in the L2 cache until they are read again. Beside what Winograd's algorithm keeps there, reading
// them early only pays where they are much larger than that cache.
template <typename T>
bool is_worth_gathering(const Conv2dShape& shape) {
  const int64_t bytes = shape.N * shape.K * shape.P * shape.Q * static_cast<int64_t>(sizeof(T));
  return bytes >= (tile_of<T>(shape, Conv2dPass::forward) > 0 ? int64_t{4} << 20 : int64_t{1} << 20);
}

template <typename T, typename E>
void run(Correlation<T, E> problem, const Conv2dShape& shape, Conv2dPass pass) {
  if (problem.images * problem.width * problem.groups * problem.rows.result * problem.columns.result == 0) return;
  if (conv2d_suits_groups(shape, sizeof(T))) {
    conv2d_groups(problem);
    return;
  }
  problem.source_layout =
      effective(problem.source_layout, problem.depth * problem.groups, problem.rows.source * problem.columns.source);
  problem.result_layout =
      effective(problem.result_layout, problem.width * problem.groups, problem.rows.result * problem.columns.result);
  if constexpr (std::is_same_v<E, float>) {
    const int tile = winograd_tile(shape, pass);
    if (tile > 0) {
      D2L_CALL_TILED(winograd_correlate, problem, tile);
      return;
    }
  }
  flatten_pointwise(problem, problem.source_layout, problem.result_layout);
  if constexpr (std::is_same_v<T, E>) {
    if (is_matrix_product(problem)) {
      multiply_pixels(problem);
      return;
    }
  }
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, float> && std::is_same_v<E, float>) {
    if (suits_gathering(problem)) {
      amx::correlate_gathered(problem);
      return;
    }
  }
#endif
  D2L_CALL_BEST(correlate, problem);
}

}  // namespace

bool conv2d_takes_elements(const Conv2dShape& shape, Conv2dPass pass) {
  const bool is_automatic = conv2d_algorithm() == Conv2dAlgorithm::automatic;
  if (pass == Conv2dPass::weight_grad && is_automatic && multiplies_tiles(shape)) return true;
  // Twice the products a cycle are worth more than the 1.65x fewer of Winograd's with stride 2.
  const bool is_faster_in_pairs =
      pass == Conv2dPass::weight_grad && is_automatic && shape.stride_h == 2 && multiplies_pairs(shape);
  return !conv2d_suits_images(shape, sizeof(float)) && (is_faster_in_pairs || winograd_tile(shape, pass) == 0);
}

template <typename E>
void conv2d(const Conv2dShape& shape, Layout layout, const E* input, const computed_t<E>* weight,
            WeightStrides weight_strides, const computed_t<E>* bias, E* output, Activation activation,
            const Progress& progress) {
  using T = computed_t<E>;
  if constexpr (std::is_same_v<T, E>) {
    if (conv2d_suits_images(shape, sizeof(T))) {
      conv2d_images<T>(
          {shape, layout, layout, input, weight, weight_strides, bias, activation, output, nullptr, progress});
      return;
    }
  }
  auto problem = forward_problem<Correlation<T, E>>(shape, layout, weight_strides);
  problem.source = input;
  problem.weight = weight;
  problem.bias = bias;
  problem.activation = activation;
  problem.result = output;
  problem.progress = progress;
  run(problem, shape, Conv2dPass::forward);
}

template <typename T>
void conv2d_moments(const Conv2dShape& shape, Layout layout, const T* input, const T* weight,
                    WeightStrides weight_strides, const T* bias, T* output, double* mean, double* var) {
  const BatchNormShape maps{shape.N, shape.K, shape.P * shape.Q};
  if (!is_worth_gathering<T>(shape)) {
    conv2d<T>(shape, layout, input, weight, weight_strides, bias, output);
    batch_norm_moments<T>(maps, layout, {output}, mean, var);
    return;
  }
  WrittenMoments<T> moments(maps, layout, output);
  conv2d<T>(shape, layout, input, weight, weight_strides, bias, output, Activation::none, moments.progress());
  moments.join(mean, var);
}

template <typename E>
void conv2d_input_grad(const Conv2dShape& shape, Layout layout, const E* grad_output, const computed_t<E>* weight,
                       WeightStrides weight_strides, E* grad_input) {
  using T = computed_t<E>;
  if constexpr (std::is_same_v<T, E>) {
    if (conv2d_suits_images(shape, sizeof(T))) {
      ImagesGradients<T> problem{};
      problem.shape = shape;
      problem.input_layout = problem.grad_output_layout = layout;
      problem.grad_output = grad_output;
      problem.weight = weight;
      problem.weight_strides = weight_strides;
      problem.grad_input = grad_input;
      conv2d_images_grads(problem);
      return;
    }
  }
  auto problem = input_grad_problem<Correlation<T, E>>(shape, layout, weight_strides);
  problem.source = grad_output;
  problem.weight = weight;
  problem.result = grad_input;
  run(problem, shape, Conv2dPass::input_grad);
}

template <typename E>
void conv2d_weight_grad(const Conv2dShape& shape, Layout layout, const E* grad_output, const E* input, E* grad_weight,
                        WeightStrides grad_weight_strides) {
  if (shape.K * shape.group_c() * shape.R * shape.S == 0) return;
  if (shape.N * shape.P * shape.Q == 0) {
    write_zeros(shape, grad_weight, grad_weight_strides);
    return;
  }
  using T = computed_t<E>;
  if constexpr (std::is_same_v<T, E>) {
    if (conv2d_suits_images(shape, sizeof(T))) {
      ImagesGradients<T> problem{};
      problem.shape = shape;
      problem.input_layout = problem.grad_output_layout = layout;
      problem.grad_output = grad_output;
      problem.input = input;
      problem.grad_weight = grad_weight;
      problem.grad_weight_strides = grad_weight_strides;
      conv2d_images_grads(problem);
      return;
    }
  }
  WeightGradient<T, E> problem{};
  problem.images = shape.N;
  problem.groups = shape.groups;
  problem.depth = shape.group_c();
  problem.width = shape.group_k();
  problem.rows = {shape.H, shape.P, shape.R, shape.stride_h, shape.pad_top, shape.dilation_h};
  problem.columns = {shape.W, shape.Q, shape.S, shape.stride_w, shape.pad_left, shape.dilation_w};
  problem.input_layout = problem.output_layout = layout;
  problem.input_channels = shape.input_pixel_stride();
  problem.output_channels = shape.output_pixel_stride();
  problem.input = input;
  problem.grad_output = grad_output;
  problem.grad_weight = grad_weight;
  problem.weight_group = shape.group_k() * grad_weight_strides.k;
  problem.weight_depth = grad_weight_strides.c;
  problem.weight_width = grad_weight_strides.k;
  problem.weight_row = grad_weight_strides.r;
  problem.weight_column = grad_weight_strides.s;
  const bool multiplies_bfloat16 = std::is_same_v<E, BFloat16> && multiplies_tiles(shape);
  if (!multiplies_bfloat16 && conv2d_suits_groups(shape, sizeof(T))) {
    conv2d_groups_weight_grad(problem);
    return;
  }
  problem.input_layout = effective(layout, shape.C, shape.H * shape.W);
  problem.output_layout = effective(layout, shape.K, shape.P * shape.Q);
  if constexpr (std::is_same_v<E, float>) {
    const int tile = winograd_tile(shape, Conv2dPass::weight_grad);
    if (tile > 0) {
      if (winograd_suits_parts(shape, tile)) {
        D2L_CALL_TILED(winograd_weight_gradient, problem, tile);
      } else {
        D2L_CALL_BEST(winograd_weight_gradient, problem, tile);
      }
      return;
    }
  }
#if defined(__x86_64__)
  if constexpr (std::is_same_v<E, BFloat16>) {
    if (multiplies_tiles(shape)) {
      amx::weight_gradient_in_tiles(problem);
      return;
    }
    if (multiplies_pairs(shape)) {
      D2L_CALL_BFLOAT16(weight_gradient, problem);
      return;
    }
  }
#endif
  flatten_pointwise(problem, problem.input_layout, problem.output_layout);
  if constexpr (std::is_same_v<T, E>) {
    const Gemm<T> product = pixels_product(problem);
    if (is_worth_splitting(product) && gemm_suits_parts(product)) {
      gemm(product);
      return;
    }
  }
  D2L_CALL_BEST(weight_gradient, problem);
}

#define D2L_INSTANTIATE(T)                                                                                         \
  template void conv2d<T>(const Conv2dShape&, Layout, const T*, const T*, WeightStrides, const T*, T*, Activation, \
                          const Progress&);                                                                        \
  template void conv2d_moments<T>(const Conv2dShape&, Layout, const T*, const T*, WeightStrides, const T*, T*,     \
                                  double*, double*);                                                               \
  template void conv2d_input_grad<T>(const Conv2dShape&, Layout, const T*, const T*, WeightStrides, T*);           \
  template void conv2d_weight_grad<T>(const Conv2dShape&, Layout, const T*, const T*, T*, WeightStrides);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
#undef D2L_INSTANTIATE
template void conv2d(const Conv2dShape&, Layout, const BFloat16*, const float*, WeightStrides, const float*, BFloat16*,
                     Activation, const Progress&);
template void conv2d_input_grad(const Conv2dShape&, Layout, const BFloat16*, const float*, WeightStrides, BFloat16*);
template void conv2d_weight_grad(const Conv2dShape&, Layout, const BFloat16*, const BFloat16*, BFloat16*,
                                 WeightStrides);

}  // namespace d2l::cpu
