#include "run/linear.h"

#include <algorithm>
#include <cstring>

#include "kernels/math.h"
#include "run/stage.h"

namespace onebit {

namespace {

// The tables of several tokens are larger than a core's second-level cache (1.4 MB for 32 tokens of 2048 columns, with
// vpermi2w), and fetching them from another core's cache takes three times as long as making them. So every thread makes
// those of some columns, meets all its rows with them, and goes on to the next columns (kTileTableBytes). More threads than
// there are shares of kShareTokens tokens share rows too.
constexpr size_t kTileTableBytes = size_t{288} << 10;
constexpr int kShareTokens = 8;
// Below this many bytes of weights a task costs more to hand out than to do.
constexpr size_t kLeastTaskBytes = size_t{16} << 10;
// Tasks of each thread, so that one that ends early can help the others.
constexpr int kMostTasks = 8;
// Outputs whose LayerNorm is computed at a time.
constexpr int kNormTogether = 4;

// Signs take activations of 4 bits where the model was loaded so; int8 rows always take 8.
bool counts_bits(const Model& model, const Linear& linear) {
    return model.activations == Activations::int4 && linear.kind.form != LinearKind::Form::dense;
}

const SignProduct& product_of(const Model& model, const Linear& linear, int n_tokens) {
    const KernelSet& kernels = *model.kernels;
    if (counts_bits(model, linear)) return kernels.i4;
    return n_tokens >= kernels.many_tokens ? kernels.i8_many : kernels.i8;
}

// int8 rows multiply activations in two planes: the rounded values, and what rounding left of them, rounded again on its
// own scale. Ordinary models have activations hundreds of times larger than the rest (SmolLM2 135M: perplexity 22.97 with
// one plane, 22.24 with a second one in the layers, 22.11 in the head too, 22.03 in floats), and their rows wait for
// memory, not for arithmetic. Signs keep one plane: their product is bound by arithmetic, and 1-bit models, a LayerNorm
// behind every matrix, lose little (the mean KL divergence of the untrained golden model is 0.0013).
int planes(const Linear& linear) { return linear.kind.form == LinearKind::Form::dense ? 2 : 1; }

// How many shares n tokens are dealt out in, by tiles.
int token_shares(int n, int threads) { return std::clamp(n / kShareTokens, 1, threads); }

// The multiplication of one group of linears, one stage of each, for n tokens.
class GroupRun {
public:
    GroupRun(const Model& model, Runner runner, const LinearCall* calls, int n_calls, int stage, int n)
        : model_(model), kernels_(*model.kernels), runner_(runner), stage_index_(stage), n_(n) {
        for (int i = 0; i < n_calls; ++i) {
            if (stage >= stage_count(*calls[i].linear)) continue;
            if (calls[i].preparing == Preparing::by_tiles) {
                tiled_[tiled_count_++] = &calls[i];
            } else {
                calls_[count_++] = &calls[i];
            }
        }
    }

    void run(const float* x, size_t x_stride) {
        x_ = x;
        x_stride_ = x_stride;
        if (tiled_count_ > 0) multiply_by_tiles();
        if (count_ == 0) return;
        if (calls_[0]->preparing == Preparing::together) {
            runner_.run(count_ * n_, [&](int task) { prepare(*calls_[task / n_], task % n_, task % n_); });
        }
        multiply();
    }

private:
    float* inner_row(const LinearCall& call, int t) const {
        return call.scratch.inner + static_cast<size_t>(t) * static_cast<size_t>(padded(call.linear->kind.rank, 64));
    }

    // Brings token t's activations into the form the kernel reads: row `row` of the scratch.
    void prepare(const LinearCall& call, int t, int row) const {
        const float* x = stage_index_ > 0 ? inner_row(call, t) : x_ + static_cast<size_t>(t) * x_stride_;
        const Linear& linear = *call.linear;
        const Stage stage = stage_of(model_, linear, stage_index_);
        const auto stride = static_cast<size_t>(padded(stage.cols, 64));
        const LinearScratch& scratch = call.scratch;
        const auto at = static_cast<size_t>(row);
        if (rounds_activations(model_, linear)) {
            const auto n_planes = static_cast<size_t>(planes(linear));
            int8_t* q = scratch.q + at * n_planes * stride;
            float* scale = scratch.scale + at * n_planes;
            const auto quantize = counts_bits(model_, linear) ? kernels_.quantize4 : kernels_.quantize;
            scale[0] = quantize(q, x, stage.in_scale, stage.cols);
            if (n_planes == 2) {
                float* rest = scratch.x + at * stride;
                for (int i = 0; i < stage.cols; ++i) rest[i] = x[i] - static_cast<float>(q[i]) * scale[0];
                scale[1] = kernels_.quantize(q + stride, rest, nullptr, stage.cols);
            }
            if (call.preparing == Preparing::apart && reads_tables(model_, linear)) {
                call.product->table_build(scratch.tables + at * scratch.table_stride, q, stage.cols);
            }
            return;
        }
        float* copy = scratch.x + at * stride;
        if (stage.in_scale) {
            kernels_.multiply(copy, x, stage.in_scale, stage.cols);
        } else {
            std::memcpy(copy, x, static_cast<size_t>(stage.cols) * sizeof(float));
        }
        std::fill(copy + stage.cols, copy + stride, 0.0f);
    }

    // A single token is prepared by every thread for itself, when it takes its first task: sharing would cost a hand-over
    // and the transport of the tables from one core's cache to the other's (7B shape, 2 threads, a token: 2.9 ms shared,
    // 1.0 ms apart).
    int prepared_row(int i, int thread) const {
        if (calls_[i]->preparing != Preparing::apart) return 0;
        const uint8_t bit = static_cast<uint8_t>(1 << i);
        if ((prepared_[thread] & bit) == 0) {
            prepare(*calls_[i], 0, thread);
            prepared_[thread] |= bit;
        }
        return thread;
    }

    // What one task multiplies: rows of one call's matrix, and tokens, whose activations are in the scratch from row
    // `prepared` on.
    struct Piece {
        int row, rows, token, tokens, prepared;
    };

    RowSplit split_of(const LinearCall* const* calls, int count) const {
        RowSplit split;
        for (int i = 0; i < count; ++i) split.add(stage_of(model_, *calls[i]->linear, stage_index_));
        return split;
    }

    // Splits the rows of all calls, one after the other, into tasks of about equal weight.
    void multiply() {
        const RowSplit split = split_of(calls_, count_);
        const auto threads = static_cast<size_t>(runner_.threads());
        const size_t fitting = static_cast<size_t>(split.bytes()) / (threads * kLeastTaskBytes);
        const size_t each = n_ > 8 ? kMostTasks : std::clamp(fitting, size_t{1}, size_t{kMostTasks});
        const int tasks = static_cast<int>(threads * each);
        runner_.run(tasks, [&](int task, int thread) {
            for (int i = 0; i < count_; ++i) {
                const auto [row, end] = split.rows(i, task, tasks);
                if (row == end) continue;
                multiply_piece(*calls_[i], split.stage(i), {row, end - row, 0, n_, prepared_row(i, thread)});
            }
        });
    }

    // A task is a share of the tokens and a share of the rows of all calls, one call after another.
    void multiply_by_tiles() {
        const RowSplit split = split_of(tiled_, tiled_count_);
        const int shares = token_shares(n_, runner_.threads()), row_shares = std::max(1, runner_.threads() / shares);
        runner_.run(shares * row_shares, [&](int task, int thread) {
            const int token = n_ * (task % shares) / shares, end = n_ * (task % shares + 1) / shares;
            for (int i = 0; i < tiled_count_; ++i) {
                const LinearCall& call = *tiled_[i];
                const auto [row, row_end] = split.rows(i, task / shares, row_shares);
                if (row == row_end) continue;
                const int prepared = thread * call.share_tokens;
                for (int t = token; t < end; ++t) prepare(call, t, prepared + t - token);
                multiply_piece(call, split.stage(i), {row, row_end - row, token, end - token, prepared});
            }
        });
    }

    // Calls multiply(first column, columns, tables) for the columns of a piece whose tables there are.
    template <class F>
    void by_tiles(const LinearCall& call, const Stage& stage, Piece piece, F multiply) const {
        const LinearScratch& scratch = call.scratch;
        uint8_t* tables = scratch.tables + static_cast<size_t>(piece.prepared) * scratch.table_stride;
        if (call.preparing != Preparing::by_tiles) return multiply(0, stage.cols, tables);
        const auto q_stride = static_cast<size_t>(padded(stage.cols, 64));
        const int8_t* q = scratch.q + static_cast<size_t>(piece.prepared) * q_stride;
        for (int c = 0; c < stage.cols; c += call.tile_cols) {
            const int cols = std::min(call.tile_cols, stage.cols - c);
            for (int t = 0; t < piece.tokens; ++t) {
                const auto token = static_cast<size_t>(t);
                call.product->table_build(tables + token * scratch.table_stride, q + token * q_stride + c, cols);
            }
            multiply(c, cols, tables);
        }
    }

    void multiply_piece(const LinearCall& call, const Stage& stage, Piece piece) const {
        const bool inner = stage_index_ + 1 < stage_count(*call.linear);
        float* out = inner ? inner_row(call, 0) : call.out;
        const size_t out_stride = inner ? static_cast<size_t>(padded(call.linear->kind.rank, 64)) : call.out_stride;
        out += static_cast<size_t>(piece.token) * out_stride + static_cast<size_t>(piece.row);
        if (!rounds_activations(model_, *call.linear)) return multiply_floats(call, stage, piece, out, out_stride);
        switch (call.linear->kind.form) {
            case LinearKind::Form::dense: return multiply_planes(call, stage, piece, out, out_stride);
            case LinearKind::Form::grouped: return multiply_groups(call, stage, piece, out, out_stride);
            case LinearKind::Form::sign: return multiply_signs(call, stage, piece, out, out_stride);
        }
    }

    const float* out_scale_at(const Stage& stage, int row) const { return stage.out_scale ? stage.out_scale + row : nullptr; }

    size_t sums_stride(const Stage& stage) const {
        return static_cast<size_t>(padded(stage.rows, kernels_.sign_row_block));
    }

    // Where the sums of a piece of a sign product begin.
    int32_t* sums_of(const LinearCall& call, const Stage& stage, Piece piece) const {
        return call.scratch.sums + static_cast<size_t>(piece.token) * sums_stride(stage) + piece.row;
    }

    // The signs of a piece from column c on.
    SignBlocks blocks_of(const Stage& stage, Piece piece, int c) const {
        const int block = kernels_.sign_row_block;
        const size_t stride = kernels_.sign_block_bytes(stage.cols);
        return {stage.row(piece.row) + kernels_.sign_block_bytes(c), stride, (piece.rows + block - 1) / block};
    }

    void multiply_signs(const LinearCall& call, const Stage& stage, Piece piece, float* out, size_t out_stride) const {
        const size_t stride = sums_stride(stage);
        int32_t* sums = sums_of(call, stage, piece);
        by_tiles(call, stage, piece, [&](int c, int cols, const uint8_t* tables) {
            call.product->sign(sums, stride, blocks_of(stage, piece, c), cols, tables, call.scratch.table_stride, piece.tokens,
                               c > 0);
        });
        for (int t = 0; t < piece.tokens; ++t) {
            const auto token = static_cast<size_t>(t);
            kernels_.scale_i32(out + token * out_stride, sums + token * stride, call.scratch.scale[piece.prepared + t],
                               out_scale_at(stage, piece.row), piece.rows);
        }
    }

    void multiply_planes(const LinearCall& call, const Stage& stage, Piece piece, float* out, size_t out_stride) const {
        const LinearScratch& scratch = call.scratch;
        const size_t stride = sums_stride(stage);
        const auto columns = static_cast<size_t>(padded(stage.cols, 64)), first = static_cast<size_t>(piece.prepared);
        int32_t* sums = scratch.sums + piece.row;
        const auto* w = reinterpret_cast<const int8_t*>(stage.row(piece.row));
        kernels_.q8_i8(sums, stride, w, piece.rows, stage.cols, scratch.q + 2 * first * columns, columns, 2 * piece.tokens);
        for (int t = 0; t < piece.tokens; ++t) {
            const auto token = static_cast<size_t>(t);
            const int32_t* coarse = sums + 2 * token * stride;
            kernels_.scale_planes(out + token * out_stride, coarse, coarse + stride, scratch.scale + 2 * (first + token),
                                  out_scale_at(stage, piece.row), piece.rows);
        }
    }

    void multiply_groups(const LinearCall& call, const Stage& stage, Piece piece, float* out, size_t out_stride) const {
        const size_t stride = sums_stride(stage);
        const int block = kernels_.sign_row_block;
        float* sums = reinterpret_cast<float*>(sums_of(call, stage, piece));
        by_tiles(call, stage, piece, [&](int c, int cols, const uint8_t* tables) {
            const int first_group = piece.row / block * (stage.cols / 128) + c / 128;
            const uint16_t* scales = call.linear->scales + static_cast<size_t>(first_group * block);
            call.product->grouped(sums, stride, blocks_of(stage, piece, c), scales, cols, tables, call.scratch.table_stride,
                                  piece.tokens, c > 0);
        });
        for (int t = 0; t < piece.tokens; ++t) {
            const auto token = static_cast<size_t>(t);
            kernels_.scale_f32(out + token * out_stride, sums + token * stride, call.scratch.scale[piece.prepared + t], nullptr,
                               piece.rows);
        }
    }

    void multiply_floats(const LinearCall& call, const Stage& stage, Piece piece, float* out, size_t out_stride) const {
        const Linear& linear = *call.linear;
        const int rows = piece.rows, n = piece.tokens;
        const auto x_stride = static_cast<size_t>(padded(stage.cols, 64)), first = static_cast<size_t>(piece.row);
        const float* x = call.scratch.x + static_cast<size_t>(piece.prepared) * x_stride;
        const uint8_t* w = stage.row(piece.row);
        if (linear.kind.form == LinearKind::Form::dense) {
            if (linear.kind.dtype == DType::q8) {
                kernels_.q8_f32(out, out_stride, reinterpret_cast<const int8_t*>(w), rows, stage.cols, x, x_stride, n);
            } else {
                kernels_.dense_f32(out, out_stride, w, linear.kind.dtype, rows, stage.cols, x, x_stride, n);
            }
        } else if (linear.kind.form == LinearKind::Form::grouped) {
            const uint16_t* scales = linear.scales + first * static_cast<size_t>(stage.cols / 128);
            kernels_.grouped_f32(out, out_stride, w, scales, rows, stage.cols, x, x_stride, n);
        } else {
            kernels_.sign_f32(out, out_stride, w, rows, stage.cols, x, x_stride, n);
        }
        if (!stage.out_scale) return;
        for (int t = 0; t < n; ++t) {
            float* token_out = out + static_cast<size_t>(t) * out_stride;
            kernels_.scale_f32(token_out, token_out, 1.0f, stage.out_scale + first, rows);
        }
    }

    const Model& model_;
    const KernelSet& kernels_;
    Runner runner_;
    int stage_index_, n_;
    const float* x_ = nullptr;
    size_t x_stride_ = 0;
    const LinearCall *calls_[RowSplit::kMost] = {}, *tiled_[RowSplit::kMost] = {};
    int count_ = 0, tiled_count_ = 0;
    mutable uint8_t prepared_[Pool::kMaxThreads] = {};  // by thread: which calls' single token is ready, one bit each
};

// LayerNorm and bias of n tokens' outputs of linears with equally many rows.
void finish_outputs(const Model& model, Runner runner, const LinearCall* calls, int n_calls, int n) {
    const auto idle = [](const LinearCall& call) { return !call.linear->kind.layernorm && !call.linear->bias; };
    if (std::all_of(calls, calls + n_calls, idle)) return;
    const KernelSet& kernels = *model.kernels;
    const int rows = calls[0].linear->rows, outputs = n_calls * n;
    // A single token's take less time than a hand-over.
    const int together = n == 1 ? kNormTogether : std::clamp(outputs / runner.threads(), 1, kNormTogether);
    const auto row = [&](int i) { return calls[i / n].out + static_cast<size_t>(i % n) * calls[i / n].out_stride; };
    runner.run((outputs + together - 1) / together, [&](int task) {
        const int first = task * together, end = std::min(outputs, first + together);
        float* normed[kNormTogether] = {};
        int count = 0;
        for (int i = first; i < end; ++i) {
            if (calls[i / n].linear->kind.layernorm) normed[count++] = row(i);
        }
        kernels.layernorm(normed, count, rows, 1e-5f);  // nn.LayerNorm's default eps
        for (int i = first; i < end; ++i) {
            if (const float* bias = calls[i / n].linear->bias) kernels.add(row(i), bias, rows);
        }
    });
}

}  // namespace

LinearCall prepare_call(const Model& model, int threads, const Linear& linear, float* out, size_t out_stride, int n,
                        Carver* carver) {
    LinearCall call;
    call.linear = &linear;
    call.out = out;
    call.out_stride = out_stride;
    LinearScratch& scratch = call.scratch;
    const auto tokens = static_cast<size_t>(n);
    size_t prepared = tokens;
    if (n == 1) {
        call.preparing = Preparing::apart;
        prepared = static_cast<size_t>(threads);
    } else if (reads_tables(model, linear)) {
        call.preparing = Preparing::by_tiles;
        const int shares = token_shares(n, threads);
        call.share_tokens = (n + shares - 1) / shares;
        prepared = static_cast<size_t>(threads * call.share_tokens);
    }
    const int rank = linear.kind.form == LinearKind::Form::sign ? linear.kind.rank : 0;
    const auto cols = static_cast<size_t>(padded(std::max(linear.cols, rank), 64));
    if (rank > 0) scratch.inner = carver->take<float>(tokens * static_cast<size_t>(padded(rank, 64)));
    if (!rounds_activations(model, linear)) {
        scratch.x = carver->take<float>(prepared * cols);
        return call;
    }
    const auto n_planes = static_cast<size_t>(planes(linear));
    scratch.q = carver->take<int8_t>(prepared * n_planes * cols);
    scratch.scale = carver->take<float>(prepared * n_planes);
    if (n_planes > 1) scratch.x = carver->take<float>(prepared * cols);
    const auto rows = static_cast<size_t>(padded(std::max(linear.rows, rank), model.kernels->sign_row_block));
    scratch.sums = carver->take<int32_t>(tokens * n_planes * rows);
    if (reads_tables(model, linear)) {
        call.product = &product_of(model, linear, n);
        size_t bytes = std::max(call.product->table_bytes(linear.cols), call.product->table_bytes(rank));
        if (call.preparing == Preparing::by_tiles) {
            const int unit = call.product->tile_cols;
            const auto fitting = static_cast<int>(kTileTableBytes / call.product->table_bytes(unit)) / call.share_tokens;
            call.tile_cols = std::max(1, fitting) * unit;
            bytes = std::min(bytes, call.product->table_bytes(call.tile_cols));
        }
        scratch.table_stride = (bytes + 63) / 64 * 64;
        scratch.tables = carver->take<uint8_t>(prepared * scratch.table_stride);
    }
    return call;
}

void run_linears(const Model& model, Runner runner, const LinearCall* calls, int n_calls, const float* x, size_t x_stride,
                 int n) {
    GroupRun(model, runner, calls, n_calls, 0, n).run(x, x_stride);
    GroupRun(model, runner, calls, n_calls, 1, n).run(x, x_stride);
    for (int i = 0; i < n_calls;) {
        const int first = i++;
        while (i < n_calls && calls[i].linear->rows == calls[first].linear->rows) ++i;
        finish_outputs(model, runner, calls + first, i - first, n);
    }
}

void read_row(const Model& model, const Linear& matrix, int row, float* out) {
    const int cols = matrix.cols;
    const auto first = static_cast<size_t>(row);
    if (matrix.kind.form == LinearKind::Form::grouped) {
        const KernelSet& kernels = *model.kernels;
        const int groups = cols / 128, block = kernels.sign_row_block;
        const bool packed = model.activations != Activations::f32;
        // Column by column from the packed bits: one row a token, so simplicity wins.
        uint8_t bits[kMaxDim / 8];
        const uint16_t* scales = matrix.scales + first * static_cast<size_t>(groups);
        size_t scale_step = 1;
        if (packed) {
            const size_t b = first / static_cast<size_t>(block);
            kernels.sign_unpack_row(bits, matrix.sign[0].bits + b * kernels.sign_block_bytes(cols), row % block, cols);
            scales = matrix.scales + b * static_cast<size_t>(groups * block) + row % block;
            scale_step = static_cast<size_t>(block);
        } else {
            const auto stride = static_cast<size_t>(padded(cols, 16) / 8);
            std::memcpy(bits, matrix.sign[0].bits + first * stride, static_cast<size_t>(cols) / 8);
        }
        for (int c = 0; c < cols; ++c) {
            const float d = f32_from_f16(scales[static_cast<size_t>(c / 128) * scale_step]);
            out[c] = (bits[c / 8] >> (c % 8) & 1) != 0 ? -d : d;
        }
        return;
    }
    const uint8_t* w = stage_of(model, matrix, 0).row(row);
    for (int c = 0; c < cols; ++c) {
        switch (matrix.kind.dtype) {
            case DType::f32: out[c] = reinterpret_cast<const float*>(w)[c]; break;
            case DType::f16: out[c] = f32_from_f16(reinterpret_cast<const uint16_t*>(w)[c]); break;
            case DType::bf16: out[c] = f32_from_bf16(reinterpret_cast<const uint16_t*>(w)[c]); break;
            case DType::q8: out[c] = static_cast<float>(reinterpret_cast<const int8_t*>(w)[c]) * matrix.h[row]; break;
        }
    }
}

}  // namespace onebit
