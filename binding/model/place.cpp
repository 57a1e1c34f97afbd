#include "model/bind.h"

#include <algorithm>
#include <cstring>

namespace onebit {

namespace {

Status not_finite(const TensorRead& read, size_t index) {
    return error("ERR_NOT_FINITE", "Tensor " + read.name + " holds a NaN or an infinity at element " +
                                       std::to_string(index) + "; the model was not made right.");
}

void copy_rows(const TensorRead& read, const uint8_t* piece, size_t row, size_t n, size_t stride) {
    auto* out = static_cast<uint8_t*>(read.destination) + row * stride;
    for (size_t i = 0; i < n; ++i) std::memcpy(out + i * stride, piece + i * read.row_bytes(), read.row_bytes());
}

Status place_floats(const TensorRead& read, const uint8_t* piece) {
    for (size_t i = 0; i < static_cast<size_t>(read.cols); ++i) {
        uint32_t bits;
        std::memcpy(&bits, piece + 4 * i, 4);
        if ((bits & 0x7f800000u) == 0x7f800000u) return not_finite(read, i);
    }
    std::memcpy(read.destination, piece, read.row_bytes());
    return {};
}

void place_sign_blocks(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    const auto block = static_cast<size_t>(kernels.sign_row_block);
    const size_t block_bytes = kernels.sign_block_bytes(read.cols);
    auto* out = static_cast<uint8_t*>(read.destination) + row / block * block_bytes;
    for (size_t i = 0; i < n; i += block, out += block_bytes) {
        kernels.sign_pack(out, piece + i * read.row_bytes(), static_cast<int>(std::min(block, n - i)), read.cols);
    }
}

Status place_scales(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    const auto groups = static_cast<size_t>(read.cols);
    const auto block = static_cast<size_t>(kernels.sign_row_block);
    auto* out = static_cast<uint16_t*>(read.destination);
    for (size_t i = 0; i < n; ++i) {
        for (size_t g = 0; g < groups; ++g) {
            uint16_t bits;
            std::memcpy(&bits, piece + (i * groups + g) * 2, 2);
            if ((bits & 0x7c00u) == 0x7c00u) return not_finite(read, (row + i) * groups + g);
            const size_t r = row + i;
            const bool rows = read.form == TensorRead::Form::group_scale_rows;
            out[rows ? r * groups + g : (r / block * groups + g) * block + r % block] = bits;
        }
    }
    return {};
}

}  // namespace

Status place_rows(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    switch (read.form) {
        case TensorRead::Form::floats:
            return place_floats(read, piece);
        case TensorRead::Form::sign_blocks:
            place_sign_blocks(kernels, read, piece, row, n);
            return {};
        case TensorRead::Form::sign_rows:
            copy_rows(read, piece, row, n, static_cast<size_t>(padded(read.cols, 16) / 8));
            return {};
        case TensorRead::Form::group_scale_rows:
        case TensorRead::Form::group_scale_blocks:
            return place_scales(kernels, read, piece, row, n);
        case TensorRead::Form::dense_rows:
            copy_rows(read, piece, row, n, static_cast<size_t>(padded(read.cols, 64)) * read.element_bytes);
            return {};
    }
    return {};
}

}  // namespace onebit
