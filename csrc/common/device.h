// Where a tensor's kernels run, and launching there. Uses no CUDA header of torch, so the same glue compiles, links and
// loads against CPU-only and CUDA builds of torch.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include "kernels/cuda/launch.h"

#if !defined(D2L_WITH_CUDA)
#error "define D2L_WITH_CUDA as 1 (CUDA launchers are linked) or 0"
#endif

namespace d2l {

constexpr bool kBuiltWithCuda = D2L_WITH_CUDA != 0;

// True if the CUDA launchers serve this tensor. The test build that emulates CUDA on the CPU says so of every tensor.
bool runs_cuda_kernels(const at::Tensor& tensor);

// Raises, saying why this build has no CUDA kernels.
[[noreturn]] void raise_built_without_cuda(const char* op);

// Makes the tensor's device current for the scope and knows the stream to launch on.
class DeviceScope {
 public:
  explicit DeviceScope(const at::Tensor& tensor);
  cuda::Stream stream() const { return stream_; }

 private:
  c10::DeviceGuard guard_;
  cuda::Stream stream_;
};

// Turns a failed launch into an error that names op, device and launch configuration.
void check_launch(const char* op, const at::Tensor& tensor, const cuda::LaunchStatus& status);

cuda::DType cuda_dtype(const at::Tensor& tensor);

// What torch.backends.cudnn.conv.fp32_precision asks for.
cuda::Float32Precision convolution_precision();

// What torch.backends.cuda.matmul.fp32_precision asks for.
cuda::Float32Precision matmul_precision();

}  // namespace d2l

// D2L_ON_CUDA(op, tensor) { ... }: the block runs for tensors that the CUDA launchers serve, and is compiled only into
// builds that have them; other builds raise.
#define D2L_ON_CUDA(op, tensor)                  \
  if (!::d2l::runs_cuda_kernels(tensor)) {       \
  } else if constexpr (!::d2l::kBuiltWithCuda) { \
    ::d2l::raise_built_without_cuda(op);         \
  } else
