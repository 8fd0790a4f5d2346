// The launchers of batch normalisation under C names, for ctypes. Each returns the error, whose text last_error()
// gives.
#include "kernels/cuda/batch_norm.h"

using d2l::Activation;
using d2l::BatchNormShape;
using d2l::Layout;
using namespace d2l::cuda;

extern "C" {

const char* last_error(int error) { return error_string(error); }

int64_t workspace_bytes(const BatchNormShape* shape, int layout, int dtype) {
  return batch_norm_workspace(*shape, Layout(layout), DType(dtype));
}

int batch_norm_train(const BatchNormShape* shape, int layout, int dtype, double eps, int activation, int64_t pixel,
                     const void* input, const void* residual, const void* weight, const void* bias, void* output,
                     void* mean, void* var, void* running_mean, void* running_var, bool wide, int64_t* batches,
                     double momentum, void* workspace) {
  const RunningStatistics running{running_mean, running_var, wide, batches, momentum};
  const int error =
      batch_norm_moments(*shape, Layout(layout), DType(dtype), {input, pixel}, mean, var, running, workspace, nullptr)
          .error;
  if (error != 0) return error;
  const Normalization by{eps, mean, var, weight, bias, Activation(activation)};
  return batch_norm_apply(*shape, Layout(layout), DType(dtype), by, {input, pixel}, {residual, pixel}, {output, pixel},
                          nullptr)
      .error;
}

int batch_norm_infer(const BatchNormShape* shape, int layout, int dtype, double eps, const void* input,
                     const void* mean, const void* var, bool wide_statistics, const void* weight, const void* bias,
                     void* output) {
  const Normalization by{eps, mean, var, weight, bias, Activation::none, !wide_statistics};
  return batch_norm_apply(*shape, Layout(layout), DType(dtype), by, {input}, {}, {output}, nullptr).error;
}

// Of a ReLU of no residual if `output` is null, else by it.
int batch_norm_train_grad(const BatchNormShape* shape, int layout, int dtype, double eps, int activation, int64_t pixel,
                          const void* grad_output, const void* input, const void* output, void* through,
                          const void* weight, const void* bias, const void* mean, const void* var, bool accumulate,
                          void* grad_input, void* grad_weight, void* grad_bias, void* workspace) {
  Normalization by{eps, mean, var, weight, bias, Activation(activation)};
  const NormGradients gradients{{grad_output, pixel}, {input, pixel}, {output, pixel}, {through, pixel}};
  const int error = batch_norm_grad_sums(*shape, Layout(layout), DType(dtype), by, gradients, grad_weight, grad_bias,
                                         workspace, nullptr)
                        .error;
  if (error != 0) return error;
  if (through != nullptr) by.activation = Activation::none;
  return batch_norm_input_grad(*shape, Layout(layout), DType(dtype), by,
                               {through != nullptr ? through : grad_output, pixel}, {input, pixel}, grad_weight,
                               grad_bias, accumulate, {grad_input, pixel}, nullptr)
      .error;
}

int batch_norm_weight_grad(const BatchNormShape* shape, int layout, int dtype, double eps, const void* grad_output,
                           const void* input, const void* mean, const void* var, void* grad_weight, void* grad_bias,
                           void* workspace) {
  const Normalization by{eps, mean, var, nullptr, nullptr};
  return batch_norm_grad_sums(*shape, Layout(layout), DType(dtype), by, {{grad_output}, {input}}, grad_weight,
                              grad_bias, workspace, nullptr)
      .error;
}

}  // extern "C"
