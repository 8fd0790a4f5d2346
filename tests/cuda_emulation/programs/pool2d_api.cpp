// The pooling launchers under C names, for ctypes. Each returns the error, whose text last_error() gives.
#include "kernels/cuda/pool2d.h"

using d2l::Layout;
using d2l::Pool2dShape;
using d2l::cuda::DType;

extern "C" {

const char* last_error(int error) { return d2l::cuda::error_string(error); }

int max_pool2d(const Pool2dShape* shape, int layout, int dtype, const void* input, void* output, void* offsets,
               bool wide_offsets) {
  return d2l::cuda::max_pool2d(*shape, Layout(layout), DType(dtype), input, output, offsets, wide_offsets, nullptr)
      .error;
}

int max_pool2d_input_grad(const Pool2dShape* shape, int layout, int dtype, const void* grad_output, const void* offsets,
                          bool wide_offsets, void* grad_input) {
  return d2l::cuda::max_pool2d_input_grad(*shape, Layout(layout), DType(dtype), grad_output, offsets, wide_offsets,
                                          grad_input, nullptr)
      .error;
}

int max_pool2d_gather(const Pool2dShape* shape, int layout, int dtype, const void* input, const void* offsets,
                      bool wide_offsets, void* output) {
  return d2l::cuda::max_pool2d_gather(*shape, Layout(layout), DType(dtype), input, offsets, wide_offsets, output,
                                      nullptr)
      .error;
}

int max_pool2d_indices(const Pool2dShape* shape, int layout, const void* offsets, bool wide_offsets, int64_t* indices) {
  return d2l::cuda::max_pool2d_indices(*shape, Layout(layout), offsets, wide_offsets, indices, nullptr).error;
}

int avg_pool2d(const Pool2dShape* shape, int layout, int dtype, const void* input, void* output) {
  return d2l::cuda::avg_pool2d(*shape, Layout(layout), DType(dtype), input, output, nullptr).error;
}

int avg_pool2d_input_grad(const Pool2dShape* shape, int layout, int dtype, const void* grad_output, void* grad_input) {
  return d2l::cuda::avg_pool2d_input_grad(*shape, Layout(layout), DType(dtype), grad_output, grad_input, nullptr).error;
}

}  // extern "C"
