// Convolutions with an activation that end side by side in the channels of one map, as the paths of an Inception block
// do: each stores into its range of the NHWC map, and nothing is concatenated.
//
// The backward masks the gradient of the whole map and sums it for all biases in one pass; the derivatives of each
// convolution then read their range of it in place. It consists of differentiable ops, so that double backward costs no
// further kernel. Saved: the factors of the convolutions, and the map if there is an activation.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <vector>

#include "common/autocast.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "common/memory_format.h"
#include "kernels/cuda/conv2d.h"
#include "ops/activation.h"
#include "ops/conv2d.h"
#include "ops/conv2d_cpu.h"

namespace d2l {
namespace {

using at::IntArrayRef;
using at::Tensor;
using at::TensorList;
using c10::SymInt;
using OptionalTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;

constexpr const char* kName = "concat_convolutions";
constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

// ---- checks ----------------------------------------------------------------------------------------------------

// The numbers of all convolutions, one after the other.
struct Geometry {
  IntArrayRef stride, padding, dilation, groups;

  Conv2dOptions of(size_t i) const {
    return {stride.slice(2 * i, 2), padding.slice(4 * i, 4), dilation.slice(2 * i, 2), groups[i]};
  }
};

OptionalTensor bias_of(TensorList biases, size_t i) {
  return biases.empty() ? std::nullopt : OptionalTensor(biases[i]);
}

void check_count(const char* argument, size_t count, size_t expected) {
  TORCH_CHECK_VALUE(count == expected, kName, "(): expected ", argument, " to hold ", expected,
                    " values for as many convolutions as inputs, but got ", count);
}

// The size of the result. The arguments of each convolution are checked as those of conv2d.
std::array<SymInt, 4> check(TensorList inputs, TensorList weights, TensorList biases, const Geometry& geometry) {
  const size_t count = inputs.size();
  TORCH_CHECK_VALUE(count > 0, kName, "(): expected inputs to hold at least one tensor, but got none");
  check_count("weights", weights.size(), count);
  if (!biases.empty()) check_count("biases", biases.size(), count);
  check_count("stride", geometry.stride.size(), 2 * count);
  check_count("padding", geometry.padding.size(), 4 * count);
  check_count("dilation", geometry.dilation.size(), 2 * count);
  check_count("groups", geometry.groups.size(), count);
  std::array<SymInt, 4> result;
  for (size_t i = 0; i < count; ++i) {
    const auto size = conv2d_output_size(inputs[i], weights[i], bias_of(biases, i), geometry.of(i));
    if (i == 0) {
      result = size;
      continue;
    }
    TORCH_CHECK_TYPE(inputs[i].scalar_type() == inputs[0].scalar_type(), kName, "(): expected inputs[", i,
                     "] to have the dtype of inputs[0] (", inputs[0].scalar_type(), "), but got ",
                     inputs[i].scalar_type());
    TORCH_CHECK(inputs[i].device() == inputs[0].device(), kName, "(): expected inputs[", i,
                "] to be on the device of inputs[0] (", inputs[0].device(), "), but got ", inputs[i].device());
    TORCH_CHECK_VALUE(size[0] == result[0] && size[2] == result[2] && size[3] == result[3], kName,
                      "(): expected convolution ", i, " to give maps of the size of the first, ",
                      c10::SymIntArrayRef(result), ", but for the channels, but got ", c10::SymIntArrayRef(size));
    result[1] = result[1] + size[1];
  }
  return result;
}

// channels_last if all convolutions give that.
at::MemoryFormat format_of(TensorList inputs, TensorList weights) {
  auto format = kChannelsLast;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (output_format(inputs[i], weights[i]) != kChannelsLast) format = at::MemoryFormat::Contiguous;
  }
  return format;
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

// Stores activation(conv2d(...)) into a range of the channels of an NHWC map.
void store(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, const Conv2dOptions& options,
           Activation activation, const Tensor& output) {
  Conv2dShape shape = conv2d_shape(input, weight, bias, options);
  D2L_ON_CUDA(kName, input) {
    const NhwcMap x = as_nhwc(input), y = as_nhwc(output);
    shape.input_pixel = x.pixel;
    shape.output_pixel = y.pixel;
    const Tensor dense_bias = bias.has_value() ? bias->contiguous() : Tensor();
    const DeviceScope device(input);
    const Tensor w = weight.contiguous(kChannelsLast);
    check_launch(kName, input,
                 cuda::conv2d(shape, cuda_dtype(input), convolution_precision(), x.tensor.const_data_ptr(),
                              w.const_data_ptr(), dense_bias.defined() ? dense_bias.const_data_ptr() : nullptr,
                              y.tensor.mutable_data_ptr(), device.stream(), activation));
    return;
  }
  conv2d_on_cpu(shape, kChannelsLast, input, weight, bias, activation, output);
}

Tensor concat_convolutions(TensorList inputs, TensorList weights, TensorList biases, IntArrayRef stride,
                           IntArrayRef padding, IntArrayRef dilation, IntArrayRef groups, std::string_view name) {
  const Activation activation = activation_of(kName, name);
  const Geometry geometry{stride, padding, dilation, groups};
  const auto size = check(inputs, weights, biases, geometry);
  const auto format = format_of(inputs, weights);
  const Tensor output = at::empty_symint(size, inputs[0].options().memory_format(kChannelsLast));
  int64_t begin = 0;
  for (size_t i = 0; i < inputs.size() && output.numel() > 0; ++i) {
    const int64_t channels = weights[i].size(0);
    store(inputs[i], weights[i], bias_of(biases, i), geometry.of(i), activation, output.narrow(1, begin, channels));
    begin += channels;
  }
  return output.contiguous(format);
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor concat_convolutions_meta(TensorList inputs, TensorList weights, TensorList biases, IntArrayRef stride,
                                IntArrayRef padding, IntArrayRef dilation, IntArrayRef groups, std::string_view name) {
  activation_of(kName, name);
  const auto size = check(inputs, weights, biases, {stride, padding, dilation, groups});
  return at::empty_symint(size, inputs[0].options().memory_format(format_of(inputs, weights)));
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_concat_convolutions(TensorList inputs, TensorList weights, TensorList biases, IntArrayRef stride,
                                IntArrayRef padding, IntArrayRef dilation, IntArrayRef groups, std::string_view name) {
  static const auto op = find_op<decltype(concat_convolutions)>("d2lkernels::concat_convolutions");
  return op.call(inputs, weights, biases, stride, padding, dilation, groups, name);
}

struct ConcatConvolutions : Function<ConcatConvolutions> {
  static Tensor forward(AutogradContext* ctx, TensorList inputs, TensorList weights, TensorList biases,
                        IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, IntArrayRef groups,
                        std::string_view name) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    Tensor output = call_concat_convolutions(inputs, weights, biases, stride, padding, dilation, groups, name);
    variable_list saved{activation_of(kName, name) == Activation::none ? Tensor() : output};
    std::vector<SymInt> sizes;
    for (size_t i = 0; i < inputs.size(); ++i) {
      saved.push_back(weights[i].requires_grad() ? inputs[i] : Tensor());
      saved.push_back(inputs[i].requires_grad() ? weights[i] : Tensor());
      for (const Tensor* tensor : {&inputs[i], &weights[i]}) {
        sizes.insert(sizes.end(), tensor->sym_sizes().begin(), tensor->sym_sizes().end());
      }
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["sizes"] = std::move(sizes);
    ctx->saved_data["stride"] = stride.vec();
    ctx->saved_data["padding"] = padding.vec();
    ctx->saved_data["dilation"] = dilation.vec();
    ctx->saved_data["groups"] = groups.vec();
    ctx->saved_data["biases"] = static_cast<int64_t>(biases.size());
    ctx->saved_data["activation"] = std::string(name);
    ctx->set_materialize_grads(false);
    return output;
  }

  static variable_list backward(AutogradContext* ctx, variable_list& grads) {
    const auto groups = ctx->saved_data["groups"].toIntVector();
    const auto count = groups.size(), biases = static_cast<size_t>(ctx->saved_data["biases"].toInt());
    variable_list result(2 * count + biases + 5);
    if (!grads[0].defined()) return result;
    const auto saved = ctx->get_saved_variables();
    const auto stride = ctx->saved_data["stride"].toIntVector(), padding = ctx->saved_data["padding"].toIntVector();
    const auto dilation = ctx->saved_data["dilation"].toIntVector();
    const auto sizes = ctx->saved_data["sizes"].toSymIntVector();
    const Geometry geometry{stride, padding, dilation, groups};
    bool needs_bias_grad = false;
    for (size_t i = 0; i < biases; ++i) needs_bias_grad = needs_bias_grad || ctx->needs_input_grad(2 * count + i);
    const auto [grad, grad_bias] =
        activation_grads(ctx->saved_data["activation"].toStringRef(), needs_bias_grad, grads[0], saved[0]);
    grads.clear();  // its memory is free for the gradients of the inputs
    SymInt begin = 0;
    for (size_t i = 0; i < count; ++i) {
      const Conv2dOptions options = geometry.of(i);
      const c10::SymIntArrayRef input_size(&sizes[8 * i], 4), weight_size(&sizes[8 * i + 4], 4);
      const SymInt channels = weight_size[0];
      const Tensor piece = grad.narrow_symint(1, begin, channels);
      if (ctx->needs_input_grad(i)) {
        result[i] = call_conv2d_input_grad(piece, saved[2 * i + 2], input_size, options.stride, options.padding,
                                           options.dilation, options.groups);
      }
      if (ctx->needs_input_grad(count + i)) {
        result[count + i] = call_conv2d_weight_grad(piece, saved[2 * i + 1], weight_size, options.stride,
                                                    options.padding, options.dilation, options.groups);
      }
      if (biases > 0 && ctx->needs_input_grad(2 * count + i)) {
        result[2 * count + i] = grad_bias.narrow_symint(0, begin, channels);
      }
      begin = begin + channels;
    }
    return result;
  }
};

Tensor concat_convolutions_autograd(TensorList inputs, TensorList weights, TensorList biases, IntArrayRef stride,
                                    IntArrayRef padding, IntArrayRef dilation, IntArrayRef groups,
                                    std::string_view name) {
  bool records = false;
  for (const TensorList list : {inputs, weights, biases}) {
    for (const Tensor& tensor : list) records = needs_autograd(kName, tensor) || records;
  }
  if (records) {
    return ConcatConvolutions::apply(inputs, weights, biases, stride, padding, dilation, groups, name);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_concat_convolutions(inputs, weights, biases, stride, padding, dilation, groups, name);
}

// ---- autocast: like conv2d, in the lower precision ---------------------------------------------------------------

template <c10::DeviceType device, c10::DispatchKey key>
Tensor concat_convolutions_autocast(TensorList inputs, TensorList weights, TensorList biases, IntArrayRef stride,
                                    IntArrayRef padding, IntArrayRef dilation, IntArrayRef groups,
                                    std::string_view name) {
  const c10::impl::ExcludeDispatchKeyGuard guard(key);
  const auto lower = [](TensorList tensors) {
    Tensors result;
    for (const Tensor& tensor : tensors) result.push_back(autocast_to_lower_precision(tensor, device));
    return result;
  };
  return call_concat_convolutions(lower(inputs), lower(weights), lower(biases), stride, padding, dilation, groups,
                                  name);
}

}  // namespace
}  // namespace d2l

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { m.impl("concat_convolutions", d2l::concat_convolutions); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { m.impl("concat_convolutions", d2l::concat_convolutions); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { m.impl("concat_convolutions", d2l::concat_convolutions_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { m.impl("concat_convolutions", d2l::concat_convolutions_autograd); }
TORCH_LIBRARY_IMPL(d2lkernels, AutocastCPU, m) {
  m.impl("concat_convolutions", d2l::concat_convolutions_autocast<c10::DeviceType::CPU, c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(d2lkernels, AutocastCUDA, m) {
  m.impl("concat_convolutions",
         d2l::concat_convolutions_autocast<c10::DeviceType::CUDA, c10::DispatchKey::AutocastCUDA>);
}
