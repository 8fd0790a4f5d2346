// Launcher of concatenation on the CPU: every output row is the rows of all pieces, one behind the other.
//
// Bytes, not elements: all types are the same to it. NCHW and NHWC are too; joined by channel, a row of a piece is the
// planes of an image or the channels of a pixel.
#pragma once

#include "kernels/shapes.h"

namespace d2l::cpu {

void concat(int64_t rows, const ConcatPiece* pieces, int64_t count, void* output);

}  // namespace d2l::cpu
