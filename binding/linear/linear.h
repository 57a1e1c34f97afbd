// y = W x for every kind of W. A linear is one matrix, or a chain of two, then LayerNorm and bias where it has them; a
// matrix has a kind, which is a small struct of functions (kinds.cpp): there is no other place that knows how numbers lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/kernels.h"
#include "system/status.h"

namespace onebit {

// What sign matrices multiply. Dense int8 rows round to 8 bits in both integer modes.
enum class Activations : uint8_t { int8, f32, int4 };

constexpr int64_t kMaxDim = 1 << 16;  // any matrix's columns, and rows other than the vocabulary's

// How a linear lies in a file.
struct LinearKind {
    enum class Form : uint8_t { dense, sign, grouped, ternary };
    Form form = Form::dense;
    DType dtype = DType::f32;  // dense only
    int32_t group = 0;         // ternary only: columns of a scale, 64, 128 or 256; 0: one scale a row
    int32_t rank = 0;          // sign only: 0 = one stage; else two stages through a vector of this length
    bool mid_scale = false;    // sign, rank > 0: a scale on the inner vector
    bool layernorm = false;    // sign only
    bool column = false;       // sign only: see Linear::u
    bool half = false;         // sign only: its vectors other than the bias are f16 in the file
    bool bias = false;         // never on the embedding or the head
    bool norm_in = false;      // never on the embedding or the head: see Front
    int32_t rotation = 0;      // see Front; 0: none
    bool rotation_signs = false;
};

struct MatrixKind;

struct Matrix {
    const MatrixKind* kind = nullptr;
    int rows = 0, cols = 0;
    const float* in_scale = nullptr;   // (cols) or null: x is multiplied by it first
    const float* out_scale = nullptr;  // (rows) or null
    const uint8_t* weights = nullptr;  // row r is at r * row_bytes, where r is a multiple of row_unit
    const uint16_t* group_scales = nullptr;  // grouped signs and ternary: f16, in the order that the kernel reads
    int group = 0;                           // ternary: columns of one of them
    DType dtype = DType::f32;          // of dense rows
    size_t row_bytes = 0;              // signs in blocks of rows: of a block, divided by its rows
    int row_unit = 1;                  // rows are shared out in multiples of this
};

// What stands in front of a linear, whatever its kind: x becomes RMSNorm(x) with weights of its own, and then H (s x), by the
// normalised Walsh-Hadamard transform in blocks (KernelSet::hadamard). Of an embedding, whose rows are stored rotated, H
// comes behind the lookup and s after it: that is the inverse.
struct Front {
    const float* norm = nullptr;     // (cols) or null
    float norm_eps = 0;
    int block = 0;                   // of the rotation; 0: there is none
    const uint8_t* signs = nullptr;  // s, as KernelSet::hadamard takes it; linears of equally many columns share one

    bool any() const { return norm || block > 0; }
    bool operator==(const Front&) const = default;
};

struct Linear {
    int rows = 0, cols = 0;
    Front front = {};
    int stages = 1;  // of a chain 2: the first matrix makes the inner vector that the second one reads
    Matrix stage[2] = {};
    const float* u = nullptr;     // (rows) or null: a column of floats beside the signs, y += u (v . x), before LayerNorm
    const float* v = nullptr;     // (cols)
    bool layernorm = false;       // without weights, over all rows
    const float* bias = nullptr;  // (rows) or null
};

// Activations of consecutive tokens in the form that a product reads. Which of these there are is the kind's to say.
struct Prepared {
    int8_t* q = nullptr;        // (tokens, planes, padded(cols, 64)) rounded
    float* scale = nullptr;     // (tokens, planes) what a step of the rounded ones is worth
    int32_t* offsets = nullptr; // (tokens, padded(cols, 64) / 64) of which a kernel uses as many as there are groups
    float* x = nullptr;         // (tokens, padded(cols, 64)) floats, or what rounding left of them
    uint8_t* tables = nullptr;  // (tokens, table_stride) made from q
};

// How products with tables are cut along the columns; made by the plan.
struct Tiling {
    const SignProduct* product = nullptr;
    size_t table_stride = 0;
    int tile_cols = 0;  // tables are made for so many columns at a time, while multiplying; 0: for all, by prepare
};

// Rows [row, row + rows) of the result of some tokens.
struct Rows {
    int row, rows, tokens;
    float* out;  // of the first row and token; tokens lie out_stride apart
    size_t out_stride;
    int32_t* sums;  // likewise (tokens, planes, sums_stride): what a product needs to add up in, where it needs that
    size_t sums_stride;
};

struct MatrixKind {
    int planes = 0;       // int8 copies that are made of a token's activations
    bool floats = false;  // a float copy is made
    bool tables = false;  // tables are made from the int8 copy, for the kernels' sign products
    bool offsets = false; // of codes are made from the int8 copy

    // Brings one token's x (cols) into its form. to: this token's.
    void (*prepare)(const KernelSet& kernels, const Matrix& matrix, const Tiling& tiling, const float* x, const Prepared& to);
    void (*multiply)(const KernelSet& kernels, const Matrix& matrix, const Tiling& tiling, const Prepared& in, const Rows& to);
    // One row of the matrix as floats: what an embedding does. out: (cols).
    void (*read_row)(const KernelSet& kernels, const Matrix& matrix, int row, float* out);
};

// Where a linear's tensors come from: asked for by name, each is put where kernels will find it (model/bind.h).
class Tensors {
public:
    // (n), finite; half: f16 in the file.
    virtual const float* floats(const std::string& name, int n, bool half) = 0;
    const float* floats(const std::string& name, int n) { return floats(name, n, false); }
    virtual const uint8_t* signs(const std::string& name, int rows, int cols, bool blocks) = 0;
    // block_rows: rows whose scales lie together, group after group; 1: each row's lie together.
    virtual const uint16_t* group_scales(const std::string& name, int rows, int groups, int block_rows) = 0;
    virtual const uint8_t* ternary(const std::string& name, int rows, int cols, bool blocks) = 0;
    virtual const uint8_t* rotation_signs(int cols) = 0;  // of the model, for linears of so many columns
    virtual const uint8_t* dense(const std::string& name, int rows, int cols, DType dtype) = 0;  // rows of padded(cols, 64)

    const KernelSet& kernels;
    const Activations activations;

protected:
    Tensors(const KernelSet& set, Activations wanted) : kernels(set), activations(wanted) {}
    ~Tensors() = default;
};

// Makes a linear of a kind from the tensors `name.…`; front.norm_eps is the caller's. ERR_CONFIG when the kind does not fit the
// columns.
Status bind_linear(Tensors& tensors, const std::string& name, const LinearKind& kind, Linear* linear);

// out (cols) = what the first matrix reads of x (cols). They may be the same.
void apply_front(const KernelSet& kernels, const Linear& linear, const float* x, float* out);

// One row of a linear of one matrix as an embedding has it, turned back if it is stored rotated. out: (cols).
void read_embedding(const KernelSet& kernels, const Linear& table, int row, float* out);

// Room for the sums of every row; 0 where a kind adds up in its result.
inline size_t sums_stride(const Matrix& matrix) {
    return matrix.kind->planes > 0 ? static_cast<size_t>(padded(matrix.rows, matrix.row_unit)) : 0;
}

}  // namespace onebit
