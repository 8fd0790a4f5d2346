// The launchers of batch normalisation under C names, for ctypes. Each returns the error, whose text last_error()
// gives.
#include "kernels/cuda/batch_norm.h"

using d2l::BatchNormShape;
using d2l::Layout;
using d2l::cuda::DType;

extern "C" {

const char* last_error(int error) { return d2l::cuda::error_string(error); }

int64_t workspace_bytes(const BatchNormShape* shape, int layout, int dtype) {
  return d2l::cuda::batch_norm_workspace(*shape, Layout(layout), DType(dtype));
}

int batch_norm_train(const BatchNormShape* shape, int layout, int dtype, double eps, const void* input,
                     const void* weight, const void* bias, void* output, void* mean, void* var, void* workspace) {
  return d2l::cuda::batch_norm_train(*shape, Layout(layout), DType(dtype), eps, input, weight, bias, output, mean, var,
                                     workspace, nullptr)
      .error;
}

int batch_norm_infer(const BatchNormShape* shape, int layout, int dtype, double eps, const void* input,
                     const void* mean, const void* var, bool wide_statistics, const void* weight, const void* bias,
                     void* output) {
  return d2l::cuda::batch_norm_infer(*shape, Layout(layout), DType(dtype), eps, input, mean, var, wide_statistics,
                                     weight, bias, output, nullptr)
      .error;
}

int batch_norm_train_grad(const BatchNormShape* shape, int layout, int dtype, double eps, const void* grad_output,
                          const void* input, const void* weight, const void* mean, const void* var, void* grad_input,
                          void* grad_weight, void* grad_bias, void* workspace) {
  return d2l::cuda::batch_norm_train_grad(*shape, Layout(layout), DType(dtype), eps, grad_output, input, weight, mean,
                                          var, grad_input, grad_weight, grad_bias, workspace, nullptr)
      .error;
}

int batch_norm_weight_grad(const BatchNormShape* shape, int layout, int dtype, double eps, const void* grad_output,
                           const void* input, const void* mean, const void* var, void* grad_weight, void* grad_bias,
                           void* workspace) {
  return d2l::cuda::batch_norm_weight_grad(*shape, Layout(layout), DType(dtype), eps, grad_output, input, mean, var,
                                           grad_weight, grad_bias, workspace, nullptr)
      .error;
}

}  // extern "C"
