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

Status code_three(const TensorRead& read, size_t row) {
    return error("ERR_TERNARY_CODE", "Tensor " + read.name + " holds the code 3 in row " + std::to_string(row) +
                                         ", which stands for no weight of -1, 0 or 1; the file is damaged, or its codes are laid out in another way.");
}

// (cols / 4) bytes, padded to words of 16 codes with zeros.
uint32_t sixteen_codes(const uint8_t* row, size_t row_bytes, size_t at) {
    uint32_t codes = 0;
    std::memcpy(&codes, row + at, std::min(sizeof codes, row_bytes - at));
    return codes;
}

bool has_three(uint32_t codes) { return (codes & codes >> 1 & 0x55555555u) != 0; }

// The code of column 4 i + j goes from bits 2 j of byte i to bits 2 i of byte j: a matrix of 4 x 4 pairs of bits, transposed.
uint32_t transposed(uint32_t codes) {
    uint32_t change = (codes ^ codes >> 6) & 0x00cc00ccu;
    codes ^= change ^ change << 6;
    change = (codes ^ codes >> 12) & 0x0000f0f0u;
    return codes ^ change ^ change << 12;
}

// Every word of 16 codes of the rows, checked; word number i of row r goes to at(r, i).
template <class Form, class At>
Status place_codes(const TensorRead& read, const uint8_t* piece, size_t row, size_t n, const Form& form, const At& at) {
    auto* out = static_cast<uint8_t*>(read.destination);
    for (size_t r = row; r < row + n; ++r, piece += read.row_bytes) {
        for (size_t byte = 0; byte < read.row_bytes; byte += 4) {
            uint32_t codes = sixteen_codes(piece, read.row_bytes, byte);
            if (has_three(codes)) return code_three(read, r);
            codes = form(codes);
            std::memcpy(out + at(r, byte / 4), &codes, sizeof codes);
        }
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

Status place_scales(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    const auto groups = static_cast<size_t>(read.cols), block = static_cast<size_t>(read.block_rows);
    auto* out = static_cast<uint16_t*>(read.destination);
    for (size_t i = 0; i < n * groups; ++i) {
        uint16_t bits;
        std::memcpy(&bits, piece + i * 2, 2);
        if ((bits & 0x7c00u) == 0x7c00u) return not_finite(read, row * groups + i);
        const size_t r = row + i / groups;
        out[(r / block * groups + i % groups) * block + r % block] = bits;
    }
    return {};
}

Status place_ternary_rows(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    return place_codes(read, piece, row, n, [](uint32_t codes) { return codes; }, [&](size_t r, size_t i) { return r * read.stride + i * 4; });
}

Status place_ternary_blocks(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    constexpr size_t block = kTernaryRows;
    return place_codes(read, piece, row, n, transposed,
                       [&](size_t r, size_t i) { return r / block * block * read.stride + (i * block + r % block) * 4; });
}

}  // namespace onebit
