// From the form that a file has to the one that kernels want.
#include <algorithm>
#include <cstring>

#include "kernels/math.h"
#include "model/bind.h"

namespace onebit {

namespace {

Status not_finite(const TensorRead& read, size_t index) {
    return error("ERR_NOT_FINITE", "Tensor " + read.name + " holds a NaN or an infinity at element " +
                                       std::to_string(index) + "; the model was not made right.");
}

// f16 scales, checked, each to where at(row, group) says.
template <class F>
Status place_scales(const TensorRead& read, const uint8_t* piece, size_t row, size_t n, const F& at) {
    const auto groups = static_cast<size_t>(read.cols);
    auto* out = static_cast<uint16_t*>(read.destination);
    for (size_t i = 0; i < n * groups; ++i) {
        uint16_t bits;
        std::memcpy(&bits, piece + i * 2, 2);
        if ((bits & 0x7c00u) == 0x7c00u) return not_finite(read, row * groups + i);
        out[at(row + i / groups, i % groups)] = bits;
    }
    return {};
}

}  // namespace

Status place_copied(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    auto* out = static_cast<uint8_t*>(read.destination) + row * read.stride;
    for (size_t i = 0; i < n; ++i) std::memcpy(out + i * read.stride, piece + i * read.row_bytes, read.row_bytes);
    return {};
}

Status place_finite(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    const size_t count = n * read.row_bytes / sizeof(float);
    const size_t i = first_not_finite(reinterpret_cast<const float*>(piece), count);
    if (i < count) return not_finite(read, row * read.row_bytes / sizeof(float) + i);
    return place_copied(kernels, read, piece, row, n);
}

Status place_transposed(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    const auto cols = static_cast<size_t>(read.cols);
    const auto* from = reinterpret_cast<const float*>(piece);
    if (const size_t i = first_not_finite(from, n * cols); i < n * cols) return not_finite(read, row * cols + i);
    auto* out = static_cast<float*>(read.destination) + row;
    for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < cols; ++j) out[j * (read.stride / sizeof(float)) + i] = from[i * cols + j];
    }
    return {};
}

Status place_sign_blocks(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    const auto block = static_cast<size_t>(kernels.sign_row_block);
    auto* out = static_cast<uint8_t*>(read.destination) + row / block * read.stride;
    for (size_t i = 0; i < n; i += block, out += read.stride) {
        kernels.sign_pack(out, piece + i * read.row_bytes, static_cast<int>(std::min(block, n - i)), read.cols);
    }
    return {};
}

Status place_scale_rows(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    const auto groups = static_cast<size_t>(read.cols);
    return place_scales(read, piece, row, n, [=](size_t r, size_t g) { return r * groups + g; });
}

Status place_scale_blocks(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    const auto groups = static_cast<size_t>(read.cols), block = static_cast<size_t>(kernels.sign_row_block);
    return place_scales(read, piece, row, n,
                        [=](size_t r, size_t g) { return (r / block * groups + g) * block + r % block; });
}

}  // namespace onebit
