// The contract between the forward pass and the arithmetic.
//
// A kernel is a plain function; a kernel set is a plain struct of function pointers, one struct per
// instruction set; dispatch.cpp is the only place that chooses between them. Every set gives the same
// bytes for the same arguments: integer sums are exact, and every float kernel adds in the order that is
// written here ("lanes16", if nothing else is said), with a fused multiply-add exactly where it is written here.
//
// lanes16: element i of a sum belongs to virtual lane i % 16; each lane adds its elements in ascending
// order starting from +0; the 16 lanes are then added as a tree: l += l+8, l += l+4, l += l+2, l += l+1.
//
// Padding rules (they keep tails out of the hot loops):
//   - "padded(n, m)" is n rounded up to a multiple of m.
//   - Every float activation row has padded(n, 16) elements, the padding being zero.
//   - Every int8 activation row has padded(n, 64) elements, the padding being zero.
//   - Dense weight rows have padded(cols, 64) elements, the padding being zero.
//   - Nothing is read or written beyond those paddings; no pointer needs more than the alignment of its type.
//   - The kernels for one row read and write exactly n elements (quantize alone also writes its padding), so that
//     threads may share a row; the padding of an output row stays as its owner made it.
// "The same bytes" leaves out the sign and payload of a NaN produced by arithmetic: a NaN is a NaN.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onebit {

constexpr int64_t padded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

enum class DType : uint8_t { f32, f16, bf16, q8 };
constexpr size_t element_bytes(DType dtype) { return dtype == DType::f32 ? 4 : dtype == DType::q8 ? 1 : 2; }

// Keys lie in blocks of this many positions, so that scores have positions as lanes.
constexpr int kKeyBlock = 16;

// The cache of a session grows in chunks of this many positions: all layers and heads of the first, then of the second, ...
constexpr int kKvChunk = 256;

// K and V of one layer and one KV head, from its first chunk on. What lies behind the last filled position of a block of keys
// may be anything.
struct KvHead {
    const void* k;  // in each chunk: (kKvChunk / kKeyBlock, head_dim, kKeyBlock)
    const void* v;  // (kKvChunk, head_dim)
    DType dtype;    // f16, f32 or q8
    size_t chunk_stride;             // bytes from a chunk to the next
    const float* k_scale = nullptr;  // q8: (kKvChunk), k = int8 * k_scale[position]
    const float* v_scale = nullptr;
    size_t scale_stride = 0;         // bytes from the scales of a chunk to those of the next
};

// One query head of one token. Its positions are [first, n_positions), at least one.
struct AttendQuery {
    const float* q;  // (head_dim)
    float* out;      // (head_dim), apart from every other query's
    int first, n_positions;
    float inverse = 0;  // for the kernel's own use
};

// At most this many tokens go through the delta rule in one call.
constexpr int kMostDeltaSteps = 32;

// Consecutive tokens of one head for the delta rule; q and k lie k_stride floats apart, v and out v_stride.
struct DeltaSteps {
    int count;  // 1 .. kMostDeltaSteps
    const float *q, *k;  // (count, k_dim)
    const float* v;      // (count, padded(v_dim, 16)), the padding being zero
    size_t k_stride, v_stride;
    const float *decay, *beta;  // (count)
    float* out;          // as v
};

// What a feed-forward does to each element of its inner vector.
enum class Activation : uint8_t { silu, relu, relu2, gelu, gelu_tanh };

// Packed signs: `count` blocks, `stride` bytes from one to the next. A tile of columns from c on, c being a multiple of 64,
// begins at bits + sign_block_bytes(c), with the same stride.
struct SignBlocks {
    const uint8_t* bits;
    size_t stride;
    int count;
};

// Ternary matrices lie in blocks of this many rows, the same on every path: for each 16 columns from c on, 4 bytes of every
// row, of which byte k holds the columns c + k, c + 4 + k, c + 8 + k and c + 12 + k, two bits each from the lowest on. A code
// is the weight + 1; 3 does not occur. So a vector of bytes, shifted by 2 j bits, has four neighbouring columns of some rows,
// which is what instructions for products of bytes add up.
constexpr int kTernaryRows = 16;
constexpr size_t ternary_row_bytes(int cols) { return static_cast<size_t>(padded(cols, 16)) / 4; }

// Some blocks. A group of columns has one f16 scale a row: scales (blocks, cols / group, kTernaryRows); group 0: none.
struct TernaryBlocks {
    const uint8_t* codes;
    const uint16_t* scales;
    int count, cols, group;  // group: 0, or 64, 128 or 256, of which cols is a multiple
};

// Rounded activations of consecutive tokens, with what their products with codes are off by (code_offsets).
struct RoundedTokens {
    const int8_t* q;  // rows q_stride apart
    size_t q_stride;
    const int32_t* offsets;  // one for each group of a token, or one; offset_stride apart
    size_t offset_stride;
    int count;
};

// One way to multiply packed sign matrices by rounded activations, with exact int32 sums.
struct SignProduct {
    // How activations are rounded for it: quantize or quantize4.
    float (*quantize)(int8_t* q, const float* x, const float* g, int n);
    // The form of one activation vector that sign and grouped read: lookup tables, bit planes.
    size_t (*table_bytes)(int cols);
    void (*table_build)(uint8_t* table, const int8_t* q, int cols);  // q: (padded(cols, 64))
    // out[t * out_stride + r] = sum_c sign[r][c] * q_t[c] for r in [0, blocks.count * sign_row_block); with `add`, that is
    // added to what is there. tables: n_tokens tables, table_stride bytes apart. cols is a multiple of 8, at most 2^16.
    void (*sign)(int32_t* out, size_t out_stride, SignBlocks blocks, int cols, const uint8_t* tables, size_t table_stride,
                 int n_tokens, bool add);
    // Grouped sign (Q1_0): one f16 scale per row and 128 columns. cols is a multiple of 128.
    // scales: (blocks, groups of all columns, sign_row_block) f16 bits, from the first group on. For each row, with s_g the
    // exact integer sum of group g: acc = fma(d_g, float(s_g), acc), g ascending from acc = +0, or with `add` from what is
    // there. out = acc (not yet times the activation's scale).
    void (*grouped)(float* out, size_t out_stride, SignBlocks blocks, const uint16_t* scales, int cols, const uint8_t* tables,
                    size_t table_stride, int n_tokens, bool add);
    int tile_cols;  // tiles of so many columns, or a multiple of that, are multiplied as fast as whole rows
};

struct KernelSet {
    // "scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "amx", "neon", "neondot"; with "+avx2" where signs of one token, and
    // those times 4 bits, are multiplied by that set's functions because they are faster on this processor.
    const char* name;

    // ---- sign matrices with rounded activations: exact int32 sums --------------------------------------
    // A packed sign matrix is a sequence of equal blocks of sign_row_block rows; the layout inside a block
    // is the set's own business. Rows missing in the last block are filled with any bits.
    int sign_row_block;
    size_t (*sign_block_bytes)(int cols);
    // official: (n_rows, cols/8) bytes, the file's layout (least significant bit first, bit 1 = -1).
    void (*sign_pack)(uint8_t* block, const uint8_t* official, int n_rows, int cols);
    // The inverse for one row of a block: (cols/8) official bytes.
    void (*sign_unpack_row)(uint8_t* official, const uint8_t* block, int row, int cols);
    SignProduct i8;       // activations in -127..127
    // The same for calls of many_tokens tokens and more, where reading the signs costs little: another form of the
    // activations may then be faster. Equal to i8 where none is.
    SignProduct i8_many;
    int many_tokens;
    SignProduct i4;       // activations in -7..7, as bit planes or tables made from them

    // ---- sign matrices with float activations (the parity mode) ---------------------------------------
    // official: (n_rows, row_bytes), row_bytes = padded(cols, 16) / 8; x: n_tokens rows, x_stride floats apart.
    // lanes16 of (+-x[c]).
    void (*sign_f32)(float* out, size_t out_stride, const uint8_t* official, int n_rows, int cols, const float* x,
                     size_t x_stride, int n_tokens);
    // Per group of 128: p = per-lane sums of +-x (8 elements a lane, ascending, from +0);
    // lane = fma(d_g, p, lane). Then the tree. scales: (n_rows, cols/128) f16 bits.
    void (*grouped_f32)(float* out, size_t out_stride, const uint8_t* official, const uint16_t* scales, int n_rows,
                        int cols, const float* x, size_t x_stride, int n_tokens);

    // ---- ternary matrices ------------------------------------------------------------------------------
    // Codes are larger than their weights by 1: offsets[g] = -(the sum of q over group g of columns); group 0: over all.
    void (*code_offsets)(int32_t* offsets, const int8_t* q, int cols, int group);
    // out[t * out_stride + r] = sum_c w[r][c] * q_t[c], exact, for all rows of the blocks. group is 0.
    void (*ternary)(int32_t* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens tokens);
    // With s_g the exact integer sum of group g: acc = fma(d_g, float(s_g), acc), g ascending from acc = +0. out = acc (not yet
    // times the activation's scale).
    void (*ternary_grouped)(float* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens tokens);
    // codes: (n_rows, ternary_row_bytes(cols)), the file's layout: column c in bits 2 (c % 4) of byte c / 4.
    // group 0: lanes16 with lane = fma(w, x, lane). Otherwise per group p = per-lane sums of that kind, ascending, from +0;
    // lane = fma(d_g, p, lane); then the tree. scales: (n_rows, cols / group) f16 bits.
    void (*ternary_f32)(float* out, size_t out_stride, const uint8_t* codes, const uint16_t* scales, int group, int n_rows,
                        int cols, const float* x, size_t x_stride, int n_tokens);

    // ---- dense matrices --------------------------------------------------------------------------------
    // w: (n_rows, padded(cols, 64)) of f32, f16 or bf16. lanes16 with lane = fma(w, x, lane).
    void (*dense_f32)(float* out, size_t out_stride, const void* w, DType dtype, int n_rows, int cols, const float* x,
                      size_t x_stride, int n_tokens);
    // w: (n_rows, padded(cols, 64)) int8 (-128 may occur). Exact int32 sums. q: rows q_stride bytes apart.
    void (*q8_i8)(int32_t* out, size_t out_stride, const int8_t* w, int n_rows, int cols, const int8_t* q,
                  size_t q_stride, int n_tokens);
    // As dense_f32 on float(w), not yet times the row's scale.
    void (*q8_f32)(float* out, size_t out_stride, const int8_t* w, int n_rows, int cols, const float* x,
                   size_t x_stride, int n_tokens);

    // ---- one row at a time -----------------------------------------------------------------------------
    // q[i] = nearest-even(x[i] * g[i] * (127 / max)); returns max / 127 (0 for a zero row, q all zero).
    // g may be null. x * g is one rounding, then times 127/max another. Writes the zero padding of q.
    // A row whose max is below 2^-100 counts as zero (127/max would overflow).
    // If any x*g is not finite the returned scale is not finite and q is all zero.
    float (*quantize)(int8_t* q, const float* x, const float* g, int n);
    // The same with values in -7..7. v = x * g * (7 / max); for c = 1, 1 / 0.85, 1 / 0.85^2, 1 / 0.85^3 (as floats):
    // r = nearest-even(v * c), at most 7 either way; a = lanes16 of fma(v, r), b = lanes16 of fma(r, r). q = the r with
    // the largest a * a / b, which is the one nearest to v after scaling, the first of equals; returns
    // max / 7 * (a / b), the scale of least squares.
    float (*quantize4)(int8_t* q, const float* x, const float* g, int n);
    void (*multiply)(float* out, const float* x, const float* g, int n);              // out = x * g
    // out = (float(acc) * scale) * h; h may be null
    void (*scale_i32)(float* out, const int32_t* acc, float scale, const float* h, int n);
    // Two planes of one product: out = (float(coarse) * scale[0] + float(fine) * scale[1]) * h; h may be null
    void (*scale_planes)(float* out, const int32_t* coarse, const int32_t* fine, const float* scale, const float* h, int n);
    void (*scale_f32)(float* out, const float* acc, float scale, const float* h, int n);  // the same for floats
    void (*add)(float* x, const float* y, int n);                                     // x += y
    // For each token: y (rows) += u (v . x), s = lanes16(fma(v, x)) over cols, y[r] = fma(s, u[r], y[r]). Several tokens take less
    // time each.
    void (*add_column)(float* const* y, const float* const* x, int n_tokens, const float* u, int rows, const float* v, int cols);
    // out = x * (1 / sqrt(mean(x^2) + eps)) * w; mean of squares by lanes16 with fma.
    void (*rmsnorm)(float* out, const float* x, const float* w, int n, float eps);
    // For each of the rows: x = (x - mean) * (1 / sqrt(var + eps)); biased variance of the centred values. In place. Several
    // rows take less time each.
    void (*layernorm)(float* const* rows, int n_rows, int n, float eps);
    // out = act(x) * up, or act(x) where up is null. silu: x / (1 + exp(-x)); relu: max(0, x); relu2: its square;
    // gelu: max(0, x) - |x| / 2 * e with e = 1 - erf(|x| / sqrt(2)) by Abramowitz and Stegun 7.1.26 (1.5e-7);
    // gelu_tanh: x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3), which is 0.5 x (1 + tanh u)
    void (*activate)(float* out, const float* x, const float* up, int n, Activation activation);
    // x = x / (1 + exp(-gate))
    void (*gate_by)(float* x, const float* gate, int n);
    // Rotates the first `dims` elements of a head in place. half: pairs (i, i + dims/2); interleaved: pairs (2i, 2i+1).
    // x0' = x0*cos - x1*sin, x1' = x1*cos + x0*sin, each product rounded, then one add or subtract.
    void (*rope)(float* x, const float* cos, const float* sin, int dims, bool interleaved);
    // out = H (s x) in blocks, H[i][j] = (-1)^popcount(i & j) / sqrt(block): the normalised Walsh-Hadamard matrix in
    // Sylvester's order, which is its own inverse. block: a power of two from 2 to 2^16 that divides n. signs: padded(n, 16) / 8
    // bytes, least significant bit first, 1 = -1; null: all +1. For h = 1, 2, 4, ..., block / 2 every pair (a, b) of elements
    // i and i + h, where i & h is 0, becomes (a + b, a - b); then each element times 1.0f / sqrtf(block). out may be x.
    void (*hadamard)(float* out, const float* x, const uint8_t* signs, int n, int block);
    // Attention of queries that share one KV head; their positions may differ.
    // scratch: n_queries x (padded(head_dim, 16) + padded(most positions, 16)) floats.
    // after: memory that the thread reads next, or null; its first lines are fetched.
    // score = s (* k_scale) * scale, where s = fma(q[d], k[d], s) from +0 on, d ascending; p = exp(score - max), 0 where that is
    // no normal float; sum by lanes16; (p *= v_scale)
    // out[d] = (sum over positions ascending of fma(p, v[d])) * (1 / sum); lanes by position: position i is lane i % 16.
    void (*attend)(AttendQuery* queries, int n_queries, KvHead kv, int head_dim, float scale, float* scratch,
                   const void* after);
    // The gated delta rule of one head. A state S (k_dim, v_dim) lies as (padded(v_dim, 16) / 16, k_dim, 16) floats; from may be
    // to. For each step, with a = decay and b = beta, on each column j of S:
    //   r = sum over i of fma(k[i], S[i][j]), p = sum over i of fma(q[i], S[i][j]), i ascending, from +0
    //   d = b * (v[j] - a * r); out[j] = fma(k.q, d, a * p), k.q = lanes16(fma(k, q)); S[i][j] = fma(k[i], d, a * S[i][j])
    // which is: S = a S; d = b (v - S^T k); S += k d^T; out = S^T q.
    void (*delta_rule)(float* to, const float* from, const DeltaSteps& steps, int k_dim, int v_dim);
    // x = x * (length / sqrt(sum of squares + eps)), the sum by lanes16 with fma.
    void (*unit_length)(float* x, int n, float eps, float length);
    // out[c] = s / (1 + exp(-s)), s = sum over j ascending of fma(weight[j][c], taps[j][c]) from +0: what a convolution along
    // tokens makes of n channels. weight: rows weight_stride floats apart; taps: (n_taps) pointers to (n).
    void (*convolve)(float* out, const float* const* taps, const float* weight, size_t weight_stride, int n_taps, int n);
    // The largest value and sum(exp(x - largest)) by lanes16. NaN anywhere gives NaN in *max.
    void (*max_sum_exp)(float* max, float* sum, const float* x, int n);

    // ---- conversions (IEEE, nearest even) --------------------------------------------------------------
    void (*f32_to_f16)(uint16_t* out, const float* x, int n);
    void (*f16_to_f32)(float* out, const uint16_t* x, int n);  // the conversion inside every kernel, to be tested

    // CRC-32C (Castagnoli), as in RFC 3720: crc32c(0, "123456789") == 0xE3069283. Continues from crc.
    uint32_t (*crc32c)(uint32_t crc, const uint8_t* data, size_t n);
};

// ---- dispatch.cpp ------------------------------------------------------------------------------------

enum class IsaState : uint8_t {
    usable,       // built and present (of "amx": the system may still refuse it when it is first chosen, and then it is not)
    not_present,  // built, but this CPU lacks it
    not_built,    // belongs to another processor family
};

struct IsaEntry {
    const char* name;
    IsaState state;
    const char* runs;  // the name of its KernelSet, which choose_kernels gives; null unless usable
};

// All names we know, fastest last within a family. What they are is found once per process (the only process-wide state).
const IsaEntry* isa_table(int* count);

// The best set that needs no permission of the system: for work that belongs to no model.
const KernelSet& row_kernels();

// The set named by `name` (ONEBIT_ISA's value; what runs, "avx512vnni+avx2", is a name too), or the best usable one when name is null or empty.
// On failure returns null and points *why at a sentence that says what is wrong and what exists.
const KernelSet* choose_kernels(const char* name, const char** why);

}  // namespace onebit
