// Sums of 32 bits for ternary_codes.inl, one a row: they hold any number of columns, so one that begins with its offset
// is the total.
using TernarySum = Ints;
constexpr int kTernaryOnce = kWholeRows, kTernaryMany = kWholeRows;
inline TernarySum ternary_zero() { return ints_zero(); }
inline Ints ternary_total(TernarySum sum) { return sum; }
inline TernarySum ternary_begin(int32_t offset) { return ints_all(offset); }
inline Ints ternary_end(TernarySum sum, int32_t) { return sum; }
