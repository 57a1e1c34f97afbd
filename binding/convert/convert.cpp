#include "convert/convert.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "convert/blocks.h"
#include "kernels/math.h"
#include "system/pool.h"

namespace onebit {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian and are copied as they are");

const BlockFormat& format_of(SourceType type) { return kBlockFormats[static_cast<size_t>(type)]; }

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

// NaN or infinity if any is there. Magnitudes are in the order of their bits, NaNs above all, and integers have a maximum
// that compilers vectorise; in lanes, because a single one would wait for itself.
float largest_magnitude(const float* values, size_t count) {
    constexpr size_t kLanes = 16;
    int32_t lanes[kLanes] = {};
    const auto look = [&](size_t lane, float value) { lanes[lane] = std::max(lanes[lane], std::bit_cast<int32_t>(value) & 0x7fffffff); };
    const size_t whole = count / kLanes * kLanes;
    for (size_t i = 0; i < whole; i += kLanes) {
        for (size_t lane = 0; lane < kLanes; ++lane) look(lane, values[i + lane]);
    }
    for (size_t i = whole; i < count; ++i) look(0, values[i]);
    return std::bit_cast<float>(*std::max_element(lanes, lanes + kLanes));
}

// Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, without a call into libm: the sum's last bits are that
// integer. |x| is at most 127 and a little.
int8_t round_to_int8(float x) { return static_cast<int8_t>(std::bit_cast<int32_t>(x + 12582912.0f)); }

}  // namespace

bool source_type_from_name(const char* name, SourceType* out) {
    size_t i = 0;
    while (i < kBlockFormatCount && std::strcmp(name, kBlockFormats[i].name) != 0) ++i;
    if (i < kBlockFormatCount) *out = static_cast<SourceType>(i);
    return i < kBlockFormatCount;
}

size_t block_elements(SourceType type) { return format_of(type).elements; }
size_t block_bytes(SourceType type) { return format_of(type).bytes; }

void decode_rows(SourceType type, const uint8_t* source, size_t rows, size_t cols, float* out) {
    const DefaultFloats floats;
    const size_t count = rows * cols;
    const BlockFormat& format = format_of(type);
    switch (type) {
        case SourceType::f32: std::memcpy(out, source, count * sizeof(float)); break;
        case SourceType::f16:
            for (size_t i = 0; i < count; ++i) out[i] = load_f16(source + 2 * i);
            break;
        case SourceType::bf16:
            for (size_t i = 0; i < count; ++i) out[i] = load_bf16(source + 2 * i);
            break;
        default:
            for (size_t i = 0; i < count / format.elements; ++i) format.decode(source + i * format.bytes, out + i * format.elements);
    }
}

Status rows_to_f32(SourceType type, const uint8_t* source, size_t rows, size_t cols, float* out) {
    decode_rows(type, source, rows, cols, out);
    return check_finite(out, rows * cols, cols);
}

Status rows_to_f16(const float* rows, size_t n_rows, size_t cols, uint8_t* out) {
    return rows_to_16(rows, n_rows, cols, out, 0x7c00, "f16", f16_from_f32);
}

Status rows_to_bf16(const float* rows, size_t n_rows, size_t cols, uint8_t* out) {
    return rows_to_16(rows, n_rows, cols, out, 0x7f80, "bf16", bf16_from_f32);
}

Status rows_to_q8(const float* rows, size_t n_rows, size_t cols, int8_t* out, float* scales) {
    const DefaultFloats floats;
    for (size_t r = 0; r < n_rows; ++r) {
        const float* row = rows + r * cols;
        const float largest = largest_magnitude(row, cols);
        if (!std::isfinite(largest)) return check_finite(rows, n_rows * cols, cols);
        // A row this small has no scale whose inverse is finite, and nothing a sum would notice: it becomes zero.
        const bool zero = largest < 1e-36f;
        scales[r] = zero ? 0.0f : largest / 127.0f;
        const float inverse = zero ? 0.0f : 127.0f / largest;
        for (size_t c = 0; c < cols; ++c) {
            out[r * cols + c] = round_to_int8(row[c] * inverse);
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

namespace {

// `count` codes, whose places are counted from element `first` on, four to a byte.
Status pack_codes(const uint8_t* codes, size_t count, size_t first, size_t cols, uint8_t* out) {
    uint8_t threes = 0;
    for (size_t i = 0; i < count; ++i) threes = static_cast<uint8_t>(threes | (codes[i] & codes[i] >> 1));
    if (threes != 0) {
        const size_t at = first + static_cast<size_t>(std::find(codes, codes + count, 3) - codes);
        return error("ERR_TERNARY_CODE", "row " + std::to_string(at / cols) + ", column " + std::to_string(at % cols) +
                                             " has the code 3, which stands for no weight of -1, 0 or 1");
    }
    size_t i = 0;
    for (; i + 8 <= count; i += 8, out += 2) {
        uint64_t eight;
        std::memcpy(&eight, codes + i, sizeof eight);
        eight = (eight | eight >> 6) & 0x000f000f000f000fu;
        eight |= eight >> 12;
        out[0] = static_cast<uint8_t>(eight);
        out[1] = static_cast<uint8_t>(eight >> 32);
    }
    for (; i < count; i += 4) *out++ = static_cast<uint8_t>(codes[i] | codes[i + 1] << 2 | codes[i + 2] << 4 | codes[i + 3] << 6);
    return {};
}

}  // namespace

bool is_ternary(SourceType type) { return format_of(type).codes != nullptr; }

Status split_ternary(SourceType type, const uint8_t* source, size_t n_rows, size_t cols, uint8_t* codes, uint8_t* scale) {
    const BlockFormat& format = format_of(type);
    uint8_t found[256];
    for (size_t i = 0; i < n_rows * cols / format.elements; ++i, source += format.bytes) {
        const size_t first = i * format.elements;
        const uint16_t d = load_u16(source + format.scale_at);
        if ((d & 0x7c00) == 0x7c00) return bad_value(first, cols, " has a scale that is not finite");
        std::memcpy(scale + i * 2, &d, sizeof d);
        format.codes(source, found);
        if (Status status = pack_codes(found, format.elements, first, cols, codes + first / 4); !status.ok()) return status;
    }
    return {};
}

Status gather_codes(const uint8_t* source, int shift, size_t n_rows, size_t cols, uint8_t* codes) {
    std::vector<uint8_t> row(cols);
    for (size_t r = 0; r < n_rows; ++r) {
        for (size_t c = 0; c < cols; ++c) row[c] = static_cast<uint8_t>(source[r * cols + c] >> shift & 3);
        if (Status status = pack_codes(row.data(), cols, r * cols, cols, codes + r * cols / 4); !status.ok()) return status;
    }
    return {};
}

Status i2_s_codes(const uint8_t* source, size_t first, size_t n_rows, size_t cols, uint8_t* codes) {
    std::vector<uint8_t> row(cols);
    for (size_t r = 0; r < n_rows; ++r) {
        for (size_t c = 0; c < cols; ++c) {
            const size_t i = first + r * cols + c, within = i % 128;
            row[c] = static_cast<uint8_t>(source[i / 128 * 32 + within % 32] >> (6 - within / 32 * 2) & 3);
        }
        if (Status status = pack_codes(row.data(), cols, r * cols, cols, codes + r * cols / 4); !status.ok()) return status;
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
