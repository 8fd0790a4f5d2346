// conv2d with an activation, and with an activation and a pool: one call each, forward and backward.
//
// The activation is applied in the epilogue of the convolution. On the CPU, a pool reads the map while it is in the
// cache: blocks of images go through both kernels, and the whole map is never written unless the backward needs it.
// Saved for the backward, besides the factors of the convolution:
//   activation alone     the output: the derivatives of ReLU, sigmoid and tanh follow from their values
//   with a max pool      the output and the offsets: all the activations grow with their argument, so that a maximum's
//                        derivative follows from the pooled value
//   with an avg pool     the activated map; conv2d_avg_pool2d_grad is its backward in one op
// The backward consists of differentiable ops, so that double backward costs no further kernel.
// Gradients of maps are given up as soon as the next one is there: they make the peak memory of a training step.
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

#include "common/allocate.h"
#include "common/autocast.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "common/memory_format.h"
#include "common/reuse.h"
#include "kernels/cpu/conv2d.h"
#include "kernels/cpu/conv2d_images.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/pool2d.h"
#include "kernels/cpu/workspace.h"
#include "ops/activation.h"
#include "ops/conv2d.h"
#include "ops/conv2d_cpu.h"
#include "ops/conv2d_fused.h"
#include "ops/pool2d.h"

namespace d2l {
namespace {

using at::IntArrayRef;
using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using OptionalTensor = std::optional<Tensor>;

// ---- pools, called like ops of their own -------------------------------------------------------------------------

std::tuple<Tensor, Tensor> call_max_pool(const Tensor& map, const PoolOptions& pool, bool keep) {
  using WithOffsets =
      std::tuple<Tensor, Tensor>(const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, IntArrayRef, bool);
  using Alone = Tensor(const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, IntArrayRef, bool);
  static const auto with_offsets = find_op<WithOffsets>("d2lkernels::max_pool2d_with_offsets");
  static const auto alone = find_op<Alone>("d2lkernels::max_pool2d");
  const std::array<int64_t, 2> dilation{1, 1};
  if (keep) return with_offsets.call(map, pool.size, pool.stride, pool.padding, dilation, pool.ceil_mode);
  return {alone.call(map, pool.size, pool.stride, pool.padding, dilation, pool.ceil_mode),
          at::empty({0}, map.options().dtype(at::kByte).memory_format(std::nullopt))};
}

Tensor call_avg_pool(const Tensor& map, const PoolOptions& pool) {
  using Op = Tensor(const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, bool, bool, std::optional<int64_t>);
  static const auto op = find_op<Op>("d2lkernels::avg_pool2d");
  return op.call(map, pool.size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad, std::nullopt);
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

// Maps that go from one kernel to the next: in the L2 cache, or at least in the same lines of the last one.
constexpr int64_t kBlockBytes = 512 << 10, kLargestBlockBytes = 2 << 20;

// Images of a block: as many as stay in the cache, or more where the weights, which every block prepares again, are as
// much work as some images. 0: all of them, in one.
int64_t images_of_block(const Conv2dShape& shape, int64_t element_bytes) {
  const int64_t map = shape.K * shape.P * shape.Q, weights = shape.K * shape.group_c() * shape.R * shape.S;
  const int64_t threads = cpu::max_threads(), share = (shape.N + threads - 1) / threads;
  const int64_t fitting = std::clamp<int64_t>(kBlockBytes / (map * element_bytes), 1, share);
  const int64_t images = std::max(fitting, (4 * weights + map - 1) / map);
  const bool too_large = images > share || (images > 1 && images * map * element_bytes > kLargestBlockBytes);
  return shape.N < threads || too_large || cpu::conv2d_suits_images(shape, element_bytes) ? 0 : images;
}

// Calls function(first image, images) for blocks of images, the same number for every thread where that is possible.
template <typename Function>
void for_image_blocks(const Conv2dShape& shape, int64_t element_bytes, Function&& function) {
  const int64_t images = images_of_block(shape, element_bytes);
  if (images == 0) {
    function(int64_t{0}, shape.N);
    return;
  }
  const int64_t threads = cpu::max_threads(), least = (shape.N + images - 1) / images;
  const int64_t blocks = std::min(shape.N, (least + threads - 1) / threads * threads);
  cpu::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * shape.N / blocks;
      function(first, (block + 1) * shape.N / blocks - first);
    }
  });
}

bool runs_in_blocks(const Tensor& input, const Conv2dShape& shape) {
  return !runs_cuda_kernels(input) && !is_16_bit(input) && shape.N > 0;
}

// The convolution of some images, and its map: scratch memory, or part of `kept` if that is defined.
template <typename T>
class BlockConvolution {
 public:
  BlockConvolution(const Conv2dShape& shape, at::MemoryFormat format, const Tensor& input, const Tensor& weight,
                   const OptionalTensor& bias, Activation activation, const Tensor& kept)
      : shape_(shape),
        layout_(layout_of(format)),
        input_(input.contiguous(format)),
        weight_(weight),
        bias_(bias.has_value() ? bias->contiguous() : Tensor()),
        activation_(activation),
        kept_(kept.defined() ? kept.mutable_data_ptr<T>() : nullptr) {}

  const T* run(int64_t first, int64_t images) const {
    const int64_t map = shape_.K * shape_.P * shape_.Q;
    T* const to = kept_ != nullptr
                      ? kept_ + first * map
                      : static_cast<T*>(cpu::workspace(cpu::Workspace::map, images * map * int64_t{sizeof(T)}));
    Conv2dShape block = shape_;
    block.N = images;
    cpu::conv2d<T>(block, layout_, input_.const_data_ptr<T>() + first * shape_.C * shape_.H * shape_.W,
                   weight_.const_data_ptr<T>(), weight_strides(weight_),
                   bias_.defined() ? bias_.const_data_ptr<T>() : nullptr, to, activation_);
    return to;
  }

 private:
  const Conv2dShape& shape_;
  Layout layout_;
  Tensor input_, weight_, bias_;
  Activation activation_;
  T* kept_;
};

Tensor conv2d_activation(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                         IntArrayRef padding, IntArrayRef dilation, int64_t groups, std::string_view activation) {
  return conv2d_activated(input, weight, bias, {stride, padding, dilation, groups},
                          activation_of("conv2d_activation", activation));
}

std::tuple<Tensor, Tensor> conv2d_max_pool2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                             IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                                             int64_t groups, std::string_view activation_name, IntArrayRef pool_size,
                                             IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode,
                                             bool keep) {
  const char* op = "conv2d_max_pool2d";
  const Activation activation = activation_of(op, activation_name);
  const Conv2dOptions options{stride, padding, dilation, groups};
  const PoolOptions pool{pool_size, pool_stride, pool_padding, ceil_mode};
  const Conv2dShape shape = conv2d_shape(input, weight, bias, options);
  const PoolWindow window = pool.window(op);
  const std::array<int64_t, 4> map_size{shape.N, shape.K, shape.P, shape.Q};
  const auto output_size = pool_output_size<int64_t>(op, map_size, window, ceil_mode);
  const auto offset_dtype = pool_offset_dtype<int64_t>(window, shape.P, shape.Q, output_size[0], output_size[1]);
  if (!runs_in_blocks(input, shape) || offset_dtype != at::kByte) {
    return call_max_pool(conv2d_activated(input, weight, bias, options, activation), pool, keep);
  }
  const auto format = output_format(input, weight);
  const std::array<int64_t, 4> size{shape.N, shape.K, output_size[0], output_size[1]};
  Tensor output = new_tensor(size, input.options().memory_format(format));
  const auto offset_options = input.options().dtype(at::kByte);
  Tensor offsets = keep ? new_tensor(size, offset_options.memory_format(format)) : new_tensor({0}, offset_options);
  const Pool2dShape pooled = pool_shape(window, map_size, output_size);
  visit_cpu_dtype(input, [&](auto scalar) {
    using T = decltype(scalar);
    const BlockConvolution<T> convolution(shape, format, input, weight, bias, activation, Tensor());
    T* const to = output.mutable_data_ptr<T>();
    uint8_t* const places = keep ? offsets.mutable_data_ptr<uint8_t>() : nullptr;
    for_image_blocks(shape, sizeof(T), [&](int64_t first, int64_t images) {
      const T* map = convolution.run(first, images);
      Pool2dShape block = pooled;
      block.N = images;
      const int64_t start = first * pooled.C * pooled.P * pooled.Q;
      cpu::max_pool2d<T, uint8_t>(block, layout_of(format), map, to + start, keep ? places + start : nullptr);
      cpu::trim_workspace(cpu::Workspace::map);
    });
  });
  return {output, offsets};
}

std::tuple<Tensor, Tensor> conv2d_avg_pool2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                             IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                                             int64_t groups, std::string_view activation_name, IntArrayRef pool_size,
                                             IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode,
                                             bool count_include_pad, bool keep) {
  const char* op = "conv2d_avg_pool2d";
  const Activation activation = activation_of(op, activation_name);
  const Conv2dOptions options{stride, padding, dilation, groups};
  const PoolOptions pool{pool_size, pool_stride, pool_padding, ceil_mode, count_include_pad};
  const Conv2dShape shape = conv2d_shape(input, weight, bias, options);
  const PoolWindow window = pool.window(op);
  const std::array<int64_t, 4> map_size{shape.N, shape.K, shape.P, shape.Q};
  const auto output_size = pool_output_size<int64_t>(op, map_size, window, ceil_mode);
  keep = keep && activation != Activation::none;
  if (!runs_in_blocks(input, shape)) {
    const Tensor map = conv2d_activated(input, weight, bias, options, activation);
    return {call_avg_pool(map, pool), keep ? map : nothing_like(input)};
  }
  const auto format = output_format(input, weight);
  Tensor output = new_tensor({shape.N, shape.K, output_size[0], output_size[1]}, input.options().memory_format(format));
  Tensor activated = keep ? new_tensor(map_size, input.options().memory_format(format)) : nothing_like(input);
  Pool2dShape pooled = pool_shape(window, map_size, output_size);
  pooled.count_include_pad = count_include_pad;
  visit_cpu_dtype(input, [&](auto scalar) {
    using T = decltype(scalar);
    if (is_images_pool(pooled) && cpu::conv2d_suits_images(shape, sizeof(T))) {
      const Tensor x = input.contiguous(format), b = bias.has_value() ? bias->contiguous() : Tensor();
      cpu::conv2d_images<T>({shape, layout_of(format), layout_of(format), x.const_data_ptr<T>(),
                             weight.const_data_ptr<T>(), weight_strides(weight),
                             b.defined() ? b.const_data_ptr<T>() : nullptr, activation,
                             keep ? activated.mutable_data_ptr<T>() : nullptr, output.mutable_data_ptr<T>()});
      return;
    }
    const BlockConvolution<T> convolution(shape, format, input, weight, bias, activation, keep ? activated : Tensor());
    T* const to = output.mutable_data_ptr<T>();
    for_image_blocks(shape, sizeof(T), [&](int64_t first, int64_t images) {
      const T* map = convolution.run(first, images);
      Pool2dShape block = pooled;
      block.N = images;
      cpu::avg_pool2d<T>(block, layout_of(format), map, to + first * pooled.C * pooled.P * pooled.Q);
      cpu::trim_workspace(cpu::Workspace::map);
    });
  });
  return {output, activated};
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor conv2d_activation_meta(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                              IntArrayRef padding, IntArrayRef dilation, int64_t groups, std::string_view activation) {
  activation_of("conv2d_activation", activation);
  return at::empty_symint(conv2d_output_size(input, weight, bias, {stride, padding, dilation, groups}),
                          input.options().memory_format(output_format(input, weight)));
}

std::array<SymInt, 4> pooled_size(const char* op, const std::array<SymInt, 4>& map_size, const PoolOptions& pool) {
  const auto [P, Q] = pool_output_size<SymInt>(op, map_size, pool.window(op), pool.ceil_mode);
  return {map_size[0], map_size[1], P, Q};
}

std::tuple<Tensor, Tensor> conv2d_max_pool2d_meta(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                                  IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                                                  int64_t groups, std::string_view activation, IntArrayRef pool_size,
                                                  IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode,
                                                  bool keep) {
  const char* op = "conv2d_max_pool2d";
  activation_of(op, activation);
  const PoolOptions pool{pool_size, pool_stride, pool_padding, ceil_mode};
  const auto map_size = conv2d_output_size(input, weight, bias, {stride, padding, dilation, groups});
  const auto size = pooled_size(op, map_size, pool);
  const auto options = input.options().memory_format(output_format(input, weight));
  if (!keep) return {at::empty_symint(size, options), at::empty({0}, input.options().dtype(at::kByte))};
  const auto offset_dtype = pool_offset_dtype<SymInt>(pool.window(op), map_size[2], map_size[3], size[2], size[3]);
  return {at::empty_symint(size, options), at::empty_symint(size, options.dtype(offset_dtype))};
}

std::tuple<Tensor, Tensor> conv2d_avg_pool2d_meta(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                                  IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                                                  int64_t groups, std::string_view activation, IntArrayRef pool_size,
                                                  IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode,
                                                  bool count_include_pad, bool keep) {
  const char* op = "conv2d_avg_pool2d";
  const PoolOptions pool{pool_size, pool_stride, pool_padding, ceil_mode, count_include_pad};
  const bool keeps_map = activation_of(op, activation) != Activation::none && keep;
  const auto map_size = conv2d_output_size(input, weight, bias, {stride, padding, dilation, groups});
  const auto options = input.options().memory_format(output_format(input, weight));
  return {at::empty_symint(pooled_size(op, map_size, pool), options),
          keeps_map ? at::empty_symint(map_size, options) : nothing_like(input)};
}

// ---- calls through the dispatcher ------------------------------------------------------------------------------

Tensor call_activation(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                       IntArrayRef padding, IntArrayRef dilation, int64_t groups, std::string_view activation) {
  static const auto op = find_op<decltype(conv2d_activation)>("d2lkernels::conv2d_activation");
  return op.call(input, weight, bias, stride, padding, dilation, groups, activation);
}

template <typename... Arguments>
std::tuple<Tensor, Tensor> call_conv2d_max_pool2d(const Arguments&... arguments) {
  static const auto op = find_op<decltype(conv2d_max_pool2d)>("d2lkernels::conv2d_max_pool2d");
  return op.call(arguments...);
}

template <typename... Arguments>
std::tuple<Tensor, Tensor> call_conv2d_avg_pool2d(const Arguments&... arguments) {
  static const auto op = find_op<decltype(conv2d_avg_pool2d)>("d2lkernels::conv2d_avg_pool2d");
  return op.call(arguments...);
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool needs_bias_grad(AutogradContext* ctx) {
  // needs_input_grad counts the tensors that were passed: an absent bias is not among them.
  return ctx->saved_data["has_bias"].toBool() && ctx->needs_input_grad(2);
}

std::tuple<Tensor, Tensor> activation_grads(AutogradContext* ctx, const Tensor& grad, const Tensor& output) {
  return d2l::activation_grads(ctx->saved_data["activation"].toStringRef(), needs_bias_grad(ctx), grad, output);
}

void save_convolution(AutogradContext* ctx, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                      const Conv2dOptions& options, std::string_view activation, const Tensor& a, const Tensor& b) {
  ctx->save_for_backward({weight.requires_grad() ? input : Tensor(), input.requires_grad() ? weight : Tensor(), a, b});
  save_geometry(ctx, options, input.sym_sizes(), weight.sym_sizes());
  ctx->saved_data["has_bias"] = bias.has_value();
  ctx->saved_data["activation"] = std::string(activation);
  ctx->set_materialize_grads(false);
}

void save_pool(AutogradContext* ctx, SymIntArrayRef map_size) { ctx->saved_data["map_size"] = map_size.vec(); }

// The gradients of the convolution, from that of its result.
variable_list convolution_grads(AutogradContext* ctx, const variable_list& saved, const Tensor& grad,
                                const Tensor& grad_bias, size_t arguments) {
  variable_list result(arguments);
  const SavedGeometry geometry(ctx);
  if (ctx->needs_input_grad(1)) result[1] = geometry.weight_grad(grad, saved[0]);
  if (ctx->needs_input_grad(0)) {
    const OfferedInput offer(saved[0]);
    result[0] = geometry.input_grad(grad, saved[1]);
  }
  if (needs_bias_grad(ctx)) result[2] = grad_bias;
  return result;
}

struct Conv2dActivation : Function<Conv2dActivation> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups,
                        std::string_view activation) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    Tensor output = call_activation(input, weight, bias, stride, padding, dilation, groups, activation);
    const Activation kind = activation_of("conv2d_activation", activation);
    save_convolution(ctx, input, weight, bias, {stride, padding, dilation, groups}, activation,
                     kind == Activation::none ? Tensor() : output, Tensor());
    return output;
  }

  static variable_list backward(AutogradContext* ctx, variable_list& grads) {
    if (!grads[0].defined()) return variable_list(8);
    const auto saved = ctx->get_saved_variables();
    const auto [grad, grad_bias] = activation_grads(ctx, grads[0], saved[2]);
    grads.clear();
    return convolution_grads(ctx, saved, grad, grad_bias, 8);
  }
};

struct Conv2dMaxPool2d : Function<Conv2dMaxPool2d> {
  static variable_list forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight,
                               const OptionalTensor& bias, IntArrayRef stride, IntArrayRef padding,
                               IntArrayRef dilation, int64_t groups, std::string_view activation, IntArrayRef pool_size,
                               IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const Conv2dOptions options{stride, padding, dilation, groups};
    auto [output, offsets] = call_conv2d_max_pool2d(input, weight, bias, stride, padding, dilation, groups, activation,
                                                    pool_size, pool_stride, pool_padding, ceil_mode, true);
    const Activation kind = activation_of("conv2d_max_pool2d", activation);
    save_convolution(ctx, input, weight, bias, options, activation, kind == Activation::none ? Tensor() : output,
                     offsets);
    save_pool(ctx, conv2d_output_size(input, weight, bias, options));
    ctx->saved_data["window"] =
        PoolWindow::regular("conv2d_max_pool2d", pool_size, pool_stride, pool_padding, {1, 1}).to_list();
    ctx->mark_non_differentiable({offsets});
    return {output, offsets};
  }

  static variable_list backward(AutogradContext* ctx, variable_list& grads) {
    if (!grads[0].defined()) return variable_list(12);
    const auto saved = ctx->get_saved_variables();
    using InputGrad = Tensor(const Tensor&, const Tensor&, SymIntArrayRef, IntArrayRef);
    static const auto input_grad = find_op<InputGrad>("d2lkernels::max_pool2d_input_grad");
    // Every maximum lies inside the map, so that the sum for the bias can be taken over the pooled values.
    auto [pooled, grad_bias] = activation_grads(ctx, grads[0], saved[2]);
    grads.clear();
    const Tensor grad = input_grad.call(pooled, saved[3], ctx->saved_data["map_size"].toSymIntVector(),
                                        ctx->saved_data["window"].toIntVector());
    pooled.reset();
    return convolution_grads(ctx, saved, grad, grad_bias, 12);
  }
};

struct Conv2dAvgPool2d : Function<Conv2dAvgPool2d> {
  static variable_list forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight,
                               const OptionalTensor& bias, IntArrayRef stride, IntArrayRef padding,
                               IntArrayRef dilation, int64_t groups, std::string_view activation, IntArrayRef pool_size,
                               IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode,
                               bool count_include_pad) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const Conv2dOptions options{stride, padding, dilation, groups};
    auto [output, activated] =
        call_conv2d_avg_pool2d(input, weight, bias, stride, padding, dilation, groups, activation, pool_size,
                               pool_stride, pool_padding, ceil_mode, count_include_pad, true);
    const Activation kind = activation_of("conv2d_avg_pool2d", activation);
    // conv2d_avg_pool2d_grad takes the weight for its size, too.
    save_convolution(ctx, input, weight, bias, options, activation, kind == Activation::none ? Tensor() : activated,
                     weight.requires_grad() ? weight : Tensor());
    save_pool(ctx, conv2d_output_size(input, weight, bias, options));
    std::vector<int64_t> numbers = {pool_size[0], pool_size[1]};
    if (pool_stride.empty()) pool_stride = pool_size;
    numbers.insert(numbers.end(),
                   {pool_stride[0], pool_stride[1], pool_padding[0], pool_padding[1], ceil_mode, count_include_pad});
    ctx->saved_data["pool"] = std::move(numbers);
    if (kind == Activation::none) ctx->mark_non_differentiable({activated});
    return {output, activated};
  }

  // The activated map is an output too (of the Function, not for users), so that the backward is differentiable in it.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(13);
    const auto saved = ctx->get_saved_variables();
    Tensor grad = grads[1];
    if (grads[0].defined()) {
      const std::vector<int64_t> numbers = ctx->saved_data["pool"].toIntVector();
      const PoolOptions pool{IntArrayRef(&numbers[0], 2), IntArrayRef(&numbers[2], 2), IntArrayRef(&numbers[4], 2),
                             numbers[6] != 0, numbers[7] != 0};
      if (!grad.defined() && ctx->needs_input_grad(1)) {
        const SavedGeometry geometry(ctx);
        const OptionalTensor activated = saved[2].defined() ? OptionalTensor(saved[2]) : std::nullopt;
        const bool needs_input_grad = ctx->needs_input_grad(0);
        const OfferedInput offer(saved[0]);
        auto [grad_input, grad_weight, grad_bias] = call_conv2d_avg_pool2d_grad(
            grads[0], activated, saved[0], saved[3],
            {geometry.stride(), geometry.padding(), geometry.dilation(), geometry.groups()},
            ctx->saved_data["activation"].toStringRef(), pool, needs_input_grad, needs_bias_grad(ctx));
        if (needs_input_grad) result[0] = grad_input;
        result[1] = grad_weight;
        if (needs_bias_grad(ctx)) result[2] = grad_bias;
        return result;
      }
      const Tensor spread = call_avg_pool_grad(grads[0], ctx->saved_data["map_size"].toSymIntVector(), pool);
      grad = grad.defined() ? at::add(grad, spread) : spread;
    }
    if (!grad.defined()) return result;
    const auto [linear_grad, grad_bias] = activation_grads(ctx, grad, saved[2]);
    return convolution_grads(ctx, saved, linear_grad, grad_bias, 13);
  }
};

Tensor conv2d_activation_autograd(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                  IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, int64_t groups,
                                  std::string_view activation) {
  if (needs_autograd("conv2d_activation", input, weight, tensor_or_undefined(bias))) {
    return Conv2dActivation::apply(input, weight, bias, stride, padding, dilation, groups, activation);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_activation(input, weight, bias, stride, padding, dilation, groups, activation);
}

std::tuple<Tensor, Tensor> conv2d_max_pool2d_autograd(const Tensor& input, const Tensor& weight,
                                                      const OptionalTensor& bias, IntArrayRef stride,
                                                      IntArrayRef padding, IntArrayRef dilation, int64_t groups,
                                                      std::string_view activation, IntArrayRef pool_size,
                                                      IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode,
                                                      bool keep) {
  if (needs_autograd("conv2d_max_pool2d", input, weight, tensor_or_undefined(bias))) {
    auto outputs = Conv2dMaxPool2d::apply(input, weight, bias, stride, padding, dilation, groups, activation, pool_size,
                                          pool_stride, pool_padding, ceil_mode);
    return {outputs[0], outputs[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_conv2d_max_pool2d(input, weight, bias, stride, padding, dilation, groups, activation, pool_size,
                                pool_stride, pool_padding, ceil_mode, keep);
}

std::tuple<Tensor, Tensor> conv2d_avg_pool2d_autograd(const Tensor& input, const Tensor& weight,
                                                      const OptionalTensor& bias, IntArrayRef stride,
                                                      IntArrayRef padding, IntArrayRef dilation, int64_t groups,
                                                      std::string_view activation, IntArrayRef pool_size,
                                                      IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode,
                                                      bool count_include_pad, bool keep) {
  if (needs_autograd("conv2d_avg_pool2d", input, weight, tensor_or_undefined(bias))) {
    auto outputs = Conv2dAvgPool2d::apply(input, weight, bias, stride, padding, dilation, groups, activation, pool_size,
                                          pool_stride, pool_padding, ceil_mode, count_include_pad);
    return {outputs[0], outputs[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_conv2d_avg_pool2d(input, weight, bias, stride, padding, dilation, groups, activation, pool_size,
                                pool_stride, pool_padding, ceil_mode, count_include_pad, keep);
}

// ---- autocast: like conv2d, in the lower precision ---------------------------------------------------------------

template <c10::DeviceType device, c10::DispatchKey key>
struct Autocast {
  static Tensor activation(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride,
                           IntArrayRef padding, IntArrayRef dilation, int64_t groups, std::string_view activation) {
    const c10::impl::ExcludeDispatchKeyGuard guard(key);
    return call_activation(lower(input), lower(weight), lower(bias), stride, padding, dilation, groups, activation);
  }

  static std::tuple<Tensor, Tensor> max_pool(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                             IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                                             int64_t groups, std::string_view activation, IntArrayRef pool_size,
                                             IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode,
                                             bool keep) {
    const c10::impl::ExcludeDispatchKeyGuard guard(key);
    return call_conv2d_max_pool2d(lower(input), lower(weight), lower(bias), stride, padding, dilation, groups,
                                  activation, pool_size, pool_stride, pool_padding, ceil_mode, keep);
  }

  static std::tuple<Tensor, Tensor> avg_pool(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                             IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                                             int64_t groups, std::string_view activation, IntArrayRef pool_size,
                                             IntArrayRef pool_stride, IntArrayRef pool_padding, bool ceil_mode,
                                             bool count_include_pad, bool keep) {
    const c10::impl::ExcludeDispatchKeyGuard guard(key);
    return call_conv2d_avg_pool2d(lower(input), lower(weight), lower(bias), stride, padding, dilation, groups,
                                  activation, pool_size, pool_stride, pool_padding, ceil_mode, count_include_pad, keep);
  }

 private:
  template <typename T>
  static T lower(const T& tensor) {
    return autocast_to_lower_precision(tensor, device);
  }
};

using AutocastCPU = Autocast<c10::DeviceType::CPU, c10::DispatchKey::AutocastCPU>;
using AutocastCUDA = Autocast<c10::DeviceType::CUDA, c10::DispatchKey::AutocastCUDA>;

}  // namespace
}  // namespace d2l

#define D2L_FUSED_KERNELS(suffix)                              \
  m.impl("conv2d_activation", d2l::conv2d_activation##suffix); \
  m.impl("conv2d_max_pool2d", d2l::conv2d_max_pool2d##suffix); \
  m.impl("conv2d_avg_pool2d", d2l::conv2d_avg_pool2d##suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_FUSED_KERNELS(); }

TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_FUSED_KERNELS(); }

TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_FUSED_KERNELS(_meta); }

TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_FUSED_KERNELS(_autograd); }

TORCH_LIBRARY_IMPL(d2lkernels, AutocastCPU, m) {
  m.impl("conv2d_activation", d2l::AutocastCPU::activation);
  m.impl("conv2d_max_pool2d", d2l::AutocastCPU::max_pool);
  m.impl("conv2d_avg_pool2d", d2l::AutocastCPU::avg_pool);
}

TORCH_LIBRARY_IMPL(d2lkernels, AutocastCUDA, m) {
  m.impl("conv2d_activation", d2l::AutocastCUDA::activation);
  m.impl("conv2d_max_pool2d", d2l::AutocastCUDA::max_pool);
  m.impl("conv2d_avg_pool2d", d2l::AutocastCUDA::avg_pool);
}
