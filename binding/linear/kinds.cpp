#include <algorithm>
#include <cstring>

#include "kernels/math.h"
#include "linear/linear.h"

namespace onebit {

namespace {

constexpr int kGroupCols = 128;  // of one scale
constexpr int kRowsTogether = 1024;  // whose sums are scaled as soon as they are there: a multiple of every block

size_t float_stride(const Matrix& matrix) { return static_cast<size_t>(padded(matrix.cols, 64)); }

// ---- activations ---------------------------------------------------------------------------------------
void copy_floats(const KernelSet& kernels, const Matrix& matrix, const Tiling&, const float* x, const Prepared& to) {
    if (matrix.in_scale) {
        kernels.multiply(to.x, x, matrix.in_scale, matrix.cols);
    } else {
        std::memcpy(to.x, x, static_cast<size_t>(matrix.cols) * sizeof(float));
    }
    std::fill(to.x + matrix.cols, to.x + float_stride(matrix), 0.0f);
}

// int8 rows multiply activations in two planes: the rounded values, and what rounding left of them, rounded again on its
// own scale. Ordinary models have activations hundreds of times larger than the rest (SmolLM2 135M: perplexity 22.97 with
// one plane, 22.24 with a second one in the layers, 22.11 in the head too, 22.03 in floats), and their rows wait for
// memory, not for arithmetic. Signs keep one plane: their product is bound by arithmetic, and 1-bit models, a LayerNorm
// behind every matrix, lose little (the mean KL divergence of the untrained golden model is 0.0013).
void round_twice(const KernelSet& kernels, const Matrix& matrix, const Tiling&, const float* x, const Prepared& to) {
    to.scale[0] = kernels.quantize(to.q, x, nullptr, matrix.cols);
    for (int i = 0; i < matrix.cols; ++i) to.x[i] = x[i] - static_cast<float>(to.q[i]) * to.scale[0];
    to.scale[1] = kernels.quantize(to.q + float_stride(matrix), to.x, nullptr, matrix.cols);
}

void round_for_tables(const KernelSet&, const Matrix& matrix, const Tiling& tiling, const float* x, const Prepared& to) {
    *to.scale = tiling.product->quantize(to.q, x, matrix.in_scale, matrix.cols);
    if (tiling.tile_cols == 0) tiling.product->table_build(to.tables, to.q, matrix.cols);
}

// One plane, as signs have: the products of several tokens are bound by arithmetic.
void round_with_offsets(const KernelSet& kernels, const Matrix& matrix, const Tiling&, const float* x, const Prepared& to) {
    *to.scale = kernels.quantize(to.q, x, nullptr, matrix.cols);
    kernels.code_offsets(to.offsets, to.q, matrix.cols, matrix.group);
}

// ---- products ------------------------------------------------------------------------------------------
const float* out_scale_at(const Matrix& matrix, int row) { return matrix.out_scale ? matrix.out_scale + row : nullptr; }

// The floats' products scale back by themselves only what lies in the weights.
void scale_rows(const KernelSet& kernels, const Matrix& matrix, const Rows& to) {
    if (!matrix.out_scale) return;
    for (size_t t = 0; t < static_cast<size_t>(to.tokens); ++t) {
        float* out = to.out + t * to.out_stride;
        kernels.scale_f32(out, out, 1.0f, matrix.out_scale + to.row, to.rows);
    }
}

const uint8_t* row_at(const Matrix& matrix, int row) { return matrix.weights + static_cast<size_t>(row) * matrix.row_bytes; }

void multiply_dense(const KernelSet& kernels, const Matrix& matrix, const Tiling&, const Prepared& in, const Rows& to) {
    kernels.dense_f32(to.out, to.out_stride, row_at(matrix, to.row), matrix.dtype, to.rows, matrix.cols, in.x,
                      float_stride(matrix), to.tokens);
}

void multiply_bytes_floats(const KernelSet& kernels, const Matrix& matrix, const Tiling&, const Prepared& in, const Rows& to) {
    kernels.q8_f32(to.out, to.out_stride, reinterpret_cast<const int8_t*>(row_at(matrix, to.row)), to.rows, matrix.cols, in.x,
                   float_stride(matrix), to.tokens);
    scale_rows(kernels, matrix, to);
}

void multiply_signs_floats(const KernelSet& kernels, const Matrix& matrix, const Tiling&, const Prepared& in, const Rows& to) {
    kernels.sign_f32(to.out, to.out_stride, row_at(matrix, to.row), to.rows, matrix.cols, in.x, float_stride(matrix), to.tokens);
    scale_rows(kernels, matrix, to);
}

void multiply_groups_floats(const KernelSet& kernels, const Matrix& matrix, const Tiling&, const Prepared& in, const Rows& to) {
    const auto groups = static_cast<size_t>(matrix.cols / kGroupCols);
    kernels.grouped_f32(to.out, to.out_stride, row_at(matrix, to.row), matrix.group_scales + static_cast<size_t>(to.row) * groups,
                        to.rows, matrix.cols, in.x, float_stride(matrix), to.tokens);
}

void multiply_planes(const KernelSet& kernels, const Matrix& matrix, const Tiling&, const Prepared& in, const Rows& to) {
    const auto* w = reinterpret_cast<const int8_t*>(row_at(matrix, to.row));
    // Planes are to the kernel what tokens are.
    kernels.q8_i8(to.sums, to.sums_stride, w, to.rows, matrix.cols, in.q, float_stride(matrix), 2 * to.tokens);
    for (size_t t = 0; t < static_cast<size_t>(to.tokens); ++t) {
        const int32_t* coarse = to.sums + 2 * t * to.sums_stride;
        kernels.scale_planes(to.out + t * to.out_stride, coarse, coarse + to.sums_stride, in.scale + 2 * t,
                             out_scale_at(matrix, to.row), to.rows);
    }
}

// The packed signs of some rows from column c on.
SignBlocks blocks_of(const KernelSet& kernels, const Matrix& matrix, const Rows& to, int c) {
    const int block = kernels.sign_row_block;
    return {row_at(matrix, to.row) + kernels.sign_block_bytes(c), kernels.sign_block_bytes(matrix.cols),
            (to.rows + block - 1) / block};
}

// The columns from c on whose tables there are together; where that is not all of them, the tables are made now.
int tile_at(const Matrix& matrix, const Tiling& tiling, const Prepared& in, int tokens, int c) {
    if (tiling.tile_cols == 0) return matrix.cols;
    const int cols = std::min(tiling.tile_cols, matrix.cols - c);
    for (size_t t = 0; t < static_cast<size_t>(tokens); ++t) {
        tiling.product->table_build(in.tables + t * tiling.table_stride, in.q + t * float_stride(matrix) + c, cols);
    }
    return cols;
}

// Some of the rows, from number `first` of them on.
Rows part_of(const Rows& to, int first, int count) {
    return {to.row + first, std::min(count, to.rows - first), to.tokens, to.out + first, to.out_stride, to.sums + first, to.sums_stride};
}

void scale_signs(const KernelSet& kernels, const Matrix& matrix, const Prepared& in, const Rows& to) {
    for (size_t t = 0; t < static_cast<size_t>(to.tokens); ++t) {
        kernels.scale_i32(to.out + t * to.out_stride, to.sums + t * to.sums_stride, in.scale[t], out_scale_at(matrix, to.row),
                          to.rows);
    }
}

void multiply_signs(const KernelSet& kernels, const Matrix& matrix, const Tiling& tiling, const Prepared& in, const Rows& to) {
    const auto add_products = [&](const Rows& rows, int c, int cols) {
        tiling.product->sign(rows.sums, rows.sums_stride, blocks_of(kernels, matrix, rows, c), cols, in.tables, tiling.table_stride,
                             rows.tokens, c > 0);
    };
    int c = 0, cols = tile_at(matrix, tiling, in, to.tokens, 0);
    if (cols == matrix.cols) {  // the sums of some rows are scaled before they leave the caches
        for (int first = 0; first < to.rows; first += kRowsTogether) {
            const Rows part = part_of(to, first, kRowsTogether);
            add_products(part, 0, cols);
            scale_signs(kernels, matrix, in, part);
        }
        return;
    }
    while (true) {
        add_products(to, c, cols);
        c += cols;
        if (c == matrix.cols) break;
        cols = tile_at(matrix, tiling, in, to.tokens, c);
    }
    scale_signs(kernels, matrix, in, to);
}

void multiply_groups(const KernelSet& kernels, const Matrix& matrix, const Tiling& tiling, const Prepared& in, const Rows& to) {
    const int block = kernels.sign_row_block;
    auto* sums = reinterpret_cast<float*>(to.sums);
    for (int c = 0; c < matrix.cols;) {
        const int cols = tile_at(matrix, tiling, in, to.tokens, c);
        const int first_group = to.row / block * (matrix.cols / kGroupCols) + c / kGroupCols;
        tiling.product->grouped(sums, to.sums_stride, blocks_of(kernels, matrix, to, c),
                                matrix.group_scales + static_cast<size_t>(first_group) * static_cast<size_t>(block), cols,
                                in.tables, tiling.table_stride, to.tokens, c > 0);
        c += cols;
    }
    for (size_t t = 0; t < static_cast<size_t>(to.tokens); ++t) {
        kernels.scale_f32(to.out + t * to.out_stride, sums + t * to.sums_stride, in.scale[t], nullptr, to.rows);
    }
}

void multiply_ternary_floats(const KernelSet& kernels, const Matrix& matrix, const Tiling&, const Prepared& in, const Rows& to) {
    const size_t groups = matrix.group > 0 ? static_cast<size_t>(matrix.cols / matrix.group) : 0;
    kernels.ternary_f32(to.out, to.out_stride, row_at(matrix, to.row), matrix.group_scales + static_cast<size_t>(to.row) * groups,
                        matrix.group, to.rows, matrix.cols, in.x, float_stride(matrix), to.tokens);
    scale_rows(kernels, matrix, to);
}

void multiply_ternary(const KernelSet& kernels, const Matrix& matrix, const Tiling&, const Prepared& in, const Rows& to) {
    const size_t groups = matrix.group > 0 ? static_cast<size_t>(matrix.cols / matrix.group) : 0;
    const TernaryBlocks blocks{row_at(matrix, to.row), matrix.group_scales + static_cast<size_t>(to.row) * groups,
                               (to.rows + kTernaryRows - 1) / kTernaryRows, matrix.cols, matrix.group};
    const RoundedTokens tokens{in.q, float_stride(matrix), in.offsets, float_stride(matrix) / 64, to.tokens};
    if (groups == 0) {
        kernels.ternary(to.sums, to.sums_stride, blocks, tokens);
    } else {
        kernels.ternary_grouped(reinterpret_cast<float*>(to.sums), to.sums_stride, blocks, tokens);
    }
    for (size_t t = 0; t < static_cast<size_t>(to.tokens); ++t) {
        float* out = to.out + t * to.out_stride;
        const int32_t* sums = to.sums + t * to.sums_stride;
        if (groups == 0) {
            kernels.scale_i32(out, sums, in.scale[t], out_scale_at(matrix, to.row), to.rows);
        } else {
            kernels.scale_f32(out, reinterpret_cast<const float*>(sums), in.scale[t], nullptr, to.rows);
        }
    }
}

// ---- rows ------------------------------------------------------------------------------------------------
void read_dense(const KernelSet&, const Matrix& matrix, int row, float* out) {
    const uint8_t* w = row_at(matrix, row);
    const auto each = [&](auto value) {
        for (int c = 0; c < matrix.cols; ++c) out[c] = value(c);
    };
    switch (matrix.dtype) {
        case DType::f32: return each([&](int c) { return reinterpret_cast<const float*>(w)[c]; });
        case DType::f16: return each([&](int c) { return f32_from_f16(reinterpret_cast<const uint16_t*>(w)[c]); });
        case DType::bf16: return each([&](int c) { return f32_from_bf16(reinterpret_cast<const uint16_t*>(w)[c]); });
        case DType::q8:
            return each([&](int c) { return static_cast<float>(reinterpret_cast<const int8_t*>(w)[c]) * matrix.out_scale[row]; });
    }
}

// Signs in rows as the file has them, or in blocks: those are unpacked some columns at a time. One row a token, so
// simplicity wins.
template <bool kBlocks>
void read_groups(const KernelSet& kernels, const Matrix& matrix, int row, float* out) {
    const auto block = static_cast<size_t>(kBlocks ? kernels.sign_row_block : 1), groups = static_cast<size_t>(matrix.cols / kGroupCols);
    const size_t b = static_cast<size_t>(row) / block, within = static_cast<size_t>(row) % block;
    const uint8_t* first = matrix.weights + b * matrix.row_bytes * block;
    uint8_t unpacked[kGroupCols / 8];
    for (size_t g = 0; g < groups; ++g) {
        const int c = static_cast<int>(g) * kGroupCols;
        const uint8_t* bits = first + c / 8;
        if (kBlocks) {
            kernels.sign_unpack_row(unpacked, first + kernels.sign_block_bytes(c), static_cast<int>(within), kGroupCols);
            bits = unpacked;
        }
        const float d = f32_from_f16(matrix.group_scales[(b * groups + g) * block + within]);
        for (int i = 0; i < kGroupCols; ++i) out[c + i] = (bits[i / 8] >> (i % 8) & 1) != 0 ? -d : d;
    }
}

// A row of codes as the file has them, or of a block: 4 bytes of 16 columns in another order (kTernaryRows, kernels.h).
template <bool kBlocks>
void read_ternary(const KernelSet&, const Matrix& matrix, int row, float* out) {
    constexpr int block = kBlocks ? kTernaryRows : 1;
    const int groups = matrix.group > 0 ? matrix.cols / matrix.group : 0;
    const uint8_t* first = row_at(matrix, row / block * block);
    const uint16_t* d = matrix.group_scales + static_cast<size_t>(row / block) * static_cast<size_t>(groups * block) + row % block;
    for (int c = 0; c < matrix.cols; ++c) {
        const int byte = kBlocks ? c / 16 * 4 * block + row % block * 4 + c % 4 : c / 4;
        const int shift = kBlocks ? c % 16 / 4 * 2 : c % 4 * 2;
        const float scale = groups > 0 ? f32_from_f16(d[c / matrix.group * block]) : matrix.out_scale[row];
        out[c] = static_cast<float>((first[byte] >> shift & 3) - 1) * scale;
    }
}

// ---- the kinds: planes, floats, tables, offsets, and what they do -----------------------------------------------
// f32, f16, bf16 rows times floats; int8 rows times floats, and times two int8 planes
const MatrixKind kDenseFloats = {0, true, false, false, copy_floats, multiply_dense, read_dense};
const MatrixKind kBytesFloats = {0, true, false, false, copy_floats, multiply_bytes_floats, read_dense};
const MatrixKind kBytesPlanes = {2, true, false, false, round_twice, multiply_planes, read_dense};
// rows of sign bits as the file has them times floats; signs in the kernels' blocks times rounded activations
const MatrixKind kSignFloats = {0, true, false, false, copy_floats, multiply_signs_floats, nullptr};
const MatrixKind kSignTables = {1, false, true, false, round_for_tables, multiply_signs, nullptr};
// the same with one f16 scale per row and 128 columns
const MatrixKind kGroupFloats = {0, true, false, false, copy_floats, multiply_groups_floats, read_groups<false>};
const MatrixKind kGroupTables = {1, false, true, false, round_for_tables, multiply_groups, read_groups<true>};
// ternary codes in rows times floats, in blocks times rounded activations
const MatrixKind kTernaryFloats = {0, true, false, false, copy_floats, multiply_ternary_floats, read_ternary<false>};
const MatrixKind kTernaryOffsets = {1, false, false, true, round_with_offsets, multiply_ternary, read_ternary<true>};

// ---- from tensors ------------------------------------------------------------------------------------------
// Rows of a matrix that has no blocks come in units of this many, which every kernel's row blocking divides.
constexpr int kRowUnit = 16;

// Whether signs lie in the kernels' blocks: where tables are looked up.
bool in_blocks(const Tensors& tensors) { return tensors.activations != Activations::f32; }

Matrix sign_matrix(Tensors& tensors, const std::string& name, const MatrixKind& kind, int rows, int cols) {
    Matrix matrix{.kind = &kind, .rows = rows, .cols = cols};
    matrix.row_unit = in_blocks(tensors) ? tensors.kernels.sign_row_block : kRowUnit;
    matrix.row_bytes = in_blocks(tensors) ? tensors.kernels.sign_block_bytes(cols) / static_cast<size_t>(matrix.row_unit)
                                          : static_cast<size_t>(padded(cols, 16) / 8);
    matrix.weights = tensors.signs(name, rows, cols, in_blocks(tensors));
    return matrix;
}

void bind_dense(Tensors& tensors, const std::string& name, const LinearKind& kind, Linear* linear) {
    const bool bytes = kind.dtype == DType::q8, rounds = tensors.activations != Activations::f32;
    Matrix matrix{.kind = !bytes ? &kDenseFloats : rounds ? &kBytesPlanes : &kBytesFloats, .rows = linear->rows, .cols = linear->cols};
    matrix.dtype = kind.dtype;
    matrix.row_unit = kRowUnit;
    matrix.row_bytes = static_cast<size_t>(padded(linear->cols, 64)) * element_bytes(kind.dtype);
    matrix.weights = tensors.dense(name + ".weight", linear->rows, linear->cols, kind.dtype);
    if (bytes) matrix.out_scale = tensors.floats(name + ".scale", linear->rows);
    linear->stage[0] = matrix;
}

void bind_grouped(Tensors& tensors, const std::string& name, const LinearKind&, Linear* linear) {
    const MatrixKind& kind = in_blocks(tensors) ? kGroupTables : kGroupFloats;
    linear->stage[0] = sign_matrix(tensors, name + ".sign", kind, linear->rows, linear->cols);
    linear->stage[0].group_scales =
        tensors.group_scales(name + ".scale", linear->rows, linear->cols / kGroupCols, in_blocks(tensors) ? tensors.kernels.sign_row_block : 1);
}

void bind_ternary(Tensors& tensors, const std::string& name, const LinearKind& kind, Linear* linear) {
    const bool blocks = in_blocks(tensors);
    Matrix matrix{.kind = blocks ? &kTernaryOffsets : &kTernaryFloats, .rows = linear->rows, .cols = linear->cols};
    matrix.row_unit = kTernaryRows;
    matrix.row_bytes = ternary_row_bytes(linear->cols);
    matrix.group = kind.group;
    matrix.weights = tensors.ternary(name + ".codes", linear->rows, linear->cols, blocks);
    if (kind.group == 0) {
        matrix.out_scale = tensors.floats(name + ".scale", linear->rows);
    } else {
        matrix.group_scales = tensors.group_scales(name + ".scale", linear->rows, linear->cols / kind.group, blocks ? kTernaryRows : 1);
    }
    linear->stage[0] = matrix;
}

// One matrix (x * g) sign^T * h, or a chain of two through a vector of `rank` elements; and a column beside it.
void bind_sign(Tensors& tensors, const std::string& name, const LinearKind& kind, Linear* linear) {
    const MatrixKind& matrix_kind = in_blocks(tensors) ? kSignTables : kSignFloats;
    const auto floats = [&](const char* suffix, int n) { return tensors.floats(name + suffix, n, kind.half); };
    const float* g = floats(".g", linear->cols);
    if (kind.rank == 0) {
        linear->stage[0] = sign_matrix(tensors, name + ".sign", matrix_kind, linear->rows, linear->cols);
    } else {
        linear->stages = 2;
        linear->stage[0] = sign_matrix(tensors, name + ".sign1", matrix_kind, kind.rank, linear->cols);
        const float* mid = kind.mid_scale ? floats(".mid", kind.rank) : nullptr;
        linear->stage[1] = sign_matrix(tensors, name + ".sign2", matrix_kind, linear->rows, kind.rank);
        linear->stage[1].in_scale = mid;
    }
    linear->stage[0].in_scale = g;
    linear->stage[linear->stages - 1].out_scale = floats(".h", linear->rows);
    if (kind.column) {
        linear->u = floats(".u", linear->rows);
        linear->v = floats(".v", linear->cols);
    }
    linear->layernorm = kind.layernorm;
}

struct FormOfLinear {
    const char* name;
    int column_multiple;
    void (*bind)(Tensors& tensors, const std::string& name, const LinearKind& kind, Linear* linear);
};
constexpr FormOfLinear kForms[] = {{"dense", 1, bind_dense}, {"sign", 8, bind_sign}, {"q1_0", kGroupCols, bind_grouped}, {"ternary", 4, bind_ternary}};

}  // namespace

Status bind_linear(Tensors& tensors, const std::string& name, const LinearKind& kind, Linear* linear) {
    const auto bad = [&](const std::string& what) { return error("ERR_CONFIG", "The kind of " + name + " is not usable: " + what + "."); };
    if (kind.form > LinearKind::Form::ternary || kind.dtype > DType::q8) return bad("it is unknown");
    if (kind.group != 0 && (kind.form != LinearKind::Form::ternary || (kind.group != 64 && kind.group != 128 && kind.group != 256))) {
        return bad("its groups have " + std::to_string(kind.group) + " columns");
    }
    const FormOfLinear& form = kForms[static_cast<int>(kind.form)];
    const int multiple = kind.group > 0 ? kind.group : form.column_multiple;
    if (linear->cols % multiple != 0) {
        return bad(std::string(form.name) + " needs columns in multiples of " + std::to_string(multiple) + ", it has " +
                   std::to_string(linear->cols));
    }
    if (kind.rank < 0 || kind.rank > kMaxDim || kind.rank % 8 != 0) {
        return bad("its rank is " + std::to_string(kind.rank) + ", not a multiple of 8");
    }
    const int block = kind.rotation;
    if (block < 0 || block == 1 || block > kMaxDim || (block & (block - 1)) != 0 || (block > 0 && linear->cols % block != 0)) {
        return bad("its rotation has blocks of " + std::to_string(block) + ", not a power of two that divides its " +
                   std::to_string(linear->cols) + " columns");
    }
    if (kind.norm_in) linear->front.norm = tensors.floats(name + ".norm_in", linear->cols);
    linear->front.block = block;
    if (block > 0 && kind.rotation_signs) linear->front.signs = tensors.rotation_signs(linear->cols);
    form.bind(tensors, name, kind, linear);
    if (kind.bias) linear->bias = tensors.floats(name + ".bias", linear->rows);
    return {};
}

}  // namespace onebit
