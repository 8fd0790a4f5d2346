// Division by a number that stays the same for a whole kernel: a multiplication and a shift.
//
// quotient(x) is exact for x < 2^(bits - 1) and divisors up to the same bound: with l = ceil(log2 d) and
// m = ceil(2^(bits - 1 + l) / d), floor(x m / 2^(bits - 1 + l)) = floor(x / d), since m d - 2^(bits - 1 + l) < d <=
// 2^l.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/shapes.h"

namespace d2l::cuda {

template <typename Word>
class FastDivisor {
  static_assert(std::is_same_v<Word, uint32_t> || std::is_same_v<Word, uint64_t>);
  using Wide = std::conditional_t<sizeof(Word) == 4, uint64_t, unsigned __int128>;
  static constexpr int kBits = 8 * sizeof(Word);

 public:
  FastDivisor() = default;

  // A divisor of 0 is taken for 1: it belongs to a range without elements.
  explicit FastDivisor(int64_t divisor) : divisor_(divisor > 0 ? static_cast<Word>(divisor) : 1) {
    while ((Word{1} << shift_) < divisor_) ++shift_;
    multiplier_ = static_cast<Word>(((Wide{1} << (kBits - 1 + shift_)) + divisor_ - 1) / divisor_);
  }

  D2L_HOST_DEVICE Word divisor() const { return divisor_; }
  D2L_HOST_DEVICE Word quotient(Word x) const {
    return static_cast<Word>((static_cast<Wide>(x + x) * multiplier_) >> kBits) >> shift_;
  }
  // Returns the quotient and leaves the remainder in x.
  D2L_HOST_DEVICE Word split(Word& x) const {
    const Word whole = quotient(x);
    x -= whole * divisor_;
    return whole;
  }

 private:
  Word divisor_ = 1;
  Word multiplier_ = 0;
  unsigned shift_ = 0;
};

}  // namespace d2l::cuda
