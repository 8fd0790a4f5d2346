// Launcher of concatenation on CUDA devices: every output row is the rows of all pieces, one behind the other.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/shapes.h"

namespace d2l::cuda {

LaunchStatus concat(int64_t rows, const ConcatPiece* pieces, int64_t count, void* output, Stream stream);

}  // namespace d2l::cuda
