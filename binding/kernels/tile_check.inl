// Whether the processor's tiles do what plain ones do, for every number of lines. Included inside the anonymous namespace of a set
// with tiles, after tile_products.inl.

// What all operations make of some bytes: sums that are loaded, added to and stored.
template <class AnyTiles>
ONEBIT_INLINE void exercise(AnyTiles& tiles, int first, int second, const int8_t* bytes, int32_t* out) {
    constexpr size_t kStride = 80;  // no whole number of lines
    tiles.configure(first, second);
    tiles.template load<4>(bytes, kStride);
    tiles.template load<5>(bytes + 7, kStride);
    tiles.template load<6>(bytes + 13, kStride);
    tiles.template load<7>(bytes + 29, kStride);
    tiles.template zero<0>();
    tiles.template load<1>(bytes + 31, kStride);
    tiles.template load<2>(bytes + 64, kStride);
    tiles.template zero<3>();
    tiles.template dot<0, 4, 6>();
    tiles.template dot<1, 4, 7>();
    tiles.template dot<2, 5, 6>();
    tiles.template dot<3, 5, 7>();
    tiles.template dot<0, 4, 7>();
    tiles.template store<0>(out, 64);
    tiles.template store<1>(out + 256, 64);
    tiles.template store<2>(out + 512, 64);
    tiles.template store<3>(out + 768, 64);
    tiles.release();
}

bool as_plain() {
    int8_t bytes[1 << 11];
    uint32_t word = 1;
    for (int8_t& byte : bytes) {
        word = word * 1664525u + 1013904223u;
        byte = static_cast<int8_t>(word >> 24);
    }
    for (int first = 1; first <= kTileLines; first++) {
        for (int second = 1; second <= kTileLines; second++) {
            int32_t found[kSums] = {}, wanted[kSums] = {};
            Tiles tiles;
            PlainTiles plain;
            exercise(tiles, first, second, bytes, found);
            exercise(plain, first, second, bytes, wanted);
            if (memcmp(found, wanted, sizeof found) != 0) return false;
        }
    }
    return true;
}
