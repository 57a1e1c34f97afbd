// CRC-32C with the processor's instruction, crc_of_u64(crc, 8 bytes) and crc_of_u8 coming from the set. The
// instruction takes 3 cycles and one can start in each, so long inputs are cut into three streams whose checksums are
// joined afterwards. Included inside the set's anonymous namespace.

constexpr size_t kCrcStream = 4096;  // bytes of each of the three streams

// What appending kCrcStream zero bytes does to a checksum, as a 32 x 32 matrix over GF(2): column i is the image of bit
// i.
struct CrcShift {
    uint32_t column[32];
};

constexpr uint32_t apply_shift(const CrcShift& shift, uint32_t crc) {
    uint32_t result = 0;
    for (int i = 0; i < 32; i++) result ^= shift.column[i] & (0u - (crc >> i & 1u));
    return result;
}

constexpr CrcShift make_crc_shift() {
    CrcShift shift{};
    for (int i = 0; i < 32; i++) {  // one zero bit
        const uint32_t crc = 1u << i;
        shift.column[i] = (crc >> 1) ^ ((crc & 1u) ? 0x82f63b78u : 0u);
    }
    for (size_t bits = 1; bits < kCrcStream * 8; bits *= 2) {
        CrcShift twice{};
        for (int i = 0; i < 32; i++) twice.column[i] = apply_shift(shift, shift.column[i]);
        shift = twice;
    }
    return shift;
}

constexpr CrcShift kCrcShift = make_crc_shift();

inline uint64_t load_u64(const uint8_t* p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t n) {
    crc = ~crc;
    for (; n >= 3 * kCrcStream; n -= 3 * kCrcStream, data += 3 * kCrcStream) {
        uint32_t first = crc, second = 0, third = 0;
        for (size_t i = 0; i < kCrcStream; i += 8) {
            first = crc_of_u64(first, load_u64(data + i));
            second = crc_of_u64(second, load_u64(data + kCrcStream + i));
            third = crc_of_u64(third, load_u64(data + 2 * kCrcStream + i));
        }
        crc = apply_shift(kCrcShift, apply_shift(kCrcShift, first) ^ second) ^ third;
    }
    for (; n >= 8; n -= 8, data += 8) crc = crc_of_u64(crc, load_u64(data));
    for (; n > 0; n--, data++) crc = crc_of_u8(crc, *data);
    return ~crc;
}
