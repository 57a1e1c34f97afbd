// Sums of 16 bits for ternary_codes.inl, two a row. Included after TernarySum, ternary_zero and ternary_total.
//
// Two products of codes up to 2 are at most 508 either way, those of codes times 4 four times as much.
constexpr int kTernaryFree = 2, kTernaryOnce = 128, kTernaryMany = 256;
inline TernarySum ternary_begin(int32_t) { return ternary_zero(); }
inline Ints ternary_end(TernarySum sum, int32_t offset) { return ints_add(ternary_total(sum), ints_all(offset)); }
