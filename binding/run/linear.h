// y = W x for every kind of W: scale, round and tabulate the activations; multiply, rows split over the threads; scale
// back; LayerNorm and bias where the kind has them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "system/carver.h"
#include "model/model.h"
#include "run/runner.h"

namespace onebit {

// Who brings activations into the form that a kernel reads.
enum class Preparing : uint8_t {
    together,  // all threads, before they multiply
    apart,     // each thread for itself: one token
    by_tiles,  // each thread for itself, some tokens and a tile of columns at a time: tables of several tokens
};

// What one linear needs for n tokens. Prepared activations have a row a token, or rows for each thread.
struct LinearScratch {
    int8_t* q = nullptr;        // (prepared, planes, padded(cols, 64)) rounded activations
    float* scale = nullptr;     // (prepared, planes) their scales
    uint8_t* tables = nullptr;  // (prepared, table_stride) what the sign product reads
    size_t table_stride = 0;
    float* x = nullptr;         // (prepared, padded(cols, 64)) scaled float activations, or what rounding left of them
    int32_t* sums = nullptr;    // (n, planes, padded(rows, block)) integer sums, or the float sums of groups
    float* inner = nullptr;     // (n, padded(rank, 64)) the vector between two sign stages
};

struct LinearCall {
    const Linear* linear = nullptr;
    float* out = nullptr;  // (n, out_stride)
    size_t out_stride = 0;
    Preparing preparing = Preparing::together;
    const SignProduct* product = nullptr;  // where signs meet rounded activations
    int share_tokens = 0, tile_cols = 0;   // by tiles: tokens of a share, and columns whose tables there are at a time
    LinearScratch scratch;
};

// A call with its scratch taken from the carver, for up to n tokens and the threads of one runner.
LinearCall prepare_call(const Model& model, int threads, const Linear& linear, float* out, size_t out_stride, int n,
                        Carver* carver);

// Runs up to a few linears that read the same x (n, x_stride), as one group: fewer meetings of the threads.
void run_linears(const Model& model, Runner runner, const LinearCall* calls, int n_calls, const float* x, size_t x_stride,
                 int n);

// One row of a matrix as floats: what an embedding does. out: (cols).
void read_row(const Model& model, const Linear& matrix, int row, float* out);

}  // namespace onebit
