// Matrix products of float and double.
#include "kernels/cpu/gemm.h"

#include "kernels/cpu/gemm_driver.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

template <typename T>
void multiply(const Gemm<T>& g) {
  const Operand<T> a{g.a, g.a_row, g.a_depth, 0, g.a_depth != 1, g.depth};
  const Operand<T> b{g.b, g.b_column, g.b_depth, 0, g.b_column == 1, g.depth};
  multiply(Product<T>{g.rows, g.columns, g.depth, 1, a, b, g.bias, false, g.c, g.c_row, g.activation, g.progress});
}

template void multiply<float>(const Gemm<float>&);
template void multiply<double>(const Gemm<double>&);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
