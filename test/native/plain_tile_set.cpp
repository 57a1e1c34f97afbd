#include "plain_tile_set.h"

#include <math.h>
#include <string.h>

#include "kernels/math.h"
#include "kernels/sets.h"
#include "kernels/tiles.h"

namespace onebit {
namespace {

#include "kernels/unrolled.inl"

struct Ints {
    int32_t at[16];
};
struct Floats {
    float at[16];
};

template <class V, class F>
V each(F f) {
    V v;
    for (int i = 0; i < 16; i++) v.at[i] = f(i);
    return v;
}

Ints ints_load(const int32_t* p) {
    return each<Ints>([&](int i) { return p[i]; });
}
Floats floats_zero() { return {}; }
Floats floats_load(const float* p) {
    return each<Floats>([&](int i) { return p[i]; });
}
void floats_store(float* p, const Floats& v) { memcpy(p, v.at, sizeof v.at); }
Floats floats_from_ints(const Ints& v) {
    return each<Floats>([&](int i) { return static_cast<float>(v.at[i]); });
}
Floats floats_from_f16(const uint16_t* p) {
    return each<Floats>([&](int i) { return f32_from_f16(p[i]); });
}
Floats floats_fma(const Floats& a, const Floats& b, const Floats& c) {
    return each<Floats>([&](int i) { return fmaf(a.at[i], b.at[i], c.at[i]); });
}

// Where row r of a block lies in its 64 bytes (byte_of_row in lookup_signs.inl).
int byte_of_row(int r) { return r / 4 % 4 * 16 + (r / 16 % 2 * 4 + r % 4) * 2 + r / 32; }

template <int N>
void spread_signs(int8_t* to, const uint8_t* from, int half) {
    for (int r = 0; r < 16 * N; r++) {
        for (int c = 0; c < 32; c++) {
            const uint8_t byte = from[c / 8 * 64 + byte_of_row(N == 2 ? half * 32 + r : r)];
            to[r / 16 * 1024 + c % 8 * 64 + r % 16 * 4 + c / 8] = (byte >> c % 8 & 1) != 0 ? -1 : 1;
        }
    }
}

void spread_codes(int8_t* to, const uint8_t* from) {
    for (int i = 0; i < 256; i++) to[i] = static_cast<int8_t>((from[i % 64] >> i / 64 * 2 & 3) - 1);
}

void spread_bytes(int8_t* to, const int8_t* rows, size_t stride, int last) {
    for (int r = 0; r < 16; r++) {
        for (int c = 0; c < 64; c++) to[c / 4 * 64 + r * 4 + c % 4] = rows[static_cast<size_t>(r < last ? r : last) * stride + static_cast<size_t>(c)];
    }
}

void order_columns(uint8_t* to, const int8_t* q) {
    for (int c = 0; c < 64; c++) to[c / 32 * 32 + c % 8 * 4 + c % 32 / 8] = static_cast<uint8_t>(q[c]);
}

const KernelSet& fewer() { return row_kernels(); }

#include "kernels/plain_tiles.inl"
using Tiles = PlainTiles;
#include "kernels/tile_products.inl"

}  // namespace
}  // namespace onebit

const onebit::KernelSet* check::plain_tile_set() {
    static const onebit::KernelSet set = with_tiles(onebit::row_kernels(), onebit::tile_products("plain tiles", nullptr));
    return set.sign_row_block == 64 ? &set : nullptr;
}
