// The fast Walsh-Hadamard transform of rows in blocks, written once over Lanes. Included after lanes_rows.inl.
//
// The stages h = 1, 2, 4, 8 stay inside a vector (lanes_butterfly of the set's *_vectors.inl), all others add and subtract
// whole vectors. As many of those as registers allow are done on the way from one load to its store, kHadamardStages: a
// block of 4096 passes through memory two times with 32 registers of 512 bits, four times with 16 of 256.

// x with the signs of elements i.. turned: 16 bits are there even where the row ends sooner.
template <class P>
inline Lanes load_signed(const float* x, const uint8_t* signs, int i, P part) {
    const Lanes v = load(x + i, part);
    return signs ? lanes_flip(v, static_cast<uint32_t>(signs[i / 8]) | static_cast<uint32_t>(signs[i / 8 + 1]) << 8) : v;
}

// Blocks of 2, 4, 8 or 16: a vector holds whole ones, and so does the last part of a row.
template <int Block>
inline void hadamard_small(float* out, const float* x, const uint8_t* signs, int n, Lanes scale) {
    by_lanes(n, [=](int i, auto part) {
        Lanes v = lanes_butterfly<1>(load_signed(x, signs, i, part));
        if constexpr (Block >= 4) v = lanes_butterfly<2>(v);
        if constexpr (Block >= 8) v = lanes_butterfly<4>(v);
        if constexpr (Block >= 16) v = lanes_butterfly<8>(v);
        store(out + i, lanes_mul(v, scale), part);
    });
}

// The stages h, 2 h, ..., 2^(Stages - 1) h of whole vectors. First: h is 16, the stages inside vectors come before, and x is
// read with its signs. Last: what comes out is scaled.
template <int Stages, bool First, bool Last>
ONEBIT_INLINE void hadamard_stages(float* out, const float* x, const uint8_t* signs, int n, int h, Lanes scale) {
    constexpr int kVectors = 1 << Stages;
    for (int base = 0; base < n; base += h * kVectors) {
        for (int i = base; i < base + h; i += 16) {
            Lanes v[kVectors];
            unrolled<kVectors>([&](auto r) ONEBIT_INLINE_LAMBDA {
                if constexpr (First) {
                    v[r] = lanes_butterfly<1>(load_signed(x, signs, i + r * h, Whole{}));
                    v[r] = lanes_butterfly<8>(lanes_butterfly<4>(lanes_butterfly<2>(v[r])));
                } else {
                    v[r] = lanes_load(x + i + r * h);
                }
            });
            unrolled<Stages>([&](auto stage) ONEBIT_INLINE_LAMBDA {
                constexpr int kApart = 1 << decltype(stage)::value;
                unrolled<kVectors>([&](auto r) ONEBIT_INLINE_LAMBDA {
                    constexpr int kFirst = decltype(r)::value;
                    if constexpr ((kFirst & kApart) == 0) {
                        const Lanes a = v[kFirst], b = v[kFirst + kApart];
                        v[kFirst] = lanes_add(a, b);
                        v[kFirst + kApart] = lanes_sub(a, b);
                    }
                });
            });
            unrolled<kVectors>([&](auto r) ONEBIT_INLINE_LAMBDA {
                lanes_store(out + i + r * h, Last ? lanes_mul(v[r], scale) : v[r]);
            });
        }
    }
}

// The same with as many stages as are left, kHadamardStages at most.
template <int Most, bool First>
inline void hadamard_pass(float* out, const float* x, const uint8_t* signs, int n, int h, int block, Lanes scale) {
    if constexpr (Most > 1) {
        if (h << (Most - 1) >= block) return hadamard_pass<Most - 1, First>(out, x, signs, n, h, block, scale);
    }
    if (h << Most == block) hadamard_stages<Most, First, true>(out, x, signs, n, h, scale);
    else hadamard_stages<Most, First, false>(out, x, signs, n, h, scale);
}

void hadamard(float* out, const float* x, const uint8_t* signs, int n, int block) {
    const Lanes scale = lanes_all(1.0f / sqrtf(static_cast<float>(block)));
    switch (block) {
        case 2: return hadamard_small<2>(out, x, signs, n, scale);
        case 4: return hadamard_small<4>(out, x, signs, n, scale);
        case 8: return hadamard_small<8>(out, x, signs, n, scale);
        case 16: return hadamard_small<16>(out, x, signs, n, scale);
        default: break;
    }
    // Block by block, so that what one pass leaves is still in the cache when the next reads it.
    for (int at = 0; at < n; at += block) {
        hadamard_pass<kHadamardStages, true>(out + at, x + at, signs ? signs + at / 8 : nullptr, block, 16, block, scale);
        for (int h = 16 << kHadamardStages; h < block; h <<= kHadamardStages) {
            hadamard_pass<kHadamardStages, false>(out + at, out + at, nullptr, block, h, block, scale);
        }
    }
}
