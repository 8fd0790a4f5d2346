// What every CUDA launcher takes and returns. No CUDA header: the glue is built with and without the toolkit.
//
// A launcher picks tile sizes and launches on the stream it is given; it does not allocate, synchronise, read device
// memory or print, so that every op can be captured in a CUDA graph.
#pragma once

#include <cstdint>

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace d2l::cuda {

using Stream = CUstream_st*;

enum class DType { float32, float64, bfloat16, float16 };

// How float32 products are made: with all bits, or rounded to TF32 on the tensor cores (sums are float32 in both).
enum class Float32Precision { ieee, tf32 };

struct LaunchStatus {
  int error = 0;  // a cudaError_t; 0 is success
  unsigned grid[3] = {0, 0, 0};
  unsigned block[3] = {0, 0, 0};
};

const char* error_string(int error);
const char* error_name(int error);

}  // namespace d2l::cuda
