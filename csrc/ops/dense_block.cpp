// A dense block (Huang et al., 2016) over one NHWC map: layer i normalises the first C_i channels, applies ReLU, and
// its 3 x 3 convolution writes the channels after them. Nothing is concatenated, and memory grows linearly with the
// depth.
//
// The statistics of a channel are computed once, when it is there, and serve every later layer: layers differ in weight
// and bias only. What a convolution reads is not kept: backward normalises the map again. Gradients are added up in one
// map of the size of the output. CUDA devices run the same steps (dense_block_cuda.cpp).
#include <ATen/LegacyBatchedTensorImpl.h>
#include <ATen/LegacyVmapTransforms.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>

#include <vector>

#include "common/allocate.h"
#include "common/autocast.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/dispatch.h"
#include "common/function.h"
#include "common/memory_format.h"
#include "kernels/cpu/batch_norm.h"
#include "ops/conv2d.h"
#include "ops/conv2d_cpu.h"
#include "ops/dense_block.h"

namespace d2l {
namespace {

using at::Tensor;
using at::TensorList;
using c10::SymInt;
using OptionalTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;
using dense::convolution;
using dense::kPerLayer;
using dense::layers_of;

constexpr const char* kName = "dense_block";
constexpr const char* kGradName = "dense_block_grad";
constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

// ---- checks ----------------------------------------------------------------------------------------------------

bool is_of_norm(int64_t parameter) { return parameter % kPerLayer < 2; }

// Parameters of a normalisation may be float32 beside 16-bit maps, as in batch_norm.
template <typename Int>
void check_parameter(const char* op, int64_t index, const Tensor& parameter, c10::ArrayRef<Int> size,
                     const Tensor& map) {
  TORCH_CHECK_VALUE(sizes_of<Int>(parameter) == size, op, "(): expected parameters[", index, "] to have size ", size,
                    ", but got ", sizes_of<Int>(parameter));
  const auto dtype = parameter.scalar_type();
  const bool is_wider = is_16_bit(map) && dtype == at::kFloat && is_of_norm(index);
  TORCH_CHECK_TYPE(dtype == map.scalar_type() || is_wider, op, "(): expected parameters[", index,
                   "] to have the dtype of input (", map.scalar_type(), "), but got ", dtype);
  TORCH_CHECK(parameter.device() == map.device(), op, "(): expected parameters[", index,
              "] to be on the device of input (", map.device(), "), but got ", parameter.device());
}

// The channels that each layer adds. `channels` are those of the input.
template <typename Int>
Int check_layers(const char* op, const Tensor& map, TensorList parameters, TensorList statistics,
                 const Int& given_channels) {
  check_rank4(op, "input", map);
  check_floating(op, "input", map);
  check_strided(op, "input", map);
  const auto count = static_cast<int64_t>(parameters.size());
  TORCH_CHECK_VALUE(count > 0 && count % kPerLayer == 0, op,
                    "(): expected parameters to hold four tensors for each layer, but got ", count);
  const auto layers = count / kPerLayer;
  TORCH_CHECK_VALUE(statistics.empty() || static_cast<int64_t>(statistics.size()) == 2 * layers, op,
                    "(): expected statistics to be empty (training) or to hold two tensors for each of ", layers,
                    " layers, but got ", statistics.size());
  TORCH_CHECK_VALUE(parameters[2].dim() == 4, op, "(): expected parameters[2] to be 4-D, but got a ",
                    parameters[2].dim(), "-D tensor of size ", parameters[2].sym_sizes());
  const Int growth = sizes_of<Int>(parameters[2])[0];
  Int channels = given_channels;
  for (int64_t i = 0; i < layers; ++i) {
    const int64_t first = i * kPerLayer;
    const std::array<Int, 1> one{channels}, added{growth};
    const std::array<Int, 4> weight{growth, channels, 3, 3};
    check_parameter<Int>(op, first, parameters[first], one, map);
    check_parameter<Int>(op, first + 1, parameters[first + 1], one, map);
    check_parameter<Int>(op, first + 2, parameters[first + 2], weight, map);
    check_parameter<Int>(op, first + 3, parameters[first + 3], added, map);
    if (!statistics.empty()) {
      for (int64_t j = 2 * i; j < 2 * i + 2; ++j) {
        TORCH_CHECK_VALUE(sizes_of<Int>(statistics[j]) == c10::ArrayRef<Int>(one), op, "(): expected statistics[", j,
                          "] to have size ", c10::ArrayRef<Int>(one), ", but got ", sizes_of<Int>(statistics[j]));
      }
    }
    channels = channels + growth;
  }
  return growth;
}

template <typename Int>
Int check_dense_block(const Tensor& input, TensorList parameters, TensorList statistics) {
  check_rank4(kName, "input", input);
  const Int growth = check_layers<Int>(kName, input, parameters, statistics, sizes_of<Int>(input)[1]);
  const auto size = sizes_of<Int>(input);
  TORCH_CHECK_VALUE(!statistics.empty() || size[0] * size[2] * size[3] != 1, kName,
                    "(): expected input to have more than one value per channel in training, but got a tensor of size ",
                    size);
  return growth;
}

SymInt input_channels(const Tensor& output, TensorList parameters) {
  return output.sym_size(1) - parameters[2].sym_size(0) * layers_of(parameters);
}

template <typename Int>
void check_grad(const Tensor& grad_output, const Tensor& output, TensorList parameters, TensorList statistics) {
  check_rank4(kGradName, "output", output);
  TORCH_CHECK_VALUE(sizes_of<Int>(grad_output) == sizes_of<Int>(output), kGradName,
                    "(): expected grad_output to have size ", sizes_of<Int>(output), ", but got ",
                    sizes_of<Int>(grad_output));
  check_same_dtype(kGradName, "grad_output", grad_output, "output", output);
  Int channels = sizes_of<Int>(output)[1];
  TORCH_CHECK_VALUE(parameters.size() >= static_cast<size_t>(kPerLayer) && parameters[2].dim() == 4, kGradName,
                    "(): expected parameters to hold four tensors for each layer, but got ", parameters.size());
  channels = channels - sizes_of<Int>(parameters[2])[0] * layers_of(parameters);
  check_layers<Int>(kGradName, output, parameters, statistics, channels);
}

// ---- the CPU: kernels that read and write ranges of the channels of the map -------------------------------------

at::ScalarType statistics_dtype(const Tensor& map) { return is_16_bit(map) ? at::kFloat : at::kDouble; }

// The first elements as an NHWC map of so many channels, otherwise of the size of `map`.
Tensor nhwc_map(const Tensor& elements, const Tensor& map, int64_t channels) {
  const int64_t N = map.size(0), H = map.size(2), W = map.size(3);
  return elements.as_strided({N, channels, H, W}, {H * W * channels, 1, W * channels, channels});
}

// One layer, its normalisation in T. Keeps what it points to.
template <typename T>
struct Layer {
  Tensor norm_weight, norm_bias, weight, bias, mean, var;
  int64_t channels;

  Layer(TensorList parameters, TensorList statistics, const Tensor& means, const Tensor& vars, int64_t i,
        int64_t first_channels, int64_t growth)
      : norm_weight(in_computed_type(parameters[i * kPerLayer])),
        norm_bias(in_computed_type(parameters[i * kPerLayer + 1])),
        weight(parameters[i * kPerLayer + 2]),
        bias(parameters[i * kPerLayer + 3]),
        mean(statistics.empty() ? means : statistics[2 * i].to(at::kDouble).contiguous()),
        var(statistics.empty() ? vars : statistics[2 * i + 1].to(at::kDouble).contiguous()),
        channels(first_channels + i * growth) {}

  cpu::Normalization<T> by(double eps) const {
    return {eps,
            mean.const_data_ptr<double>(),
            var.const_data_ptr<double>(),
            norm_weight.const_data_ptr<T>(),
            norm_bias.const_data_ptr<T>(),
            Activation::relu};
  }

 private:
  static Tensor in_computed_type(const Tensor& parameter) {
    return parameter.to(std::is_same_v<T, double> ? at::kDouble : at::kFloat).contiguous();
  }
};

template <typename E>
void run_on_cpu(const Tensor& map, TensorList parameters, TensorList statistics, double eps, int64_t growth,
                Tensor& mean, Tensor& var) {
  const int64_t layers = layers_of(parameters), all = map.size(1), first = all - layers * growth;
  const int64_t pixels = map.size(2) * map.size(3), values = map.size(0) * pixels;
  E* const data = mutable_elements<E>(map);
  const Tensor workspace = new_tensor({values * (all - growth)}, map.options());
  int64_t known = 0;  // channels that have statistics
  for (int64_t i = 0; i < layers; ++i) {
    const Layer<cpu::computed_t<E>> layer(parameters, statistics, mean, var, i, first, growth);
    const int64_t channels = layer.channels;
    if (statistics.empty()) {
      cpu::batch_norm_moments<E>({map.size(0), channels - known, pixels}, Layout::nhwc, {data + known, all},
                                 mean.mutable_data_ptr<double>() + known, var.mutable_data_ptr<double>() + known);
      known = channels;
    }
    cpu::batch_norm_apply<E>({map.size(0), channels, pixels}, Layout::nhwc, layer.by(eps), {data, all}, {},
                             {mutable_elements<E>(workspace), channels});
    conv2d_on_cpu(convolution(map, channels, growth), kChannelsLast, nhwc_map(workspace, map, channels), layer.weight,
                  layer.bias, Activation::none, map.narrow(1, channels, growth));
  }
}

void write_channels(const std::vector<double>& values, const Tensor& to) {
  visit_cpu_element(to, [&](auto element) {
    using E = decltype(element);
    E* data = mutable_elements<E>(to);
    for (size_t i = 0; i < values.size(); ++i) {
      data[i] = cpu::rounded_one<E>(static_cast<cpu::computed_t<E>>(values[i]));
    }
  });
}

// `grad` is the gradient of the whole map, and becomes that of the input in its first channels.
template <typename E>
void differentiate_on_cpu(const Tensor& grad, const Tensor& map, TensorList parameters, TensorList statistics,
                          const Tensor& mean, const Tensor& var, double eps, int64_t growth, Tensors& results) {
  const int64_t layers = layers_of(parameters), all = map.size(1), first = all - layers * growth;
  const int64_t pixels = map.size(2) * map.size(3), values = map.size(0) * pixels;
  const E* const data = elements<E>(map);
  E* const gradient = mutable_elements<E>(grad);
  const Tensor workspace = new_tensor({2, values * (all - growth)}, map.options());
  const Tensor normalized = workspace[0], grad_normalized = workspace[1];
  for (int64_t i = layers - 1; i >= 0; --i) {
    const Layer<cpu::computed_t<E>> layer(parameters, statistics, mean, var, i, first, growth);
    const int64_t channels = layer.channels;
    const BatchNormShape shape{map.size(0), channels, pixels};
    const Conv2dShape conv = convolution(map, channels, growth);
    const auto by = layer.by(eps);
    Tensor* const result = &results[static_cast<size_t>(i * kPerLayer)];
    const Tensor grad_slice = grad.narrow(1, channels, growth);
    cpu::batch_norm_apply<E>(shape, Layout::nhwc, by, {data, all}, {}, {mutable_elements<E>(normalized), channels});
    conv2d_weight_grad_on_cpu(conv, kChannelsLast, grad_slice, nhwc_map(normalized, map, channels), result[2]);
    result[3].copy_(at::sum(grad_slice, at::IntArrayRef{0, 2, 3}));
    conv2d_input_grad_on_cpu(conv, kChannelsLast, grad_slice, layer.weight, nhwc_map(grad_normalized, map, channels));
    std::vector<double> grad_weight(static_cast<size_t>(channels)), grad_bias(grad_weight.size());
    const cpu::NormMaps<const E> through{elements<E>(grad_normalized), channels}, input{data, all};
    cpu::batch_norm_grad_sums<E>(shape, Layout::nhwc, by, {through, input}, grad_weight.data(), grad_bias.data());
    write_channels(grad_weight, result[0]);
    write_channels(grad_bias, result[1]);
    if (!statistics.empty()) {  // given statistics are constants
      grad_weight.assign(grad_weight.size(), 0);
      grad_bias.assign(grad_bias.size(), 0);
    }
    cpu::batch_norm_input_grad<E>(shape, Layout::nhwc, by, through, input, grad_weight.data(), grad_bias.data(), true,
                                  {gradient, all});
  }
}

// ---- both --------------------------------------------------------------------------------------------------------

std::tuple<Tensor, Tensor, Tensor> dense_block(const Tensor& input, TensorList parameters, TensorList statistics,
                                               double eps) {
  const int64_t growth = check_dense_block<int64_t>(input, parameters, statistics);
  const int64_t channels = input.size(1), all = channels + layers_of(parameters) * growth;
  Tensor map =
      new_tensor({input.size(0), all, input.size(2), input.size(3)}, input.options().memory_format(kChannelsLast));
  // Kernels of the CPU compute statistics in double.
  Tensor mean = at::zeros({statistics.empty() ? all - growth : 0},
                          input.options().dtype(runs_cuda_kernels(map) ? statistics_dtype(input) : at::kDouble));
  Tensor var = at::zeros_like(mean);
  if (map.numel() == 0) {
    return {map.contiguous(output_format(input)), mean.to(statistics_dtype(input)), var.to(statistics_dtype(input))};
  }
  map.narrow(1, 0, channels).copy_(input);
  if (runs_cuda_kernels(map)) {
    dense::run_on_cuda(map, parameters, statistics, eps, growth, mean, var);
  } else if (!is_element_type(map)) {
    const Tensors wide = to_float(parameters), wide_statistics = to_float(statistics);
    auto [output, wide_mean, wide_var] = dense_block(input.to(at::kFloat), wide, wide_statistics, eps);
    return {output.to(map.scalar_type()), wide_mean.to(at::kFloat), wide_var.to(at::kFloat)};
  } else {
    visit_cpu_element(
        map, [&](auto element) { run_on_cpu<decltype(element)>(map, parameters, statistics, eps, growth, mean, var); });
  }
  return {map.contiguous(output_format(input)), mean.to(statistics_dtype(input)), var.to(statistics_dtype(input))};
}

Tensors empty_gradients(TensorList parameters, at::MemoryFormat format) {
  Tensors results;
  for (const Tensor& parameter : parameters) {
    results.push_back(at::empty_symint(
        parameter.sym_sizes(),
        parameter.options().memory_format(parameter.dim() == 4 ? format : at::MemoryFormat::Contiguous)));
  }
  return results;
}

std::tuple<Tensor, Tensors> dense_block_grad(const Tensor& grad_output, const Tensor& output, TensorList parameters,
                                             TensorList statistics, const Tensor& mean, const Tensor& var, double eps) {
  check_grad<int64_t>(grad_output, output, parameters, statistics);
  const int64_t growth = parameters[2].size(0), channels = output.size(1) - layers_of(parameters) * growth;
  Tensors results = empty_gradients(parameters, output_format(output));
  Tensor grad = new_tensor(output.sizes(), output.options().memory_format(kChannelsLast));
  grad.copy_(grad_output);
  if (grad.numel() == 0) {
    for (Tensor& result : results) result.zero_();
  } else if (runs_cuda_kernels(grad)) {
    dense::differentiate_on_cuda(grad, output.contiguous(kChannelsLast), parameters, statistics, mean, var, eps, growth,
                                 results);
  } else if (!is_element_type(grad)) {
    const Tensors wide = to_float(parameters), wide_statistics = to_float(statistics);
    auto [wide_input, wide_results] = dense_block_grad(grad.to(at::kFloat), output.to(at::kFloat), wide,
                                                       wide_statistics, mean.to(at::kDouble), var.to(at::kDouble), eps);
    for (size_t i = 0; i < results.size(); ++i) results[i].copy_(wide_results[i]);
    return {wide_input.to(grad.scalar_type()), results};
  } else {
    const Tensor map = output.contiguous(kChannelsLast);
    const Tensor means = mean.to(at::kDouble), vars = var.to(at::kDouble);
    visit_cpu_element(grad, [&](auto element) {
      differentiate_on_cpu<decltype(element)>(grad, map, parameters, statistics, means, vars, eps, growth, results);
    });
  }
  return {grad.narrow(1, 0, channels).clone(output_format(output)), results};
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

std::tuple<Tensor, Tensor, Tensor> dense_block_meta(const Tensor& input, TensorList parameters, TensorList statistics,
                                                    double) {
  const SymInt growth = check_dense_block<SymInt>(input, parameters, statistics);
  const auto size = input.sym_sizes();
  const SymInt all = size[1] + growth * layers_of(parameters);
  const SymInt known = statistics.empty() ? all - growth : SymInt(0);
  const auto options = input.options().dtype(statistics_dtype(input));
  return {at::empty_symint({size[0], all, size[2], size[3]}, input.options().memory_format(output_format(input))),
          at::empty_symint({known}, options), at::empty_symint({known}, options)};
}

std::tuple<Tensor, Tensors> dense_block_grad_meta(const Tensor& grad_output, const Tensor& output,
                                                  TensorList parameters, TensorList statistics, const Tensor&,
                                                  const Tensor&, double) {
  check_grad<SymInt>(grad_output, output, parameters, statistics);
  const auto size = output.sym_sizes();
  return {at::empty_symint({size[0], input_channels(output, parameters), size[2], size[3]},
                           output.options().memory_format(output_format(output))),
          empty_gradients(parameters, output_format(output))};
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

auto call_dense_block(const Tensor& input, TensorList parameters, TensorList statistics, double eps) {
  static const auto op = find_op<decltype(dense_block)>("d2lkernels::dense_block");
  return op.call(input, parameters, statistics, eps);
}

auto call_grad(const Tensor& grad_output, const Tensor& output, TensorList parameters, TensorList statistics,
               const Tensor& mean, const Tensor& var, double eps) {
  static const auto op = find_op<decltype(dense_block_grad)>("d2lkernels::dense_block_grad");
  return op.call(grad_output, output, parameters, statistics, mean, var, eps);
}

template <typename... More>
bool any_needs_autograd(const char* op, TensorList tensors, const More&... more) {
  bool result = needs_autograd(op, more...);
  for (const Tensor& tensor : tensors) result = needs_autograd(op, tensor) || result;
  return result;
}

struct DenseBlock : Function<DenseBlock> {
  static variable_list forward(AutogradContext* ctx, const Tensor& input, TensorList parameters,
                               const Tensors& statistics, double eps) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [output, mean, var] = call_dense_block(input, parameters, statistics, eps);
    variable_list saved{output, mean, var};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    saved.insert(saved.end(), statistics.begin(), statistics.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["parameters"] = static_cast<int64_t>(parameters.size());
    ctx->saved_data["eps"] = eps;
    ctx->mark_non_differentiable({mean, var});
    ctx->set_materialize_grads(false);
    return {output, mean, var};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto count = static_cast<size_t>(ctx->saved_data["parameters"].toInt());
    variable_list result(count + 3);
    if (!grads[0].defined()) {
      return result;
    }
    const auto saved = ctx->get_saved_variables();
    const TensorList all(saved);
    auto [grad_input, gradients] = call_grad(grads[0], saved[0], all.slice(3, count), all.slice(3 + count), saved[1],
                                             saved[2], ctx->saved_data["eps"].toDouble());
    if (ctx->needs_input_grad(0)) result[0] = grad_input;
    for (size_t i = 0; i < count; ++i) {
      if (ctx->needs_input_grad(i + 1)) result[i + 1] = gradients[i];
    }
    return result;
  }
};

std::tuple<Tensor, Tensor, Tensor> dense_block_autograd(const Tensor& input, TensorList parameters,
                                                        TensorList statistics, double eps) {
  if (any_needs_autograd(kName, parameters, input)) {
    const auto outputs = DenseBlock::apply(input, parameters, statistics.vec(), eps);
    return {outputs[0], outputs[1], outputs[2]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_dense_block(input, parameters, statistics, eps);
}

// Gradients for several grad_outputs at once (is_grads_batched of torch.autograd.grad), which takes torch's first vmap,
// and that has no fallback for ops with lists: one problem after the other.
std::tuple<Tensor, Tensors> dense_block_grad_batched(const Tensor& grad_output, const Tensor& output,
                                                     TensorList parameters, TensorList statistics, const Tensor& mean,
                                                     const Tensor& var, double eps) {
  TORCH_CHECK_NOT_IMPLEMENTED(at::isBatchedTensor(grad_output), kGradName,
                              "(): expected grad_output to be the batched tensor, but got another that is");
  const auto physical = at::MultiBatchVmapTransform::logicalToPhysical(grad_output);
  const Tensor problems = physical.tensor().flatten(0, static_cast<int64_t>(physical.numBatchDims()) - 1);
  const auto sizes = physical.tensor().sizes().slice(0, physical.numBatchDims());
  std::vector<Tensors> results(parameters.size() + 1);
  for (int64_t i = 0; i < problems.size(0); ++i) {
    auto [grad_input, gradients] = call_grad(problems.select(0, i), output, parameters, statistics, mean, var, eps);
    results[0].push_back(grad_input);
    for (size_t j = 0; j < gradients.size(); ++j) results[j + 1].push_back(gradients[j]);
  }
  const auto to_logical = physical.getPhysicalToLogicalMap();
  Tensors stacked;
  for (const Tensors& one : results) stacked.push_back(to_logical.apply(at::stack(one).unflatten(0, sizes)));
  return {stacked[0], Tensors(stacked.begin() + 1, stacked.end())};
}

// The block in ops that torch differentiates again.
Tensor composed(const Tensor& input, TensorList parameters, TensorList statistics, double eps) {
  Tensor map = input;
  for (int64_t i = 0; i < layers_of(parameters); ++i) {
    const Tensor* const own = &parameters[i * kPerLayer];
    const bool trains = statistics.empty();
    const Tensor mean = trains ? Tensor() : statistics[2 * i], var = trains ? Tensor() : statistics[2 * i + 1];
    const Tensor normalized =
        at::relu(at::batch_norm(map, own[0], own[1], mean, var, trains, 0.0, eps, /*cudnn_enabled=*/false));
    map = at::cat({map, call_conv2d(normalized, own[2], own[3], {1, 1}, {1, 1, 1, 1}, {1, 1}, 1)}, 1);
  }
  return map;
}

std::tuple<Tensor, Tensors> dense_block_grad_autograd(const Tensor& grad_output, const Tensor& output,
                                                      TensorList parameters, TensorList statistics, const Tensor& mean,
                                                      const Tensor& var, double eps) {
  if (!any_needs_autograd(kGradName, parameters, grad_output, output)) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_grad(grad_output, output, parameters, statistics, mean, var, eps);
  }
  check_grad<SymInt>(grad_output, output, parameters, statistics);
  const auto differentiable = [](const Tensor& tensor) {
    return tensor.requires_grad() ? tensor.alias() : tensor.detach().requires_grad_();
  };
  // The first channels of the output are the input: the derivative for it goes through the output.
  variable_list inputs{differentiable(output.narrow_symint(1, 0, input_channels(output, parameters)))};
  for (const Tensor& parameter : parameters) inputs.push_back(differentiable(parameter));
  const Tensor again = composed(inputs[0], TensorList(inputs).slice(1), statistics, eps);
  auto gradients = torch::autograd::grad({again}, inputs, {grad_output}, /*retain_graph=*/true, /*create_graph=*/true);
  return {gradients[0], Tensors(gradients.begin() + 1, gradients.end())};
}

// ---- autocast: a map in the lower precision stays in it, as its layers' maps do ---------------------------------

template <c10::DeviceType device, c10::DispatchKey key>
std::tuple<Tensor, Tensor, Tensor> dense_block_autocast(const Tensor& input, TensorList parameters,
                                                        TensorList statistics, double eps) {
  const c10::impl::ExcludeDispatchKeyGuard guard(key);
  Tensors lowered = parameters.vec();
  for (int64_t i = 0; i < static_cast<int64_t>(lowered.size()); ++i) {
    Tensor& parameter = lowered[static_cast<size_t>(i)];
    if (!is_of_norm(i)) parameter = autocast_to_lower_precision(parameter, device);
  }
  return call_dense_block(autocast_to_lower_precision(input, device), lowered, statistics, eps);
}

}  // namespace
}  // namespace d2l

#define D2L_DENSE_BLOCK_KERNELS(suffix)            \
  m.impl("dense_block", d2l::dense_block##suffix); \
  m.impl("dense_block_grad", d2l::dense_block_grad##suffix)

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { D2L_DENSE_BLOCK_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { D2L_DENSE_BLOCK_KERNELS(); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { D2L_DENSE_BLOCK_KERNELS(_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { D2L_DENSE_BLOCK_KERNELS(_autograd); }
TORCH_LIBRARY_IMPL(d2lkernels, Batched, m) { m.impl("dense_block_grad", d2l::dense_block_grad_batched); }
TORCH_LIBRARY_IMPL(d2lkernels, AutocastCPU, m) {
  m.impl("dense_block", d2l::dense_block_autocast<c10::DeviceType::CPU, c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(d2lkernels, AutocastCUDA, m) {
  m.impl("dense_block", d2l::dense_block_autocast<c10::DeviceType::CUDA, c10::DispatchKey::AutocastCUDA>);
}
