#include "common/device.h"

#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace d2l {

namespace {

constexpr bool kEmulated =
#if defined(D2L_EMULATED_LIBRARY)
    true;
#else
    false;
#endif

cuda::Stream current_stream(const c10::Device& device) {
  if (!device.is_cuda()) {
    return nullptr;  // the emulator runs a launch to its end before it returns
  }
  const c10::impl::VirtualGuardImpl guard(device.type());
  return static_cast<cuda::Stream>(guard.getStream(device).native_handle());
}

}  // namespace

bool runs_cuda_kernels(const at::Tensor& tensor) { return kEmulated || tensor.is_cuda(); }

void raise_built_without_cuda(const char* op) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, op, "(): expected a build of d2lkernels with CUDA for a tensor on a CUDA device, ",
                              "but this one was built without: ", D2L_NO_CUDA_REASON,
                              ". Reinstall d2lkernels where nvcc is found, or move the tensors to the CPU");
}

DeviceScope::DeviceScope(const at::Tensor& tensor)
    : guard_(tensor.device()), stream_(current_stream(tensor.device())) {}

void check_launch(const char* op, const at::Tensor& tensor, const cuda::LaunchStatus& status) {
  if constexpr (kBuiltWithCuda) {
    TORCH_CHECK(status.error == 0, op, "(): CUDA kernel launch failed: ", cuda::error_string(status.error), " (",
                cuda::error_name(status.error), "; device ", tensor.device(), ", grid [", status.grid[0], ", ",
                status.grid[1], ", ", status.grid[2], "], block [", status.block[0], ", ", status.block[1], ", ",
                status.block[2], "]; built for ", D2L_CUDA_ARCHITECTURES, ")");
  }
}

cuda::DType cuda_dtype(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return cuda::DType::float32;
    case at::kDouble:
      return cuda::DType::float64;
    case at::kBFloat16:
      return cuda::DType::bfloat16;
    case at::kHalf:
      return cuda::DType::float16;
    default:
      TORCH_INTERNAL_ASSERT(false, "dtype ", tensor.scalar_type(), " passed the op's check");
  }
}

cuda::Float32Precision convolution_precision() {
  const auto precision = at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::CONV);
  return precision == at::Float32Precision::IEEE ? cuda::Float32Precision::ieee : cuda::Float32Precision::tf32;
}

// Unlike convolutions, products are exact unless TF32 is asked for.
cuda::Float32Precision matmul_precision() {
  const auto precision = at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL);
  return precision == at::Float32Precision::TF32 ? cuda::Float32Precision::tf32 : cuda::Float32Precision::ieee;
}

}  // namespace d2l
