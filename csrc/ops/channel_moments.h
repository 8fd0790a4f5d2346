#pragma once

#include <ATen/core/Tensor.h>

namespace d2l {

// The mean and the variance (the mean squared deviation) of each channel of a map, of the dtype that batch
// normalisation has for statistics (batch_norm.h).
struct ChannelMoments {
  at::Tensor mean, var;
};

}  // namespace d2l
