#include "kernels/cpu/conv2d_images.h"

#include "kernels/cpu/conv2d_algorithm.h"
#include "kernels/cpu/conv2d_images_kernel.h"

namespace d2l::cpu {
namespace {

// With more channels, vectors over channels are full as well, and Winograd's algorithm needs fewer multiplications.
constexpr int64_t kMostChannels = 16;
// Vectors of images, the last one in part: enough for some threads, and with few empty lanes. The choice does not
// depend on the number of threads, so that results do not.
constexpr int64_t kFewestVectors = 4;
// The maps of a vector of images should stay in an L2 cache of 1 MB.
constexpr int64_t kMostBytes = 800 << 10;

}  // namespace

bool conv2d_suits_images(const Conv2dShape& s, int64_t element_bytes) {
  const int64_t lanes = vector_bytes() / element_bytes;
  const bool is_plain = s.groups == 1 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1 &&
                        s.R * s.S > 1 && s.pad_top < s.R && s.pad_left < s.S && s.S <= 5;
  const bool is_dense = s.input_pixel_stride() == s.C && s.output_pixel_stride() == s.K;
  const int64_t map = s.C * (s.H + 2 * s.R) * (s.W + 2 * s.S) + s.K * s.P * s.Q;
  return is_plain && is_dense && conv2d_algorithm() != Conv2dAlgorithm::winograd && s.C > 0 && s.K > 0 &&
         s.C <= kMostChannels && s.K <= kMostChannels && s.P * s.Q > 0 && s.N > (kFewestVectors - 1) * lanes &&
         map * vector_bytes() <= kMostBytes;
}

template <typename T>
void conv2d_images(const ImagesForward<T>& problem) {
  D2L_CALL_BEST(images_forward, problem);
}

template <typename T>
void conv2d_images_grads(const ImagesGradients<T>& problem) {
  D2L_CALL_BEST(images_gradients, problem);
}

template void conv2d_images<float>(const ImagesForward<float>&);
template void conv2d_images<double>(const ImagesForward<double>&);
template void conv2d_images_grads<float>(const ImagesGradients<float>&);
template void conv2d_images_grads<double>(const ImagesGradients<double>&);

}  // namespace d2l::cpu
