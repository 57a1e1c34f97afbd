// What a linear is made of when it multiplies: one matrix, a chain two; where its rows lie; and how the rows of some
// linears that read the same activations are shared out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/model.h"

namespace onebit {

// One matrix of a linear with what stands before and behind it.
struct Stage {
    int rows, cols;
    const float* in_scale;    // (cols) or null
    const float* out_scale;   // (rows) or null
    const void* weights;      // row r of a dense matrix, or of signs as the file has them, is at r * row_bytes
    size_t row_bytes = 0;     // signs packed for lookups: of a block of rows, divided by its rows
    int row_unit = 0;         // rows are shared out in multiples of this

    const uint8_t* row(int r) const { return static_cast<const uint8_t*>(weights) + static_cast<size_t>(r) * row_bytes; }
};

int stage_count(const Linear& linear);
Stage stage_of(const Model& model, const Linear& linear, int index);

// Activations are rounded to int8 or int4 before this linear.
bool rounds_activations(const Model& model, const Linear& linear);
// Packed signs times tables made from rounded activations.
bool reads_tables(const Model& model, const Linear& linear);

// The rows of up to kMost linears' matrices, one after the other, cut into shares of about equal bytes.
class RowSplit {
public:
    static constexpr int kMost = 3;  // q, k and v are the largest group

    void add(const Stage& stage);
    const Stage& stage(int i) const { return stages_[i]; }
    uint64_t bytes() const { return begin_[count_]; }

    struct Rows {
        int first, end;  // none where they are equal
    };
    // Which rows of matrix i belong to share number `share` of `shares`.
    Rows rows(int i, int share, int shares) const {
        return {row_at(i, share, shares), row_at(i, share + 1, shares)};
    }

private:
    int row_at(int i, int share, int shares) const;

    Stage stages_[kMost] = {};
    uint64_t begin_[kMost + 1] = {};  // bytes before each
    int count_ = 0;
};

}  // namespace onebit
