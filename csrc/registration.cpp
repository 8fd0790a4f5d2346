// Every op of d2lkernels, in one list. Kernels are registered next to their implementation, in ops/<op>.cpp.
//
// padding of conv2d is [top, bottom, left, right]. A `window` is [kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w,
// dilation_h, dilation_w], or empty for adaptive windows; `offsets` are the places of maxima inside their windows
// (uint8, or int32 where a window can hold more than 256 taps). The `seed` of dropout is an int64 number, on the device
// of the input. Derivatives are ops, and differentiable themselves.
// concat_convolutions takes the numbers of its convolutions one after the other: 2, 4, 2 and 1 for each.
// The training ops of batch normalisation take the mean and var of their input where these are known before, as
// conv2d_moments leaves them (not differentiable): the derivatives of both ops are the same as without.
// Ops that are fused with a pool leave what their backward needs in the second result, or nothing without `keep`.
#include <torch/library.h>

TORCH_LIBRARY(d2lkernels, m) {
  m.def(
      "conv2d(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[4] padding, int[2] dilation, int groups) "
      "-> Tensor");
  m.def(
      "conv2d_input_grad(Tensor grad_output, Tensor weight, SymInt[4] input_size, int[2] stride, int[4] padding, "
      "int[2] dilation, int groups) -> Tensor");
  m.def(
      "conv2d_weight_grad(Tensor grad_output, Tensor input, SymInt[4] weight_size, int[2] stride, int[4] padding, "
      "int[2] dilation, int groups) -> Tensor");

  m.def("linear(Tensor input, Tensor weight, Tensor? bias) -> Tensor");
  m.def("linear_activation(Tensor input, Tensor weight, Tensor? bias, str activation) -> Tensor");

  m.def(
      "conv2d_moments(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[4] padding, int[2] dilation, "
      "int groups) -> (Tensor output, Tensor mean, Tensor var)");
  m.def(
      "conv2d_activation(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[4] padding, int[2] dilation, "
      "int groups, str activation) -> Tensor");
  m.def(
      "conv2d_max_pool2d(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[4] padding, int[2] dilation, "
      "int groups, str activation, int[2] pool_size, int[2] pool_stride, int[2] pool_padding, bool ceil_mode, "
      "bool keep) -> (Tensor output, Tensor offsets)");
  m.def(
      "conv2d_avg_pool2d(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[4] padding, int[2] dilation, "
      "int groups, str activation, int[2] pool_size, int[2] pool_stride, int[2] pool_padding, bool ceil_mode, "
      "bool count_include_pad, bool keep) -> (Tensor output, Tensor activated)");
  m.def(
      "conv2d_avg_pool2d_grad(Tensor grad_output, Tensor? activated, Tensor input, Tensor weight, int[2] stride, "
      "int[4] padding, int[2] dilation, int groups, str activation, int[2] pool_size, int[2] pool_stride, "
      "int[2] pool_padding, bool ceil_mode, bool count_include_pad, bool needs_input_grad, bool needs_bias_grad) "
      "-> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias)");

  m.def(
      "max_pool2d(Tensor input, int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, bool ceil_mode) "
      "-> Tensor");
  m.def(
      "max_pool2d_with_offsets(Tensor input, int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, "
      "bool ceil_mode) -> (Tensor output, Tensor offsets)");
  m.def("adaptive_max_pool2d(Tensor input, int[2] output_size) -> Tensor");
  m.def("adaptive_max_pool2d_with_offsets(Tensor input, int[2] output_size) -> (Tensor output, Tensor offsets)");
  m.def("max_pool2d_input_grad(Tensor grad_output, Tensor offsets, SymInt[4] input_size, int[] window) -> Tensor");
  m.def("max_pool2d_gather(Tensor input, Tensor offsets, int[] window) -> Tensor");
  m.def("max_pool2d_indices(Tensor offsets, SymInt[4] input_size, int[] window) -> Tensor");

  m.def(
      "avg_pool2d(Tensor input, int[2] kernel_size, int[2] stride, int[2] padding, bool ceil_mode, "
      "bool count_include_pad, int? divisor_override) -> Tensor");
  m.def(
      "avg_pool2d_input_grad(Tensor grad_output, SymInt[4] input_size, int[2] kernel_size, int[2] stride, "
      "int[2] padding, bool ceil_mode, bool count_include_pad, int? divisor_override) -> Tensor");
  m.def("adaptive_avg_pool2d(Tensor input, int[2] output_size) -> Tensor");
  m.def("adaptive_avg_pool2d_input_grad(Tensor grad_output, SymInt[4] input_size) -> Tensor");

  m.def(
      "batch_norm_train(Tensor input, Tensor? residual, Tensor? mean, Tensor? var, Tensor? weight, Tensor? bias, "
      "float eps, str activation) -> (Tensor output, Tensor mean, Tensor var)");
  m.def(
      "batch_norm_train_update(Tensor input, Tensor? residual, Tensor? mean, Tensor? var, Tensor? weight, Tensor? "
      "bias, "
      "Tensor(a!) running_mean, Tensor(b!) running_var, Tensor(c!)? num_batches_tracked, float? momentum, float eps, "
      "str activation) "
      "-> (Tensor output, Tensor mean, Tensor var)");
  m.def(
      "batch_norm_infer(Tensor input, Tensor? residual, Tensor mean, Tensor var, Tensor? weight, Tensor? bias, "
      "float eps, str activation) -> Tensor");
  m.def(
      "batch_norm_train_grad(Tensor grad_output, Tensor input, Tensor? output, Tensor? weight, Tensor? bias, "
      "Tensor mean, Tensor var, float eps, str activation) "
      "-> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias)");
  m.def(
      "batch_norm_add_train_grad(Tensor grad_output, Tensor input, Tensor output, Tensor? weight, Tensor? bias, "
      "Tensor mean, Tensor var, float eps, str activation) "
      "-> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias, Tensor grad_residual)");
  m.def(
      "batch_norm_weight_grad(Tensor grad_output, Tensor input, Tensor mean, Tensor var, float eps) "
      "-> (Tensor grad_weight, Tensor grad_bias)");

  m.def("add_relu(Tensor input, Tensor other) -> Tensor");

  m.def("relu(Tensor input) -> Tensor");
  m.def("sigmoid(Tensor input) -> Tensor");
  m.def("tanh(Tensor input) -> Tensor");
  m.def("relu_input_grad(Tensor grad_output, Tensor output) -> Tensor");
  m.def("sigmoid_input_grad(Tensor grad_output, Tensor output) -> Tensor");
  m.def("tanh_input_grad(Tensor grad_output, Tensor output) -> Tensor");
  m.def("bias_grad(Tensor grad_output) -> Tensor");
  m.def(
      "activation_bias_grad(Tensor grad_output, Tensor output, str activation) -> (Tensor grad_pre, Tensor grad_bias)");

  m.def("softmax(Tensor input, int dim) -> Tensor");
  m.def("log_softmax(Tensor input, int dim) -> Tensor");
  m.def("softmax_input_grad(Tensor grad_output, Tensor output, int dim) -> Tensor");
  m.def("log_softmax_input_grad(Tensor grad_output, Tensor output, int dim) -> Tensor");
  m.def(
      "cross_entropy(Tensor input, Tensor target, Tensor? weight, str reduction, int ignore_index, "
      "float label_smoothing) -> (Tensor loss, Tensor statistics, Tensor total_weight)");
  m.def(
      "cross_entropy_input_grad(Tensor grad_output, Tensor input, Tensor target, Tensor? weight, Tensor statistics, "
      "Tensor total_weight, str reduction, int ignore_index, float label_smoothing) -> Tensor");

  m.def("mse_loss(Tensor input, Tensor target, str reduction) -> Tensor");
  m.def("mse_loss_input_grad(Tensor grad_output, Tensor input, Tensor target, str reduction) -> Tensor");

  m.def("dropout(Tensor input, Tensor seed, float p) -> Tensor");

  m.def("concat(Tensor[] tensors, int dim) -> Tensor");
  m.def(
      "concat_convolutions(Tensor[] inputs, Tensor[] weights, Tensor[] biases, int[] stride, int[] padding, "
      "int[] dilation, int[] groups, str activation) -> Tensor");
  m.def(
      "dense_block(Tensor input, Tensor[] parameters, Tensor[] statistics, float eps) "
      "-> (Tensor output, Tensor mean, Tensor var)");
  m.def(
      "dense_block_grad(Tensor grad_output, Tensor output, Tensor[] parameters, Tensor[] statistics, Tensor mean, "
      "Tensor var, float eps) -> (Tensor grad_input, Tensor[] grad_parameters)");
}
