// CRC-32C eight bytes at a time with eight tables ("slicing by 8"), for processors without an instruction for it.
// Included inside the set's anonymous namespace.

struct CrcTables {
    uint32_t t[8][256];
};

constexpr CrcTables make_crc_tables() {
    CrcTables tables{};
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1u) ? 0x82f63b78u : 0u);  // the polynomial, reflected
        tables.t[0][i] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int i = 0; i < 256; i++) {
            const uint32_t before = tables.t[k - 1][i];
            tables.t[k][i] = (before >> 8) ^ tables.t[0][before & 0xffu];
        }
    }
    return tables;
}

constexpr CrcTables kCrcTables = make_crc_tables();

uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t n) {
    const auto& t = kCrcTables.t;
    crc = ~crc;
    for (; n >= 8; n -= 8, data += 8) {
        const uint32_t low =
            crc ^ (data[0] | uint32_t{data[1]} << 8 | uint32_t{data[2]} << 16 | uint32_t{data[3]} << 24);
        crc = t[7][low & 0xffu] ^ t[6][low >> 8 & 0xffu] ^ t[5][low >> 16 & 0xffu] ^ t[4][low >> 24] ^ t[3][data[4]] ^
              t[2][data[5]] ^ t[1][data[6]] ^ t[0][data[7]];
    }
    for (; n > 0; n--, data++) crc = (crc >> 8) ^ t[0][(crc ^ *data) & 0xffu];
    return ~crc;
}
