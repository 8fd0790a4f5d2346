// Names and texts of the error codes in LaunchStatus.
#include "kernels/cuda/common.cuh"

namespace d2l::cuda {

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

const char* error_name(int error) { return cudaGetErrorName(static_cast<cudaError_t>(error)); }

}  // namespace d2l::cuda
