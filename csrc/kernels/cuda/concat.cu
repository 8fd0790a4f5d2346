// Concatenation: copies the dense rows of each piece to their place in the wider rows of the output.
//
// One launch per piece, of any number of pieces. Reads and writes every byte once: memory-bound. A thread moves a unit,
// of 16 bytes where addresses and row lengths allow it; neighbouring threads have neighbouring units of the piece.
#include "kernels/cuda/concat.h"

#include <algorithm>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/conv2d_divisor.cuh"

namespace d2l::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

template <typename Unit>
__global__ void __launch_bounds__(kThreads) copy_rows(const Unit* __restrict__ piece, Unit* __restrict__ output,
                                                      int64_t units, FastDivisor<uint64_t> row_units, int64_t pitch) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < units; i += step) {
    uint64_t column = static_cast<uint64_t>(i);
    const int64_t row = static_cast<int64_t>(row_units.split(column));
    output[row * pitch + static_cast<int64_t>(column)] = piece[i];
  }
}

template <typename Unit>
LaunchStatus launch_copy(int64_t rows, const ConcatPiece& piece, char* output, int64_t pitch, Stream stream) {
  constexpr int64_t kBytes = sizeof(Unit);
  const int64_t row_units = piece.row_bytes / kBytes, units = rows * row_units;
  const dim3 grid(static_cast<unsigned>(std::min(ceil_div<int64_t>(units, kThreads), kMaxBlocks))), block(kThreads);
  D2L_LAUNCH((copy_rows<Unit>), grid, block, 0, stream, static_cast<const Unit*>(piece.data),
             reinterpret_cast<Unit*>(output), units, FastDivisor<uint64_t>(row_units), pitch / kBytes);
  return launched(grid, block);
}

}  // namespace

LaunchStatus concat(int64_t rows, const ConcatPiece* pieces, int64_t count, void* output, Stream stream) {
  int64_t pitch = 0;
  for (int64_t i = 0; i < count; ++i) pitch += pieces[i].row_bytes;
  char* to = static_cast<char*>(output);
  LaunchStatus status;
  for (int64_t i = 0; i < count && status.error == 0; to += pieces[i].row_bytes, ++i) {
    const ConcatPiece& piece = pieces[i];
    if (rows * piece.row_bytes == 0) continue;
    const auto allows = [&](int64_t bytes) {
      return is_aligned(piece.data, static_cast<size_t>(bytes)) && is_aligned(to, static_cast<size_t>(bytes)) &&
             piece.row_bytes % bytes == 0 && pitch % bytes == 0;
    };
    if (allows(16)) {
      status = launch_copy<Pack<uint32_t, 4>>(rows, piece, to, pitch, stream);
    } else if (allows(4)) {
      status = launch_copy<uint32_t>(rows, piece, to, pitch, stream);
    } else if (allows(2)) {
      status = launch_copy<uint16_t>(rows, piece, to, pitch, stream);
    } else {
      status = launch_copy<uint8_t>(rows, piece, to, pitch, stream);
    }
  }
  return status;
}

}  // namespace d2l::cuda
