#include "linear/linear.h"

namespace onebit {

void apply_front(const KernelSet& kernels, const Linear& linear, const float* x, float* out) {
    const Front& front = linear.front;
    if (front.norm) {
        kernels.rmsnorm(out, x, front.norm, linear.cols, front.norm_eps);
        x = out;
    }
    if (front.block > 0) kernels.hadamard(out, x, front.signs, linear.cols, front.block);
}

void read_embedding(const KernelSet& kernels, const Linear& table, int row, float* out) {
    const Matrix& matrix = table.stage[0];
    const Front& front = table.front;
    matrix.kind->read_row(kernels, matrix, row, out);
    if (front.block == 0) return;
    kernels.hadamard(out, out, nullptr, matrix.cols, front.block);
    for (int i = 0; front.signs && i < matrix.cols; ++i) {
        if ((front.signs[i / 8] >> (i % 8) & 1) != 0) out[i] = -out[i];
    }
}

}  // namespace onebit
