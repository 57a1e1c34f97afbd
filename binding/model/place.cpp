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

// 16 codes are a word; the last of a row is padded with zeros.
constexpr size_t kWord = sizeof(uint32_t);

uint32_t word_of(const uint8_t* bytes, size_t count = kWord) {
    uint32_t codes = 0;
    std::memcpy(&codes, bytes, count);
    return codes;
}

// Of each code that is 3 one bit.
uint32_t threes(uint32_t codes) { return codes & codes >> 1 & 0x55555555u; }

// ERR_TERNARY_CODE for the first row that holds a 3.
Status check_codes(const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    const size_t whole = read.row_bytes / kWord * kWord;
    for (size_t r = row; r < row + n; ++r, piece += read.row_bytes) {
        uint32_t found = whole < read.row_bytes ? threes(word_of(piece + whole, read.row_bytes - whole)) : 0;
        for (size_t at = 0; at < whole; at += kWord) found |= threes(word_of(piece + at));
        if (found != 0) return code_three(read, r);
    }
    return {};
}

// The code of column 4 i + j goes from bits 2 j of byte i to bits 2 i of byte j: a matrix of 4 x 4 pairs of bits, transposed.
uint32_t transposed(uint32_t codes) {
    uint32_t change = (codes ^ codes >> 6) & 0x00cc00ccu;
    codes ^= change ^ change << 6;
    change = (codes ^ codes >> 12) & 0x0000f0f0u;
    return codes ^ change ^ change << 12;
}

// Word number i of all rows of a block lies together. `count` bytes of each of so many rows, from `from` on, to their places.
inline void place_words(uint8_t* to, const uint8_t* from, size_t row_bytes, size_t rows, size_t count) {
    uint32_t codes[kTernaryRows];
    for (size_t r = 0; r < rows; ++r) codes[r] = word_of(from + r * row_bytes, count);
    for (size_t r = 0; r < rows; ++r) codes[r] = transposed(codes[r]);
    std::memcpy(to, codes, rows * kWord);
}

// `rows` is a constant where the block is whole: then the compiler takes all rows at once.
inline void place_block(uint8_t* to, const uint8_t* from, size_t row_bytes, size_t rows) {
    const size_t whole = row_bytes / kWord * kWord;
    for (size_t at = 0; at < whole; at += kWord) place_words(to + at * kTernaryRows, from + at, row_bytes, rows, kWord);
    if (whole < row_bytes) place_words(to + whole * kTernaryRows, from + whole, row_bytes, rows, row_bytes - whole);
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

Status place_widened(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    const auto cols = static_cast<size_t>(read.cols);
    for (size_t r = row; r < row + n; ++r, piece += read.row_bytes) {
        auto* out = reinterpret_cast<float*>(static_cast<uint8_t*>(read.destination) + r * read.stride);
        kernels.f16_to_f32(out, reinterpret_cast<const uint16_t*>(piece), read.cols);
        if (const size_t i = first_not_finite(out, cols); i < cols) return not_finite(read, r * cols + i);
    }
    return {};
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

Status place_ternary_rows(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    if (Status status = check_codes(read, piece, row, n); !status.ok()) return status;
    return place_copied(kernels, read, piece, row, n);
}

Status place_ternary_blocks(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n) {
    if (Status status = check_codes(read, piece, row, n); !status.ok()) return status;
    constexpr size_t block = kTernaryRows;
    auto* out = static_cast<uint8_t*>(read.destination);
    for (size_t r = row, end = row + n; r < end;) {
        const size_t within = r % block, rows = std::min(block - within, end - r);
        uint8_t* to = out + (r - within) * read.stride + within * kWord;
        const uint8_t* from = piece + (r - row) * read.row_bytes;
        if (rows == block) {
            place_block(to, from, read.row_bytes, block);
        } else {
            place_block(to, from, read.row_bytes, rows);
        }
        r += rows;
    }
    return {};
}

}  // namespace onebit
