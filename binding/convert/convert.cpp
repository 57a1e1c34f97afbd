#include "convert/convert.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "kernels/math.h"
#include "system/pool.h"

namespace onebit {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian and are copied as they are");

struct Format {
    const char* name;
    size_t elements, bytes;
};

constexpr Format kFormats[] = {{"f32", 1, 4},    {"f16", 1, 2},    {"bf16", 1, 2},   {"q8_0", 32, 34},
                               {"q4_0", 32, 18}, {"q4_1", 32, 20}, {"q1_0", 128, 18}};

const Format& format_of(SourceType type) { return kFormats[static_cast<size_t>(type)]; }

uint16_t load_u16(const uint8_t* at) {
    uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);  // sources are not aligned
    return bits;
}

// f32_from_f16 in a form without branches, which compilers vectorise: shifted into place, a half is its value times
// 2^-112, subnormal or not. Exact, because the product is by a power of two.
float load_f16(const uint8_t* at) {
    const uint32_t half = load_u16(at);
    const float magnitude = std::bit_cast<float>((half & 0x7fffu) << 13) * 0x1p112f;
    const uint32_t special = (half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | special | (half & 0x8000u) << 16);
}

float load_bf16(const uint8_t* at) { return std::bit_cast<float>(static_cast<uint32_t>(load_u16(at)) << 16); }

void q8_0_block(const uint8_t* block, float* out) {
    const float d = load_f16(block);
    for (size_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

// Low nibbles are elements 0..15, high nibbles 16..31.
void q4_0_block(const uint8_t* block, float* out) {
    const float d = load_f16(block);
    for (size_t i = 0; i < 16; ++i) {
        out[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
        out[16 + i] = d * static_cast<float>((block[2 + i] >> 4) - 8);
    }
}

void q4_1_block(const uint8_t* block, float* out) {
    const float d = load_f16(block), m = load_f16(block + 2);
    for (size_t i = 0; i < 16; ++i) {
        out[i] = d * static_cast<float>(block[4 + i] & 15) + m;
        out[16 + i] = d * static_cast<float>(block[4 + i] >> 4) + m;
    }
}

void q1_0_block(const uint8_t* block, float* out) {
    const float d = load_f16(block);
    for (size_t i = 0; i < 128; ++i) out[i] = ((block[2 + i / 8] >> (i % 8)) & 1) != 0 ? d : -d;
}

Status bad_value(size_t index, size_t cols, const std::string& what) {
    return error("ERR_NOT_FINITE", "row " + std::to_string(index / cols) + ", column " + std::to_string(index % cols) + what);
}

Status check_finite(const float* values, size_t count, size_t cols) {
    const size_t i = first_not_finite(values, count);
    return i == count ? Status{} : bad_value(i, cols, std::isnan(values[i]) ? " is NaN" : " is infinite");
}

// 16-bit forms: an exponent of all ones after rounding means that the value did not fit.
template <class Convert>
Status rows_to_16(const float* rows, size_t n_rows, size_t cols, uint8_t* out, uint16_t exponent, const char* format,
                  Convert convert) {
    const DefaultFloats floats;
    const size_t count = n_rows * cols;
    if (Status status = check_finite(rows, count, cols); !status.ok()) return status;
    for (size_t i = 0; i < count; ++i) {
        const uint16_t bits = convert(rows[i]);
        if ((bits & exponent) == exponent) {
            return bad_value(i, cols, ": " + std::to_string(rows[i]) + " is above what " + format + " can hold");
        }
        std::memcpy(out + 2 * i, &bits, sizeof bits);
    }
    return {};
}

// Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even, without a call into libm.
float round_to_integer(float x) { return (x + 12582912.0f) - 12582912.0f; }

}  // namespace

bool source_type_from_name(const char* name, SourceType* out) {
    size_t i = 0;
    while (i < std::size(kFormats) && std::strcmp(name, kFormats[i].name) != 0) ++i;
    if (i < std::size(kFormats)) *out = static_cast<SourceType>(i);
    return i < std::size(kFormats);
}

size_t block_elements(SourceType type) { return format_of(type).elements; }
size_t block_bytes(SourceType type) { return format_of(type).bytes; }

Status rows_to_f32(SourceType type, const uint8_t* source, size_t rows, size_t cols, float* out) {
    const DefaultFloats floats;
    const size_t count = rows * cols;
    const Format& format = format_of(type);
    const auto decode = [&](auto block) {
        for (size_t i = 0; i < count / format.elements; ++i) block(source + i * format.bytes, out + i * format.elements);
    };
    switch (type) {
        case SourceType::f32: std::memcpy(out, source, count * sizeof(float)); break;
        case SourceType::f16: decode([](const uint8_t* at, float* to) { *to = load_f16(at); }); break;
        case SourceType::bf16: decode([](const uint8_t* at, float* to) { *to = load_bf16(at); }); break;
        case SourceType::q8_0: decode(q8_0_block); break;
        case SourceType::q4_0: decode(q4_0_block); break;
        case SourceType::q4_1: decode(q4_1_block); break;
        case SourceType::q1_0: decode(q1_0_block); break;
    }
    return check_finite(out, count, cols);
}

Status rows_to_f16(const float* rows, size_t n_rows, size_t cols, uint8_t* out) {
    return rows_to_16(rows, n_rows, cols, out, 0x7c00, "f16", f16_from_f32);
}

Status rows_to_bf16(const float* rows, size_t n_rows, size_t cols, uint8_t* out) {
    return rows_to_16(rows, n_rows, cols, out, 0x7f80, "bf16", bf16_from_f32);
}

Status rows_to_q8(const float* rows, size_t n_rows, size_t cols, int8_t* out, float* scales) {
    const DefaultFloats floats;
    if (Status status = check_finite(rows, n_rows * cols, cols); !status.ok()) return status;
    for (size_t r = 0; r < n_rows; ++r) {
        const float* row = rows + r * cols;
        float largest = 0;
        for (size_t c = 0; c < cols; ++c) largest = std::fabs(row[c]) > largest ? std::fabs(row[c]) : largest;
        // A row this small has no scale whose inverse is finite, and nothing a sum would notice: it becomes zero.
        const bool zero = largest < 1e-36f;
        scales[r] = zero ? 0.0f : largest / 127.0f;
        const float inverse = zero ? 0.0f : 127.0f / largest;
        for (size_t c = 0; c < cols; ++c) {
            out[r * cols + c] = static_cast<int8_t>(round_to_integer(row[c] * inverse));
        }
    }
    return {};
}

Status pack_signs(const float* rows, size_t n_rows, size_t cols, uint8_t* out) {
    const DefaultFloats floats;
    const size_t count = n_rows * cols;
    if (Status status = check_finite(rows, count, cols); !status.ok()) return status;
    for (size_t byte = 0; byte < count / 8; ++byte) {
        uint32_t bits = 0;
        // A comparison, not the sign bit: -0 counts as positive, as in the official packer.
        for (size_t k = 0; k < 8; ++k) bits |= static_cast<uint32_t>(rows[byte * 8 + k] < 0) << k;
        out[byte] = static_cast<uint8_t>(bits);
    }
    return {};
}

Status split_q1_0(const uint8_t* source, size_t n_rows, size_t cols, uint8_t* sign, uint8_t* scale) {
    const size_t blocks = n_rows * cols / 128;
    for (size_t i = 0; i < blocks; ++i) {
        const uint8_t* block = source + i * 18;
        uint16_t d = load_u16(block);
        if ((d & 0x7c00) == 0x7c00) return bad_value(i * 128, cols, " has a scale that is not finite");
        const uint8_t flip = (d & 0x8000) != 0 ? 0x00 : 0xff;
        d = static_cast<uint16_t>(d & 0x7fff);
        for (size_t k = 0; k < 16; ++k) sign[i * 16 + k] = static_cast<uint8_t>(block[2 + k] ^ flip);
        std::memcpy(scale + i * 2, &d, sizeof d);
    }
    return {};
}

}  // namespace onebit
